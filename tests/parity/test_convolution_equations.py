"""H3, Hyena, Monarch and short convolutions follow the equations of their papers, written again in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import require_agreement, require_close, rescale
from torch import Tensor

from chimeralab.plugins import registry

pytestmark = pytest.mark.parity

B, T, D = 2, 45, 4
EXACT = 1e-10


@pytest.fixture
def x() -> Tensor:  # B T D
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()


def _mixer(name: str, **options: Any) -> Any:
    mixer = registry().mixers[name].build(D, **options)
    rescale(mixer)
    return mixer.double()


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


@pytest.mark.oracle("short_conv", "equations of arXiv 2312.04927")
def test_short_conv_multiplies_a_map_of_the_input_with_its_convolution(x: Tensor) -> None:
    """Zoology, section 4: u ↦ (u W + b) ⊙ (h ∗ u + c), here between projections."""
    mixer = _mixer("short_conv", taps=3, bias=True)
    gate, u = (x @ mixer.in_proj.weight.T + mixer.in_proj.bias).chunk(2, -1)
    convolved = torch.zeros_like(u)
    for t in range(T):
        for back in range(min(3, t + 1)):
            convolved[:, t] += mixer.conv_weight[:, 2 - back] * u[:, t - back]
    y = gate * (convolved + mixer.conv_bias)
    require_agreement(mixer, x, y @ mixer.out_proj.weight.T + mixer.out_proj.bias, EXACT)


@pytest.mark.oracle("base_conv", "equations of arXiv 2312.04927")
@pytest.mark.parametrize("taps", [1, 4, 0])
def test_base_conv_multiplies_a_map_of_the_input_with_its_convolution(x: Tensor, taps: int) -> None:
    """Zoology, section 4: u ↦ (u W + b) ⊙ (h ∗ u + c), with a residual inside; a long h is as Hyena's, with c = u."""
    mixer = _mixer("base_conv", taps=taps, length=30)
    h, c = (mixer.conv_weight.flip(-1), mixer.conv_bias) if taps else (_filters(mixer.filter, 30), x)
    convolved = torch.zeros_like(x)
    for t in range(T):
        for back in range(min(h.shape[1], t + 1)):
            convolved[:, t] += h[:, back] * x[:, t - back]
    wanted = (x @ mixer.map.weight.T + mixer.map.bias) * (convolved + c) + x
    require_agreement(mixer, x, wanted, EXACT)


@pytest.mark.oracle("h3", "equations of arXiv 2212.14052")
@pytest.mark.parametrize("width", [1, 2])
def test_h3_follows_its_two_state_spaces(x: Tensor, width: int) -> None:
    """H3, algorithm 1: SSM_shift has ones below the diagonal, SSM_diag a diagonal A under zero-order hold."""
    mixer, taps = _mixer("h3", d_state=8, shift=5, head_dim=width), 5
    shift = torch.diag(torch.ones(taps - 1, dtype=x.dtype), -1)
    y = torch.zeros_like(x)
    for b in range(B):
        q, k, v = (z.clone() for z in (x[b] @ mixer.in_proj.weight.T + mixer.in_proj.bias).chunk(3, -1))
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
    require_agreement(mixer, x, y @ mixer.out_proj.weight.T + mixer.out_proj.bias, EXACT)


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


@pytest.mark.oracle("hyena", "equations of arXiv 2302.10866")
@pytest.mark.parametrize("length", [60, 25])
@pytest.mark.parametrize("order", [2, 3])
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
                S = _toeplitz(taps[channel], T) + mixer.skip[channel] * torch.eye(T, dtype=x.dtype)
                u = S @ torch.diag(gates[order - 1 - n][:, d]) @ u
            y[b, :, d] = gates[0][:, d] * u
    require_agreement(mixer, x, y @ mixer.out_proj.weight.T + mixer.out_proj.bias, EXACT)


def _dealing(rows: int, columns: int) -> Tensor:
    """The permutation that reads a rows × columns table by columns."""
    order = torch.arange(rows * columns).view(rows, columns).T.flatten()
    return torch.eye(rows * columns, dtype=torch.float64)[order]


