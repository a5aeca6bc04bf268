"""`chimeralab plugins --json` lists the whole catalogue: the names are written out here."""

from __future__ import annotations

import json

import pytest
from called import call_process

MIXERS = {
    "attention": "attention bidirectional_attention neighborhood_attention mla infini_attention aft",
    "linear attention": "linear_attention based retention gla lightning hgrn2 mlstm mlstm_up rwkv4 rwkv5 rwkv6",
    "delta rule": "delta_net gated_delta_net kda delta_product rwkv7",
    "state space": "mamba mamba2 s4 s4d s5 lssl h3 vision_mamba",
    "recurrent": "lru rg_lru hgrn min_gru qrnn rnn lstm gru slstm",
    "convolution": "hyena monarch base_conv short_conv lfm2_conv",
    "combined": "parallel heads hourglass",
}
FEED_FORWARDS = "mlp swiglu geglu moe rwkv_channel_mix monarch_mlp none"
PRESETS = {
    "transformers": "transformer gpt2 llama mistral mixtral gemma",
    "recurrent": "mamba mamba2 rwkv4 rwkv6 rwkv7 gla retnet deltanet gated-deltanet hgrn2 xlstm hawk",
    "hybrids": "based griffin recurrentgemma jamba samba zamba2 hymba falcon-h1 qwen3-next kimi-linear nemotron-h",
    "convolutional": "h3-hybrid hyena striped-hyena monarch-mixer lfm2",
    "vision": "vision-mamba vit dit hdit",
}


@pytest.fixture(scope="module")
def listed() -> dict[str, set[str]]:
    plugins = json.loads(call_process("plugins", "--json").out)
    return {key: {name for plugin in plugins for name in plugin[key]} for key in ("provides", "sizes")}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        *(("mixer", names) for names in MIXERS.values()),
        ("feed-forward", FEED_FORWARDS),
        *(("preset", names) for names in PRESETS.values()),
    ],
    ids=[*MIXERS, "feed-forwards", *(f"presets: {family}" for family in PRESETS)],
)
def test_the_catalogue_is_listed(listed: dict[str, set[str]], kind: str, names: str) -> None:
    missing = {name for name in names.split() if f"{kind} {name}" not in listed["provides"]}
    assert not missing


def test_each_preset_is_listed_with_its_sizes(listed: dict[str, set[str]]) -> None:
    wanted = {f"{name}-{size}" for names in PRESETS.values() for name in names.split() for size in ("tiny", "small")}
    assert wanted | {"mamba-130m", "rwkv7-1.5b", "jamba-52b"} <= listed["sizes"]
