"""Presets: each can be built, trains, and survives as text; published sizes are met."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from chimeralab import Preset, Size, SpecError, StackSpec, parse
from chimeralab.contracts import Classifier, Regression
from chimeralab.plugins import registry
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.cost import cost
from chimeralab.stack.text import to_text

PRESETS = registry().presets
PUBLISHED = [preset for preset in PRESETS.values() if preset.parameters]
MET = {
    "bamba": "9b",
    "deepseek-v3": "671b",
    "dit": "33m 130m 458m 675m",
    "falcon-h1": "0.5b 1.5b",
    "gemma": "1b",
    "gemma3": "1b",
    "gla": "340m 1.3b",
    "gpt2": "124m 355m 774m 1.5b",
    "h3-hybrid": "125m 355m",
    "hdit": "557m",
    "hyena": "125m 125m-slim 153m 355m 1.3b",
    "jamba": "52b",
    "kimi-linear": "48b",
    "lfm2": "350m",
    "llama": "7b 13b",
    "mamba": "130m 370m 790m 1b 2.8b",
    "mamba2": "130m 370m 780m 1b 2.7b",
    "mistral": "7b",
    "mixtral": "8x7b",
    "nemotron-h": "8b",
    "qwen3-next": "80b",
    "recurrentgemma": "2b",
    "rwkv4": "169m 430m 1b5 3b 7b 14b",
    "rwkv6": "1b6 3b",
    "rwkv7": "0.1b 0.4b 1.5b 2.9b",
    "samba": "421m",
    "smollm": "135m 360m 1.7b",
    "tinyllama": "1b",
    "vision-mamba": "7m 26m 98m",
    "vit": "22m 86m 307m",
    "xlstm": "125m 350m 760m 1.3b 7b",
}


def by_name(preset: Preset) -> str:
    return preset.name


@pytest.mark.parametrize("preset", PRESETS.values(), ids=by_name)
def test_a_preset_can_be_built(preset: Preset) -> None:
    assert cost(compose(preset.name)).total_params > 0
    assert preset.title
    assert preset.source


@pytest.mark.parametrize("preset", PUBLISHED, ids=by_name)
def test_a_published_size_is_met_to_a_thousandth_of_its_checkpoint_or_within_three_percent(preset: Preset) -> None:
    """All parameters, embedding and head included, with the vocabulary of the published model."""
    assert preset.vocab_size
    counted = cost(compose(preset.name), vocab_size=preset.vocab_size).total_params
    assert counted == pytest.approx(preset.parameters, rel=0.001 if "checkpoint" in preset.source else 0.03)


@pytest.mark.parametrize("name", ["dit-33m", "dit-130m", "dit-458m", "dit-675m"])
def test_a_diffusion_transformer_with_the_ends_of_its_paper_has_its_parameters(name: str) -> None:
    """Patches of 2 · 2 latents of 4 numbers, of which noise and its variance are asked; its positions are fixed."""
    readout = partial(Regression, features=2 * 2 * 8)
    report = cost(compose(name), vocab_size=0, input_features=16, classes=1000, readout=readout)
    counted = report.total_params - report.params["positions"]
    assert round(counted / 1e6) == PRESETS[name].parameters / 1e6


@pytest.mark.parametrize("name", ["vision-mamba-7m", "vision-mamba-26m", "vision-mamba-98m"])
def test_vision_mamba_with_patches_and_classes_has_the_parameters_of_its_paper(name: str) -> None:
    readout = partial(Classifier, classes=1000)
    counted = cost(compose(name), vocab_size=0, input_features=16 * 16 * 3, readout=readout).total_params
    assert round(counted / 1e6) == PRESETS[name].parameters / 1e6


def test_the_published_sizes_are_these() -> None:
    wanted = {f"{name}-{size}" for name, sizes in MET.items() for size in sizes.split()}
    assert {preset.name for preset in PUBLISHED} >= wanted


@pytest.mark.parametrize("preset", PRESETS.values(), ids=by_name)
def test_a_preset_survives_as_text(preset: Preset) -> None:
    layers = parse(preset.pattern)
    assert parse(to_text(layers)) == layers
    assert StackSpec(layers=layers, **preset.settings).layers == layers


def test_every_preset_of_this_project_comes_tiny_and_small() -> None:
    for preset in PRESETS.values():
        if not preset.size_of and registry().owner("preset", preset.name).package == "chimeralab":
            tiny, small = (cost(compose(f"{preset.name}-{size}")).total_params for size in ("tiny", "small"))
            assert tiny < 4e6 < small, preset.name


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if p.name.endswith("-tiny")], ids=by_name)
def test_a_tiny_preset_learns_a_sequence_by_heart(preset: Preset) -> None:
    model = build(compose(preset.name), vocab_size=32, seed=0)
    tokens = torch.randint(32, (2, 17), generator=torch.Generator().manual_seed(0))
    groups = [{"params": group.params, "lr": 3e-3 * group.lr_scale} for group in model.param_groups()]
    optimizer = torch.optim.AdamW(groups)
    losses = []
    for _ in range(4):
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02, losses


def test_a_size_lays_its_settings_over_the_presets_and_keeps_its_pattern() -> None:
    preset = Preset(
        "lynx", "attention x2", "Lynx", "the woods", {"norm": "layer"}, {"big": Size(settings={"d_model": 64})}
    )
    big = preset.at("big")
    assert (big.name, big.pattern, big.source) == ("lynx-big", "attention x2", "the woods")
    assert big.settings == {"norm": "layer", "d_model": 64}
    assert big.size_of == "lynx"


def test_an_unknown_size_is_refused_with_a_near_one() -> None:
    with pytest.raises(SpecError, match=r"unknown preset 'mamba-13m'.*[Dd]id you mean 'mamba-130m'"):
        compose("mamba-13m")
