"""Mixers built on scans agree with flash-linear-attention's plain references or with the equations of their papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fla_reference import fla_reference
from peers import ALLOWED, require_agreement, require_close, require_gradients, rescale
from torch import Tensor
from torch.nn import functional as F

from chimeralab import Place
from chimeralab.plugins import registry

pytestmark = pytest.mark.parity

B, T, D = 2, 41, 16
EXACT = 1e-10


def _mixer(name: str, place: Place | None = None, **options: Any) -> Any:
    mixer = registry().mixers[name].build(D, place, **options)
    rescale(mixer)
    return mixer


@pytest.fixture
def x() -> Tensor:  # B T D
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.oracle("hgrn", "fla hgrn/naive.py")
@pytest.mark.parametrize("layer", [0, 3])
def test_hgrn_is_that_of_flash_linear_attention(x: Tensor, layer: int) -> None:
    """Their layer around their plain recurrence, in float32: it takes nothing wider."""
    mixer, x = _mixer("hgrn", Place(layer, 4), expand=2), x.float().requires_grad_()
    floor = layer / 4
    f = floor + (1 - floor) * (x @ mixer.f.weight.T).sigmoid()
    i = F.silu(x @ mixer.i.weight.T) * (1 - f)
    o, last = fla_reference("hgrn/naive.py").naive_recurrent_hgrn(i, f.log(), output_final_state=True)
    normed = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm
    wanted = (normed * F.silu(x @ mixer.g.weight.T)) @ mixer.o.weight.T
    require_agreement(mixer, x, wanted, ALLOWED, last=last)


@pytest.mark.oracle("min_gru", "equations of arXiv 2410.01201")
@pytest.mark.parametrize("candidate", ["positive", "linear"])
def test_min_gru_follows_its_recurrence(x: Tensor, candidate: str) -> None:
    """Were RNNs All We Needed?, 3.1: h_t = (1 − z_t) h_{t-1} + z_t h̃_t, and g of appendix B.3."""
    mixer, x = _mixer("min_gru", expand=2, candidate=candidate).double(), x.requires_grad_()
    h, outputs = torch.zeros(B, 2 * D, dtype=torch.float64), []
    for t in range(T):
        z = 1 / (1 + torch.exp(-(x[:, t] @ mixer.z.weight.T + mixer.z.bias)))
        v = x[:, t] @ mixer.h.weight.T + mixer.h.bias
        if candidate == "positive":
            v = torch.where(v >= 0, v + 0.5, v.sigmoid())
        h = (1 - z) * h + z * v
        outputs.append(h @ mixer.o.weight.T)
    require_agreement(mixer, x, torch.stack(outputs, 1), EXACT, last=h)


@pytest.mark.oracle("qrnn", "equations of arXiv 1611.01576")
@pytest.mark.parametrize(("pooling", "taps"), [("f", 1), ("fo", 2), ("ifo", 3)])
def test_qrnn_follows_its_equations(x: Tensor, pooling: str, taps: int) -> None:
    """Quasi-Recurrent Neural Networks, equations 1 to 5; the convolution by `conv1d`, padded on the left."""
    R = 12
    mixer, x = _mixer("qrnn", width=R, taps=taps, pooling=pooling).double(), x.requires_grad_()
    kernel = mixer.conv.weight.unflatten(1, (taps, D)).transpose(1, 2)  # out in taps
    convolved = F.conv1d(F.pad(x.mT, (taps - 1, 0)), kernel, mixer.conv.bias).mT
    z, f, *gates = convolved.split(R, -1)
    z, f = z.tanh(), f.sigmoid()
    o = gates[0].sigmoid() if gates else torch.ones_like(z)
    i = gates[1].sigmoid() if pooling == "ifo" else 1 - f
    c, outputs = torch.zeros(B, R, dtype=torch.float64), []
    for t in range(T):
        c = f[:, t] * c + i[:, t] * z[:, t]
        outputs.append((o[:, t] * c) @ mixer.o.weight.T)
    require_agreement(mixer, x, torch.stack(outputs, 1), EXACT, last=c)


@pytest.mark.oracle("lru", "equations of arXiv 2303.06349")
def test_lru_follows_its_recurrence(x: Tensor) -> None:
    """Resurrecting RNNs, appendix A: the dense matrices, in complex numbers, one state after another."""
    N = 6
    mixer, x = _mixer("lru", d_state=N).double(), x.requires_grad_()
    eigenvalues = torch.exp(-torch.exp(mixer.nu_log) + 1j * torch.exp(mixer.theta_log))
    inputs = torch.exp(mixer.gamma_log)[:, None] * torch.view_as_complex(mixer.B.weight.view(N, 2, D).mT.contiguous())
    pairs = mixer.C.weight.view(D, N, 2)
    outputs = torch.complex(pairs[..., 0], -pairs[..., 1])  # Re((a − bi)(h + ik)) = ah + bk
    read, last = _complex_states(x, torch.diag(eigenvalues), inputs, outputs)
    y = read.real + mixer.D * x
    value, gate = (F.gelu(y) @ mixer.out_proj.weight.T + mixer.out_proj.bias).chunk(2, -1)
    require_agreement(mixer, x, value * gate.sigmoid(), EXACT, last=torch.view_as_real(last))


@pytest.mark.oracle("s5", "equations of arXiv 2208.04933")
@pytest.mark.parametrize("blocks", [1, 2])
def test_s5_follows_its_discretised_state_space(x: Tensor, blocks: int) -> None:
    """S5, section 3, with conjugates spelled out: N states, Ā = exp(AΔ) and B̄ = A⁻¹(Ā − I)B by dense matrices."""
    N = 8
    mixer, x = _mixer("s5", d_state=N, blocks=blocks).double(), x.requires_grad_()
    half = torch.complex(-mixer.log_rate.exp(), mixer.frequency)
    A, steps = torch.diag(torch.cat([half, half.conj()])), mixer.log_dt.exp().repeat(2)
    B_half = torch.view_as_complex(mixer.B.weight.view(N // 2, 2, D).mT.contiguous())
    pairs = mixer.C.weight.view(D, N // 2, 2) / 2
    C_half = torch.complex(pairs[..., 0], -pairs[..., 1])
    transition = torch.diag(torch.exp(torch.diag(A) * steps))
    inputs = torch.linalg.solve(A, (transition - torch.eye(N)) @ torch.cat([B_half, B_half.conj()]))
    read, last = _complex_states(x, transition, inputs, torch.cat([C_half, C_half.conj()], 1))
    assert read.imag.abs().max() < EXACT
    g = F.gelu(read.real + mixer.D * x)
    wanted = g * (g @ mixer.gate.weight.T + mixer.gate.bias).sigmoid()
    require_agreement(mixer, x, wanted, EXACT, last=torch.view_as_real(last[:, : N // 2]))


def _complex_states(x: Tensor, transition: Tensor, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """C h_t, B T D, and the last h, with h_t = A h_{t-1} + B x_t for dense complex A, B, C."""
    h, rows = torch.zeros(B, len(transition), dtype=torch.complex128), []
    for t in range(T):
        h = h @ transition.T + x[:, t].to(h.dtype) @ inputs.T
        rows.append(h @ outputs.T)
    return torch.stack(rows, 1), h


@pytest.mark.oracle("mamba", "equations of arXiv 2411.12537")
def test_mamba_with_negative_eigenvalues_follows_its_recurrence(x: Tensor) -> None:
    """Unlocking State-Tracking, section 4.3: exp(ΔA) of Mamba becomes 2 exp(ΔA) − 1, one token after another."""
    mixer, N = _mixer("mamba", d_state=4, dt_rank=3, negative_eigenvalues=True).double(), 4
    x, ssm = x.requires_grad_(), mixer.ssm
    u, z = (x @ mixer.in_proj.weight.T).chunk(2, -1)
    u = F.silu(F.conv1d(F.pad(u.mT, (3, 0)), ssm.conv_weight.unsqueeze(1), ssm.conv_bias, groups=2 * D).mT)
    rank, inputs, outputs = (u @ ssm.x_proj.weight.T).split((3, N, N), -1)
    steps = torch.log(1 + torch.exp(rank @ ssm.dt_proj.weight.T + ssm.dt_bias))
    h, rows, negative = torch.zeros(B, 2 * D, N, dtype=torch.float64), [], False
    for t in range(T):
        decay = 2 * torch.exp(-steps[:, t, :, None] * ssm.A_log.exp()) - 1
        negative |= bool((decay < 0).any())
        h = decay * h + (steps[:, t] * u[:, t])[..., None] * inputs[:, t, None]
        rows.append((h * outputs[:, t, None]).sum(-1) + ssm.D * u[:, t])
    assert negative
    wanted = (torch.stack(rows, 1) * F.silu(z)) @ mixer.out_proj.weight.T
    require_agreement(mixer, x, wanted, EXACT, last=h)


@pytest.mark.oracle("vision_mamba", "two directed mamba")
@pytest.mark.parametrize("inner_norm", ["none", "weighted"])
def test_vision_mamba_is_a_mamba_in_each_direction(x: Tensor, inner_norm: str) -> None:
    """With the projections shared, y = mamba→(x) + flip(mamba←(flip(x)))."""
    options = {"d_state": 4, "dt_rank": 3, "inner_norm": inner_norm}
    both, one = _mixer("vision_mamba", **options).double(), _mixer("mamba", **options).double()
    x.requires_grad_()
    shared = {"in_proj.weight": both.in_proj.weight, "out_proj.weight": both.out_proj.weight}

    def directed(ssm: Any, x: Tensor) -> Tensor:
        weights = shared | {f"ssm.{name}": weight for name, weight in ssm.named_parameters()}
        return torch.func.functional_call(one, weights, (x,))[0]

    wanted = directed(both.forwards, x) + directed(both.backwards, x.flip(1)).flip(1)
    require_close(both(x)[0], wanted, "output", EXACT)
    require_gradients(both, x, wanted, EXACT)
