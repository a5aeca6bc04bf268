"""A level of an hourglass: layers over a shorter sequence of wider tokens, inside one layer."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Branch, Context, Cost, LayerConfig, Mixer, MixerConfig, ParamGroup, Place, SpecError, ops
from chimeralab_plugins.feed_forwards.gated import GeGLU, GeGLUConfig
from chimeralab_plugins.projection import projection

PLACE = "mixer hourglass"
EPS = 1e-6


class HourglassConfig(MixerConfig):
    branches: tuple[Branch, ...] = Field(
        (Branch(mixer="bidirectional_attention"),),
        min_length=1,
        max_length=64,
        description="Mixers of the layers inside, in order; a GeGLU follows each, but not another hourglass",
    )
    ratio: int = Field(4, ge=1, le=256, description="Neighbouring tokens that become one")
    columns: int | None = Field(
        None,
        ge=1,
        description="The tokens are a grid of so many columns, row by row, and squares of √ratio · √ratio become one;"
        " empty: those that follow one another",
    )
    width: int | None = Field(None, ge=1, le=65536, description="Width inside; default twice the model's")
    condition: int = Field(
        0, ge=0, le=65536, description="Width of the stack's condition, which scales the norms inside; 0: own weights"
    )

    def inside(self, d_model: int) -> int:
        return self.width or 2 * d_model

    @property
    def grid_columns(self) -> int | None:
        return self.columns

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of the tokens that become one."""
        side = math.isqrt(self.ratio)
        return (1, self.ratio) if self.columns is None else (side, side)

    @property
    def across(self) -> int:
        """Tokens inside for each row of tiles."""
        return 1 if self.columns is None else self.columns // self.tile[1]

    def resolved(self, d_model: int) -> list[tuple[type[Mixer], LayerConfig]]:
        return [
            branch.resolve(self.inside(d_model), f"{PLACE}.branches[{i}]", future=True)
            for i, branch in enumerate(self.branches)
        ]

    def check(self, d_model: int) -> None:
        for i, branch in enumerate(self.branches):
            if branch.heads is not None:
                raise SpecError(
                    "the mixers of an hourglass have the whole width each",
                    place=f"{PLACE}.branches[{i}]",
                    remedy=f"Leave out :{branch.heads}",
                )
        down, along = self.tile
        if self.columns is not None and (down * along != self.ratio or self.columns % along):
            raise SpecError(
                f"{self.columns} columns cannot be cut into squares of {self.ratio} tokens",
                place=f"{PLACE}.columns",
                remedy="Choose a ratio that is a square, whose side divides columns",
            )
        for i, (_, inner) in enumerate(self.resolved(d_model)):
            wanted = inner.grid_columns if isinstance(inner, MixerConfig) else None
            if self.columns is not None and wanted not in (None, self.across):
                raise SpecError(
                    f"inside there are rows of {self.across} tokens, not of {wanted}",
                    place=f"{PLACE}.branches[{i}].columns",
                    remedy=f"Write columns={self.across}",
                )


