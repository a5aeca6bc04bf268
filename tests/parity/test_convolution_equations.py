"""H3, Hyena and Monarch mixers follow their papers' equations, written again with dense matrices in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import require_close, rescale
from torch import Tensor

from chimeralab.plugins import registry

pytestmark = pytest.mark.parity

B, T, D = 2, 70, 4
EXACT = 1e-10


@pytest.fixture
def x() -> Tensor:  # B T D
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _mixer(name: str, **options: Any) -> Any:
    mixer = registry().mixers[name].build(D, **options)
    rescale(mixer)
    return mixer.double()


def _require_output(mixer: Any, x: Tensor, wanted: Tensor) -> None:
    """At once, in two parts, and token by token."""
    require_close(mixer(x)[0], wanted, "convolution", EXACT)
    first, state = mixer(x[:, :33])
    require_close(torch.cat([first, mixer(x[:, 33:], state)[0]], 1), wanted, "two parts", EXACT)
    state, tokens = mixer.init_state(B, T, dtype=x.dtype), []
    for t in range(T):
        out, state = mixer.step(x[:, t], state)
        tokens.append(out)
    require_close(torch.stack(tokens, 1), wanted, "recurrence", EXACT)


def _space(A: Tensor, b: Tensor, c: Tensor, skip: Tensor, u: Tensor) -> Tensor:
    """h' = Ah + bu, y = Re(ch) + skip · u, one number after another."""
    h, outputs = torch.zeros_like(b), []
    for value in u:
        h = A @ h + b * value
        outputs.append((c @ h).real + skip * value)
    return torch.stack(outputs)


def _twice(pairs: Tensor) -> Tensor:
    z = torch.complex(pairs[..., 0], pairs[..., 1])
    return torch.cat([z, z.conj()], -1)


@pytest.mark.parametrize("width", [1, 2])
@torch.no_grad()
def test_h3_follows_its_two_state_spaces(x: Tensor, width: int) -> None:
    """H3, algorithm 1: SSM_shift has ones below the diagonal, SSM_diag a diagonal A under zero-order hold."""
    mixer, taps = _mixer("h3", d_state=8, shift=5, head_dim=width), 5
    shift = torch.diag(torch.ones(taps - 1, dtype=x.dtype), -1)
    y = torch.zeros_like(x)
    for b in range(B):
        q, k, v = (x[b] @ mixer.in_proj.weight.T + mixer.in_proj.bias).chunk(3, -1)
        for d in range(D):
            unit = torch.eye(taps, dtype=x.dtype)[0]
            k[:, d] = _space(shift, unit, mixer.shift[d], mixer.shift_skip[d], k[:, d].clone())
        for h in range(D // width):
            A = _twice(torch.stack([-mixer.log_A[h].exp(), mixer.A_imag[h]], -1))
            decay = torch.exp(mixer.log_dt[h].exp() * A)
            drive = (decay - 1) / A * _twice(mixer.B[h])
            for i in range(h * width, (h + 1) * width):
                for j in range(h * width, (h + 1) * width):
                    product = _space(torch.diag(decay), drive, _twice(mixer.C[h]), mixer.skip[h], k[:, i] * v[:, j])
                    y[b, :, j] += q[:, i] * product
    _require_output(mixer, x, y @ mixer.out_proj.weight.T + mixer.out_proj.bias)
