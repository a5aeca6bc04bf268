"""Attention that looks both ways agrees with torch's multi-head attention, near by with a mask over it; on a grid, with
a loop over tokens and their neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import require_close, require_gradients
from torch import Tensor
from torch.nn import functional as F

from chimeralab.plugins import registry

pytestmark = pytest.mark.parity

B, T, WIDTH, HEADS = 2, 90, 32, 4
EXACT = 1e-10


def _outside(window: int) -> Tensor:
    """T T, true where a token is not among the `window` around another, shifted inwards at the ends."""
    outside = torch.ones(T, T, dtype=torch.bool)
    for t in range(T):
        first = min(max(t - window // 2, 0), T - window)
        outside[t, first : first + window] = False
    return outside


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(
            "bidirectional_attention",
            {},
            marks=pytest.mark.oracle("bidirectional_attention", "torch.nn.functional.multi_head_attention_forward"),
        ),
        *(
            pytest.param(
                "neighborhood_attention",
                {"window": window},
                marks=pytest.mark.oracle(
                    "neighborhood_attention", "torch.nn.functional.multi_head_attention_forward with a mask"
                ),
            )
            for window in (1, 7, 8, 88)
        ),
    ],
)
def test_outputs_and_gradients_agree(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = registry().mixers[name].build(WIDTH, heads=HEADS, rope=False, **options).double()
    x = torch.randn(B, T, WIDTH, dtype=torch.float64, requires_grad=True)
    wanted, _ = F.multi_head_attention_forward(
        *(x.transpose(0, 1),) * 3,
        embed_dim_to_check=WIDTH,
        num_heads=HEADS,
        in_proj_weight=torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]),
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=ours.o.weight,
        out_proj_bias=None,
        need_weights=False,
        attn_mask=_outside(options["window"]) if options else None,
    )
    wanted = wanted.transpose(0, 1)
    require_close(ours(x)[0], wanted, "output", EXACT)
    if options.get("window") == 1:  # one token's softmax is 1 whatever queries and keys are: no gradient for them
        ours.q.weight.requires_grad_(False)
        ours.k.weight.requires_grad_(False)
    require_gradients(ours, x, wanted, EXACT)


@pytest.mark.oracle("neighborhood_attention", "equations of arXiv 2204.07143 on a grid, token by token")
@pytest.mark.parametrize(("tokens", "columns", "window"), [(30, 6, 3), (30, 5, 4), (28, 6, 3), (12, 6, 4), (4, 6, 3)])
def test_neighborhood_attention_on_a_grid_sees_a_square_around_each_token(
    tokens: int, columns: int, window: int
) -> None:
    torch.manual_seed(0)
    mixer = registry().mixers["neighborhood_attention"]
    ours = mixer.build(WIDTH, heads=HEADS, rope=False, window=window, columns=columns).double()
    x = torch.randn(B, tokens, WIDTH, dtype=torch.float64, requires_grad=True)
    q, k, v = (F.linear(x, part.weight).unflatten(-1, (HEADS, -1)) for part in (ours.q, ours.k, ours.v))
    rows = -(-tokens // columns)

    def square(token: int) -> list[int]:
        row, column = divmod(token, columns)
        top = min(max(row - window // 2, 0), max(rows - window, 0))
        left = min(max(column - window // 2, 0), max(columns - window, 0))
        return [
            r * columns + c
            for r in range(top, min(top + window, rows))
            for c in range(left, min(left + window, columns))
        ]

    def seen(of: Tensor, token: int) -> Tensor:  # B W H K; what the last row lacks is zero
        return torch.stack([of[:, s] if s < tokens else torch.zeros_like(of[:, 0]) for s in square(token)], 1)

    gathered = []
    for t in range(tokens):
        scores = torch.einsum("bhk,bwhk->bwh", q[:, t], seen(k, t)) * (WIDTH // HEADS) ** -0.5
        gathered.append(torch.einsum("bwh,bwhk->bhk", scores.softmax(1), seen(v, t)))
    wanted = F.linear(torch.stack(gathered, 1).flatten(-2), ours.o.weight)
    require_close(ours(x)[0], wanted, "output", EXACT)
    require_gradients(ours, x, wanted, EXACT)
