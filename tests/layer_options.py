"""The options with which tests build mixers and feed-forwards at width 64: every form that changes an algorithm.

A name that is not here is built with its defaults.
"""

from __future__ import annotations

from typing import Any

# Options beside the defaults, and smaller ones where the defaults are slow on a CPU.
MIXER_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "attention": [
        {},
        {"heads": 4, "kv_heads": 2, "window": 5, "qk_norm": True, "bias": True},
        {"heads": 4, "kv_heads": 1, "head_dim": 24, "rope": False},
        {"heads": 2, "window": 1},
        {"heads": 4, "kv_heads": 2, "gate": True, "rotary_fraction": 0.25, "qk_norm": True, "scale": 0.3},
        {"heads": 4, "kv_heads": 2, "sinks": True, "window": 5, "bias": True, "rope_scaling": "yarn"},
        {"heads": 4, "kv_heads": 2, "qk_norm": True, "qk_norm_over": "width", "rope_scaling": "llama3"},
        {"heads": 2, "out_bias": True, "rope_scaling": "linear"},
    ],
    "bidirectional_attention": [{}, {"heads": 4, "kv_heads": 2, "qk_norm": True, "gate": True, "bias": True}],
    "neighborhood_attention": [
        {},
        {"heads": 4, "kv_heads": 2, "window": 4, "rope": False},
        {"window": 300},
        {"heads": 2, "window": 3, "columns": 5, "bias": True},
        {"columns": 4, "qk_norm": True},
    ],
    "mla": [
        {"heads": 2, "kv_rank": 24},
        {"heads": 3, "head_dim": 12, "rope_dim": 6, "v_dim": 20, "kv_rank": 16, "q_rank": 10},
        {"heads": 2, "rope": False, "scale": 0.2},
    ],
    "mamba": [
        {},
        {"d_state": 3, "conv": 2, "dt_rank": 5, "inner_norm": "weighted"},
        {"d_state": 2, "negative_eigenvalues": True},
    ],
    "parallel": [
        {"branches": [{"mixer": "attention"}, {"mixer": "mamba2", "options": {"d_state": 8}}]},
        {"branches": [{"mixer": "attention"}, {"mixer": "gla"}, {"mixer": "short_conv"}], "fuse": "mean_norm"},
        {"branches": [{"mixer": "attention", "options": {"window": 5}}, {"mixer": "gla"}], "fuse": "concat"},
    ],
    "heads": [
        {
            "branches": [
                {"mixer": "attention", "heads": 1},
                {"mixer": "mamba2", "options": {"head_dim": 16, "d_state": 8}, "heads": 3},
            ]
        },
        {"branches": [{"mixer": "attention", "heads": 2}, {"mixer": "gla", "heads": 2}]},
    ],
    "hourglass": [
        {},
        {
            "branches": [
                {"mixer": "neighborhood_attention", "options": {"window": 3}},
                {"mixer": "hourglass", "options": {"branches": [{"mixer": "vision_mamba", "options": {"d_state": 4}}]}},
                {"mixer": "attention", "options": {"heads": 2}},
            ],
            "ratio": 2,
            "width": 24,
        },
        {
            "branches": [{"mixer": "neighborhood_attention", "options": {"window": 3, "columns": 3}}],
            "ratio": 9,
            "columns": 9,
            "width": 24,
        },
    ],
    "mamba2": [{"d_state": 16}, {"d_state": 8, "head_dim": 32, "groups": 2, "conv": 2}],
    "gla": [{}, {"heads": 2, "expand_k": 1.0, "expand_v": 2.0}],
    "linear_attention": [
        {},
        {"heads": 4, "feature_map": "relu"},
        {"heads": 2, "feature_map": "identity", "normaliser": "rms"},
    ],
    "based": [{"heads": 2, "feature_dim": 4}],
    "retention": [{}, {"heads": 2, "expand_v": 1.0}],
    "lightning": [{"heads": 4}, {"heads": 2, "head_dim": 24}],
    "hgrn2": [{"heads": 2}],
    "mlstm_up": [{}, {"heads": 2, "expand": 1, "conv": 2, "block": 8, "gate_cap": 6.0}],
    "mlstm": [{}, {"heads": 2, "expand_k": 1.0, "expand_v": 2.0, "gate_cap": 6.0}],
    "infini_attention": [{"heads": 2, "window": 5}, {"window": 80}],
    "aft": [
        {},
        {"form": "conv", "window": 5, "heads": 2},
        {"form": "local", "window": 20, "length": 9},
        {"form": "full", "length": 50},
    ],
    "rwkv5": [{"head_dim": 16}],
    "rwkv6": [{"head_dim": 16, "mix_rank": 4, "decay_rank": 8}],
    "rwkv7": [{"head_dim": 16}, {"head_dim": 32, "decay_rank": 4, "rate_rank": 8, "value_rank": 3, "gate_rank": 12}],
    "delta_net": [{}, {"heads": 4, "expand_v": 2.0, "gate": True, "negative_eigenvalues": True, "conv": 2}],
    "gated_delta_net": [{}, {"heads": 4, "key_heads": 2, "expand_k": 0.5, "negative_eigenvalues": True}],
    "kda": [{}, {"heads": 2, "expand_k": 0.5, "gate_rank": 8, "negative_eigenvalues": True}],
    "delta_product": [{}, {"heads": 2, "products": 3, "decay": False, "gate": False, "negative_eigenvalues": False}],
    "rg_lru": [{"heads": 4}, {"width": 48, "heads": 3, "conv": 2}],
    "h3": [{"d_state": 8, "shift": 6}, {"d_state": 6, "shift": 3, "head_dim": 4}],
    "hyena": [{"hidden": 16}, {"hidden": 8, "order": 3, "length": 40, "conv": 2, "bands": 3, "depth": 1}],
    "lssl": [{"d_state": 8}, {"d_state": 6, "outputs": 3}],
    "monarch": [{"hidden": 16}, {"hidden": 8, "residual": False, "length": 40, "conv": 2, "depth": 1}],
    "s4": [{"d_state": 8}, {"d_state": 6, "discretisation": "zoh"}],
    "s4d": [{"d_state": 16}, {"d_state": 8, "init": "lin", "discretisation": "bilinear"}],
    "hgrn": [{}, {"expand": 2}],
    "min_gru": [{}, {"expand": 2, "candidate": "linear"}],
    "rnn": [{}, {"activation": "relu", "hidden": 24, "heads": 3}],
    "lstm": [{}, {"hidden": 24, "heads": 3}],
    "gru": [{}, {"hidden": 24, "heads": 3}],
    "slstm": [{}, {"heads": 1, "conv": 0}],
    "qrnn": [{}, {"taps": 1, "pooling": "f"}, {"width": 24, "taps": 3, "pooling": "ifo"}],
    "lru": [{}, {"d_state": 24, "r_min": 0.9, "r_max": 0.999}],
    "s5": [{}, {"d_state": 24, "blocks": 3}],
    "vision_mamba": [{"d_state": 4}],
    "base_conv": [{}, {"taps": 0, "length": 40}],
    "short_conv": [{}, {"taps": 5, "bias": True}],
    "lfm2_conv": [{}, {"taps": 5, "bias": True}],
}
FEED_FORWARD_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "rwkv_channel_mix": [{}, {"ratio": 1.5, "gate": False}],
    "swiglu": [{}, {"hidden": 40, "bias": True}],
    "monarch_mlp": [{}, {"ratio": 0.5, "blocks": 8, "bias": False}],
    "geglu": [{}, {"hidden": 40, "bias": True, "gelu": "exact"}],
    "mlp": [
        {},
        {"ratio": 1.5, "bias": False},
        {"ratio": 2, "activation": "relu2"},
        {"activation": "silu", "bias": False},
    ],
    "moe": [
        {"hidden": 48},
        {"experts": 5, "top_k": 3, "hidden": 24, "expert": "geglu", "renormalise": False, "z_loss": 0.1},
        {
            "experts": 12,
            "top_k": 4,
            "hidden": 16,
            "router": "sigmoid",
            "scale": 2.5,
            "groups": 4,
            "top_groups": 2,
            "bias_rate": 0.001,
            "shared": 32,
        },
        {"experts": 4, "hidden": 24, "expert": "relu2", "shared": 40, "shared_gate": True},
        {"experts": 2, "top_k": 1, "hidden": 32, "expert": "gelu", "renormalise": False},
    ],
}
