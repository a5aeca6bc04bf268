"""Mixers built on scans agree with flash-linear-attention's plain references or with the equations of their papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fla_reference import fla_reference
from peers import ALLOWED, require_close, rescale
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


def require_agreement(mixer: Any, wanted: Tensor, x: Tensor, allowed: float = EXACT) -> None:
    """The output, step by step too, and the gradients of a random projection of it; `wanted` is the oracle's output."""
    y = mixer(x)[0]
    require_close(y, wanted, "output", allowed)
    state = mixer.init_state(B, T, dtype=x.dtype)
    for t in range(T):
        stepped, state = mixer.step(x[:, t], state)
        require_close(stepped, wanted[:, t], f"step {t}", 10 * allowed)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    leaves = [x, *mixer.parameters()]
    theirs = torch.autograd.grad((wanted * weights).sum(), leaves)
    ours = torch.autograd.grad((y * weights).sum(), leaves)
    for name, a, b in zip(["input", *dict(mixer.named_parameters())], ours, theirs, strict=True):
        require_close(a, b, f"gradient of {name}", 10 * allowed)


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
    require_agreement(mixer, wanted, x, ALLOWED)
    require_close(mixer(x)[1].h, last, "state", ALLOWED)


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
    require_agreement(mixer, torch.stack(outputs, 1), x)


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
    require_agreement(mixer, torch.stack(outputs, 1), x)
