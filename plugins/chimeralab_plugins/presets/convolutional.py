"""Long and short convolutions, alone and with attention."""

from __future__ import annotations

from chimeralab import Preset

LFM2 = "attention[heads=16, kv_heads=8, qk_norm=true, rope_theta=1000000.0]"

PRESETS = (
    Preset("hyena", "hyena x6, ffn=mlp[ratio=2]", "Gated implicit long convolutions", "arXiv 2302.10866"),
    Preset("striped-hyena", "(hyena, attention) x3", "Hyena and attention alternate", "togethercomputer/stripedhyena"),
    Preset(
        "h3-hybrid",
        "h3, attention, h3 x2, attention, h3, ffn=mlp",
        "Attention at the second layer and after the middle",
        "arXiv 2212.14052",
    ),
    Preset(
        "lfm2-350m",
        f"short_conv x2, ({LFM2}, short_conv x2) x2, ({LFM2}, short_conv) x4, ffn=swiglu[hidden=4608]",
        "Gated short convolutions with attention between",
        "LiquidAI/LFM2-350M",
        {"d_model": 1024},
    ),
)
