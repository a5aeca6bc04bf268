"""H3, Hyena and Monarch mixers follow their papers' equations, written again with dense matrices in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import require_close, rescale
from torch import Tensor

from chimeralab.plugins import registry

pytestmark = pytest.mark.parity

B, T, D = 2, 45, 4
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


def _filters(network: Any, length: int) -> Tensor:
    """Hyena, appendix D.3, tap by tap: channels L."""
    taps = []
    bands = torch.linspace(1e-4, network.bands - 1, network.bands, dtype=torch.float64)
    for tap in range(length):
        t = tap / (length - 1)
        angles = 2 * torch.pi * bands * tap / length
        z = torch.tensor([t, *angles.cos(), *-angles.sin()], dtype=torch.float64)
        for layer in network.hidden:
            z = torch.sin(network.omega * (layer.weight @ z + layer.bias))
        values = network.out.weight @ z
        for channel in range(network.channels):
            share = channel / (network.channels - 1)
            values[channel] *= 0.01 ** (t * ((1 - share) / 1.5 + share / 0.3))
        taps.append(values)
    return torch.stack(taps, 1)


def _toeplitz(taps: Tensor, T: int) -> Tensor:
    """M[t, s] = taps[t - s] where that is a tap."""
    M = torch.zeros(T, T, dtype=taps.dtype)
    for t in range(T):
        for s in range(max(0, t - len(taps) + 1), t + 1):
            M[t, s] = taps[t - s]
    return M


def _short_convolution(mixer: Any, projected: Tensor) -> Tensor:
    """T channels: each channel sees its last W values."""
    W = mixer.conv_weight.shape[1]
    out = torch.zeros_like(projected) + mixer.conv_bias
    for t in range(len(projected)):
        for w in range(W):
            if t - W + 1 + w >= 0:
                out[t] += mixer.conv_weight[:, w] * projected[t - W + 1 + w]
    return out


@pytest.mark.parametrize("length", [60, 25])
@pytest.mark.parametrize("order", [2, 3])
@torch.no_grad()
def test_hyena_follows_its_matrices(x: Tensor, order: int, length: int) -> None:
    """Hyena, definition 3.1: y = D_1 S_2 D_2 … S_N D_N v with diagonal gates D and Toeplitz filters S."""
    mixer = _mixer("hyena", order=order, length=length, hidden=8, bands=2)
    taps = _filters(mixer.filter, length)
    y = torch.zeros_like(x)
    for b in range(B):
        projected = x[b] @ mixer.in_proj.weight.T + mixer.in_proj.bias
        *gates, v = _short_convolution(mixer, projected).split(D, -1)
        for d in range(D):
            u = v[:, d]
            for n in range(order - 1):
                channel = n * D + d
                S = _toeplitz(taps[channel], T) + mixer.skip[channel] * torch.eye(T)
                u = S @ torch.diag(gates[order - 1 - n][:, d]) @ u
            y[b, :, d] = gates[0][:, d] * u
    _require_output(mixer, x, y @ mixer.out_proj.weight.T + mixer.out_proj.bias)