def _monarch_fourier(a: int, b: int) -> Tensor:
    """The DFT of a·b points as a Monarch matrix: block-diagonal DFTs of a and of b points, a twist, permutations."""

    def fourier(n: int) -> Tensor:
        k = torch.arange(n, dtype=torch.float64)
        return torch.exp(-2j * torch.pi * torch.outer(k, k) / n)

    deal, back = (_dealing(*shape).to(torch.complex128) for shape in ((a, b), (b, a)))
    right = torch.block_diag(*[fourier(a)] * b)
    left = torch.block_diag(*[fourier(b)] * a)
    twist = torch.exp(-2j * torch.pi * torch.outer(torch.arange(b).double(), torch.arange(a)) / (a * b)).flatten()
    return deal @ left @ back @ torch.diag(twist.to(torch.complex128)) @ right @ deal


def test_a_monarch_matrix_is_the_fourier_transform() -> None:
    x = torch.randn(128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    require_close(
        torch.view_as_real(_monarch_fourier(8, 16) @ x.to(torch.complex128)),
        torch.view_as_real(torch.fft.fft(x)),
        "DFT",
        EXACT,
    )


@pytest.mark.oracle("monarch", "dense Monarch matrices, equations of arXiv 2310.12109")
@pytest.mark.parametrize("residual", [True, False])
def test_monarch_mixer_follows_its_matrices(x: Tensor, residual: bool) -> None:
    """Monarch Mixer, section 3: M⁻¹ (M k ⊙ M u) with a Monarch matrix M, causal by padding (section 4.2)."""
    mixer = _mixer("monarch", length=60, hidden=8, residual=residual)
    M = _monarch_fourier(8, 16)  # 128 points: more than 2T
    inverse = torch.linalg.inv(M)
    filters = [_filters(network, 60)[:, :T] for network in mixer.filters]

    def convolve(n: int, d: int, u: Tensor) -> Tensor:
        k, padded = (torch.cat([v, v.new_zeros(128 - T)]).to(M.dtype) for v in (filters[n][d], u))
        return (inverse @ (M @ k * (M @ padded))).real[:T] + mixer.skip[n * D + d] * u

    y = torch.zeros_like(x)
    for b in range(B):
        x1, x2, v = _short_convolution(mixer, x[b] @ mixer.in_proj.weight.T + mixer.in_proj.bias).split(D, -1)
        for d in range(D):
            y[b, :, d] = x2[:, d] * convolve(0, d, x1[:, d] * v[:, d])
            if residual:
                y[b, :, d] += convolve(1, d, x[b, :, d])
    require_agreement(mixer, x, y @ mixer.out_proj.weight.T + mixer.out_proj.bias, EXACT)


@pytest.mark.oracle("monarch_mlp", "dense matrices of the factors, arXiv 2204.00595")
@pytest.mark.parametrize(("ratio", "blocks"), [(4.0, 4), (2.0, 2), (0.5, 4)])
def test_monarch_mlp_is_a_product_of_its_factors(ratio: float, blocks: int) -> None:
    """Monarch, section 3.1: two block-diagonal matrices and two permutations, written out."""
    width = 16
    ffn = registry().feed_forwards["monarch_mlp"].build(width, ratio=ratio, blocks=blocks).double()
    rescale(ffn)

    def dense(matrix: Any) -> Tensor:
        q, s = matrix.right.shape[1], matrix.left.shape[1]
        into = _dealing(q, blocks)  # entry jk + i goes to row j of block i
        right, left = torch.block_diag(*matrix.right), torch.block_diag(*matrix.left)
        return _dealing(blocks, s) @ left @ into @ right

    x = torch.randn(B, 5, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    hidden = torch.nn.functional.gelu(x @ dense(ffn.up).T + ffn.up.bias, approximate="tanh")
    require_agreement(ffn, x, hidden @ dense(ffn.down).T + ffn.down.bias, EXACT)
