"""Stacks that see a whole image: both ways along its patches. None of them can write text from left to right.

Published counts hold a map from patches and one to classes or patches; here a table of tokens stands in their place.
"""

from __future__ import annotations

from chimeralab import Preset, Size

UNTIED = {"tie_embeddings": False}
VIT = {"norm": "layer", "norm_eps": 1e-6, **UNTIED}
DIT = {"norm": "layer", "residual": "adaptive", "norm_eps": 1e-6}
NEAR = "neighborhood_attention[window=3, columns=4, qk_norm=true]"
BELOW = "neighborhood_attention[window=3, columns=2, qk_norm=true]"
FAR = "bidirectional_attention[qk_norm=true]"
BOTTOM = f"hourglass({FAR}, {FAR}, columns=2, condition=128)"
PATCHES, CLASSES = 196, 1000  # of ImageNet's images: 14 · 14 patches


def vim(width: int, millions: float) -> Size:
    settings = {"d_model": width, "positions": PATCHES + 1, **UNTIED}
    source = "arXiv 2401.09417: with the map from its patches, not with a table of tokens"
    return Size("vision_mamba x24, ffn=none", settings, CLASSES, millions * 1e6, source)


def vit(layers: int, width: int, heads: int, millions: float, paper: str) -> Size:
    pattern = f"bidirectional_attention[heads={heads}, rope=false, bias=true] x{layers}, ffn=mlp[activation=gelu]"
    source = f"arXiv {paper}: with the map from its patches, not with a table of tokens"
    return Size(pattern, {"d_model": width, "positions": PATCHES}, CLASSES, millions * 1e6, source)


def dit(layers: int, width: int, heads: int, millions: float) -> Size:
    pattern = f"bidirectional_attention[heads={heads}, rope=false, bias=true] x{layers}, ffn=mlp"
    source = "arXiv 2212.09748, at patches of 2: with its table of 1000 classes, not with one of tokens"
    return Size(pattern, {"d_model": width}, CLASSES, millions * 1e6, source)


def level(mixer: str, depth: int, below: str = "") -> str:
    """Layers before and after the level below; at the bottom, layers alone."""
    return ", ".join([mixer] * depth + ([below] + [mixer] * depth if below else []))


def hdit(columns: int, window: int, widths: tuple[int, int, int], depths: tuple[int, int, int], condition: int) -> str:
    """Two levels of local attention around one of global attention; each has half of the columns of the one around."""

    def local(width: int, columns: int) -> str:
        return f"neighborhood_attention[heads={width // 64}, window={window}, columns={columns}, qk_norm=true]"

    def inside(layers: str, width: int, columns: int) -> str:
        return f"hourglass({layers}, width={width}, columns={columns}, condition={condition})"

    outer, middle, inner = widths
    bottom = inside(
        level(f"bidirectional_attention[heads={inner // 64}, qk_norm=true]", depths[2]), inner, columns // 2
    )
    lower = inside(level(local(middle, columns // 2), depths[1], bottom), middle, columns)
    ends = f"{local(outer, columns)} x{depths[0]}"
    ffn = f"geglu x{depths[0]}, none, geglu x{depths[0]}"
    return f"{ends}, {lower}, {ends}, ffn=({ffn})"


PRESETS = (
    Preset(
        "vision-mamba",
        "vision_mamba x6, ffn=none",
        "Vision Mamba: a state space in each direction over patches",
        "arXiv 2401.09417",
        sizes={"7m": vim(192, 7), "26m": vim(384, 26), "98m": vim(768, 98)},
    ),
    Preset(
        "vit",
        "bidirectional_attention[rope=false, bias=true] x6, ffn=mlp[activation=gelu]",
        "ViT: a transformer over patches, whose mean names the picture",
        "arXiv 2010.11929, without the class token: the mean stands for it, as in arXiv 2106.04560",
        {**VIT, "positions": 256},
        sizes={
            "22m": vit(12, 384, 6, 22, "2012.12877, DeiT-S"),
            "86m": vit(12, 768, 12, 86, "2010.11929, ViT-B"),
            "307m": vit(24, 1024, 16, 307, "2010.11929, ViT-L"),
        },
    ),
    Preset(
        "dit",
        "bidirectional_attention[rope=false, bias=true] x6, ffn=mlp",
        "DiT: a transformer told of noise and class by its norms",
        "arXiv 2212.09748, with learned positions in place of fixed ones",
        {**DIT, "positions": 256},
        sizes={
            "33m": dit(12, 384, 6, 33),
            "130m": dit(12, 768, 12, 130),
            "458m": dit(24, 1024, 16, 458),
            "675m": dit(28, 1152, 16, 675),
        },
    ),
    Preset(
        "hdit",
        f"{NEAR}, hourglass({BELOW}, {BOTTOM}, {BELOW}, columns=4, condition=128), {NEAR}, ffn=(geglu, none, geglu)",
        "Hourglass Diffusion Transformer: local attention outside, global attention over merged patches inside",
        "arXiv 2401.11605, for 4 · 4 patches, with rotary positions counted row by row rather than in the plane, levels"
        " as added branches, and DiT's condition",
        {"residual": "scaled", "condition": 128},
        sizes={
            "557m": Size(
                hdit(64, 7, (384, 768, 1536), (2, 2, 16), 768),
                {"d_model": 384, "condition": 768},
                CLASSES,
                557e6,
                "arXiv 2401.11605, the model of ImageNet at 256 · 256, without the two layers of its mapping network",
            )
        },
    ),
)
