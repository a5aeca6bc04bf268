"""The layers of diffusion transformers agree with their papers' equations, written out in torch's own functions."""

from __future__ import annotations

import pytest
import torch
from peers import require_close, require_gradients
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab.contracts import Told
from chimeralab.plugins import registry
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.testing.layer import randomise

pytestmark = pytest.mark.parity

B, T, WIDTH, INSIDE, RATIO, HEADS = 2, 10, 16, 24, 4, 2
EXACT = 1e-10


def attended(mixer: nn.Module, x: Tensor) -> Tensor:  # B T W
    q, k, v = (F.linear(x, part.weight, part.bias).unflatten(-1, (HEADS, -1)) for part in (mixer.q, mixer.k, mixer.v))
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
    return F.linear(y, mixer.o.weight, mixer.o.bias)


def groups(columns: int | None) -> list[list[int]]:
    """Which tokens become one: four that follow one another, or squares of 2 · 2; some are not there."""
    if columns is None:
        return [[*range(start, start + RATIO)] for start in range(0, T, RATIO)]
    squares = []
    for row in range(0, -(-T // columns), 2):
        for column in range(0, columns, 2):
            squares.append([(row + r) * columns + column + c for r in (0, 1) for c in (0, 1)])
    return squares


@pytest.mark.oracle("hourglass", "the paper's level, written out")
@pytest.mark.parametrize(("condition", "columns"), [(0, None), (12, None), (0, 4), (12, 2)])
def test_a_level_of_an_hourglass_is_the_papers(condition: int, columns: int | None) -> None:
    torch.manual_seed(0)
    branch = {"mixer": "bidirectional_attention", "options": {"heads": HEADS, "rope": False}}
    ours = (
        registry()
        .mixers["hourglass"]
        .build(WIDTH, branches=[branch, branch], ratio=RATIO, width=INSIDE, columns=columns, condition=condition)
    )
    ours = ours.double()
    randomise(ours)
    x = torch.randn(B, T, WIDTH, dtype=torch.float64, requires_grad=True)
    c = torch.randn(B, condition, dtype=torch.float64)

    def normed(norm: nn.Module, h: Tensor) -> Tensor:
        if condition:
            return F.rms_norm(h, (INSIDE,), eps=1e-6) * (1 + c @ norm.linear.weight.T)[:, None]
        return F.rms_norm(h, (INSIDE,), norm.weight, 1e-6)

    taken = groups(columns)
    there = [[x[:, t] if t < T else torch.zeros_like(x[:, 0]) for t in group] for group in taken]
    h = torch.stack([torch.cat(group, -1) @ ours.level.merge.weight.T for group in there], 1)
    for layer in ours.level.layers:
        h = h + attended(layer.mixer, normed(layer.norm, h))
        n = normed(layer.ffn_norm, h)
        gated = F.gelu(n @ layer.ffn.gate.weight.T, approximate="tanh") * (n @ layer.ffn.up.weight.T)
        h = h + gated @ layer.ffn.down.weight.T
    split = (h @ ours.level.split.weight.T).unflatten(-1, (RATIO, WIDTH))
    places = {t: split[:, g, i] for g, group in enumerate(taken) for i, t in enumerate(group)}
    wanted = torch.stack([places[t] for t in range(T)], 1) * ours.strength

    class Told(nn.Module):
        """The mixer in a stack with this condition."""

        def __init__(self) -> None:
            super().__init__()
            self.mixer = ours

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return self.mixer(x, None, {"condition": c} if condition else {})

    require_close(Told()(x)[0], wanted, "output", EXACT)
    require_gradients(Told(), x, wanted, EXACT)


def test_a_block_of_dit_is_the_papers() -> None:
    """Two blocks, the last layer and the embedding of noise and class, from weights that are not zero."""
    stack = compose(
        f"bidirectional_attention[heads={HEADS}, rope=false, bias=true] x2, ffn=mlp",
        d_model=WIDTH,
        residual="adaptive",
        norm="layer",
        norm_eps=1e-6,
    )
    model = build(stack, 7, dtype=torch.float64, seed=0, classes=3)
    randomise(model)
    tokens = torch.randint(7, (B, T), generator=torch.Generator().manual_seed(1))
    levels, classes = torch.tensor([0.25, 0.7], dtype=torch.float64), torch.tensor([2, 3])

    def wave(level: Tensor) -> Tensor:
        frequencies = 10_000.0 ** -(torch.arange(128, dtype=torch.float64) / 128)
        return torch.cat(((1000 * level * frequencies).cos(), (1000 * level * frequencies).sin()))

    told = model.condition
    c = told.level_out(F.silu(told.level_in(torch.stack([wave(level) for level in levels]))))
    c = F.silu(c + told.classes.weight[classes])
    x = model.embedding.weight[tokens]
    for layer in model.layers:
        shift_scale_gate = layer.modulation.linear(c)[:, None].chunk(6, -1)
        for f, (scale, shift, gate) in (
            (lambda h, mixer=layer.mixer: attended(mixer, h), shift_scale_gate[:3]),
            (lambda h, ffn=layer.ffn: ffn.down(F.gelu(ffn.up(h), approximate="tanh")), shift_scale_gate[3:]),
        ):
            x = x + gate * f(F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale) + shift)
    scale, shift = model.modulation.linear(c)[:, None].chunk(2, -1)
    x = F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale) + shift
    logits, _ = model(tokens, told=Told(levels, classes))
    require_close(logits, x @ model.embedding.weight.T, "logits", EXACT)


def test_layers_of_dit_change_nothing_before_training() -> None:
    stack = compose("dit", d_model=64)
    model = build(stack, 7, seed=0, classes=3)
    tokens = torch.zeros(1, 5, dtype=torch.int64)
    embedded = model.embedding(tokens) + model.positions.weight[:5]
    h, _ = model.hidden(tokens, told=Told(torch.tensor([0.5]), torch.tensor([1])))
    torch.testing.assert_close(h, F.layer_norm(embedded, (64,), eps=1e-6))