class Scale(nn.Module):
    """RMS norm with weights of its own, or with 1 + W c of a condition c, where W is zero at first."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.weight = None if condition else nn.Parameter(torch.ones(width))
        self.linear = nn.Linear(condition, width, bias=False) if condition else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)

    @staticmethod
    def cost(width: int, condition: int) -> Cost:
        """Once for a sequence, whatever its length."""
        return Cost.linear(condition, width).once() if condition else Cost.weights(width)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:  # x: B T W; c: B C
        x = ops.rms_norm(x, self.weight, EPS)
        if self.linear is None or c is None:
            return x
        if c.shape[-1] != self.linear.in_features:
            raise SpecError(
                f"the stack's condition is {c.shape[-1]} wide, and the norms expect {self.linear.in_features}",
                place=f"{PLACE}.condition",
                remedy=f"Write condition={c.shape[-1]}",
            )
        return x * (1 + self.linear(c)).unsqueeze(1)


class Inside(nn.Module):
    """h + mixer(norm h), then h + geglu(norm h); another level has no feed-forward of its own."""

    def __init__(self, mixer: Mixer, width: int, condition: int, place: Place) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = Scale(width, condition)
        deeper = isinstance(mixer, Hourglass)
        self.ffn = None if deeper else GeGLU(GeGLUConfig(), width, place)
        self.ffn_norm = None if deeper else Scale(width, condition)

    @staticmethod
    def cost(mixer: type[Mixer], config: LayerConfig, width: int, condition: int) -> Cost:
        one = mixer.cost(config, width) + Scale.cost(width, condition)
        if issubclass(mixer, Hourglass):
            return one
        return one + GeGLU.cost(GeGLUConfig(), width) + Scale.cost(width, condition)

    def forward(self, h: Tensor, c: Tensor | None, context: Context) -> Tensor:  # B T W
        h = h + self.mixer.forward_with(context, self.norm(h, c), None)[0]
        if self.ffn is None or self.ffn_norm is None:
            return h
        return h + self.ffn(self.ffn_norm(h, c))[0]


class Level(nn.Module):
    """The shorter sequence: merged, gone through the layers, split."""

    of_tokens = False  # adapters go beside maps that every token takes, and are counted so

    def __init__(self, config: HourglassConfig, d_model: int, place: Place) -> None:
        super().__init__()
        self.tile, self.across, W = config.tile, config.across, config.inside(d_model)
        self.merge = projection(config.ratio * d_model, W)
        self.layers = nn.ModuleList(
            [Inside(mixer(inner, W, place), W, config.condition, place) for mixer, inner in config.resolved(d_model)]
        )
        self.split = projection(W, config.ratio * d_model, residuals=2 * place.layers)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:  # x: B T D; c: B C
        T, (down, along) = x.shape[1], self.tile
        padded = nn.functional.pad(x, (0, 0, 0, -T % (down * along * self.across)))
        tiles = padded.unflatten(1, (-1, down, self.across, along)).transpose(2, 3)  # B R C down along D
        h = self.merge(tiles.flatten(3).flatten(1, 2))  # B T/r W
        context: Context = {} if c is None else {"condition": c}  # what else layers tell is of other tokens
        for layer in self.layers:
            h = layer(h, c, context)
        y = self.split(h).unflatten(-1, (down, along, -1)).unflatten(1, (-1, self.across))  # B R C down along D
        return y.transpose(2, 3).flatten(1, 4)[:, :T]


class Hourglass(Mixer):
    """h = W_m [x_1; …; x_r] for each r tokens,  h = layers(h),  [y_1; …; y_r] = λ ⊙ W_s h: a level down and up again.

    Tokens are merged as they follow one another, or with `columns` by squares of a grid; where patches of an image go
    in Z-order, four that follow one another are a square too. A last group, or row of squares, that is not full is
    filled with zeros. Levels nest: a branch may be an hourglass. Not causal.

    Source: Hourglass Diffusion Transformer (arXiv 2401.11605), section 4. There the level reads the stream as it is
    and the two are interpolated by one number, (1 − λ) x + λ y; here it is the branch of a layer, x + λ ⊙ y of the
    normed stream, with λ by channel.
    """

    name = "hourglass"
    title = "Hourglass"
    family = "Combined"
    summary = "Layers over a shorter sequence of wider tokens: one level of an hourglass"
    source = "https://arxiv.org/abs/2401.11605"
    color = "#8a5a44"
    views = frozenset({"parallel"})
    causal = False
    ops = ("rms_norm",)
    context = True
    Config = HourglassConfig
    config: HourglassConfig

    def __init__(self, config: HourglassConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.level = Level(config, d_model, place)
        self.strength = nn.Parameter(torch.full((d_model,), 0.5))  # λ

    @classmethod
    def cost(cls, config: HourglassConfig, d_model: int) -> Cost:
        W, r = config.inside(d_model), config.ratio
        level = Cost.total(
            [
                Cost.linear(r * d_model, W),
                *(Inside.cost(mixer, inner, W, config.condition) for mixer, inner in config.resolved(d_model)),
                Cost.linear(W, r * d_model),
            ]
        )

        def prefill(T: int) -> float:
            groups = -(-T // (r * config.across)) * config.across
            return level.prefill(groups) * groups / T

        return Cost(level.params + d_model, prefill, lambda _: prefill(1), inactive=level.inactive)

    def forward(self, x: Tensor, state: None = None, context: Context | None = None) -> tuple[Tensor, None]:  # x: B T D
        return self.strength * self.level(x, None if context is None else context.get("condition")), None

    def param_groups(self) -> list[ParamGroup]:
        level = self.level
        groups = [ParamGroup([level.merge.weight, level.split.weight]), ParamGroup([self.strength], weight_decay=False)]
        for layer in level.layers:
            groups += layer.mixer.param_groups()
            groups += layer.ffn.param_groups() if layer.ffn is not None else []
            norms = [norm for norm in (layer.norm, layer.ffn_norm) if norm is not None]
            groups.append(ParamGroup([p for norm in norms for p in norm.parameters()], weight_decay=False))
        return groups
