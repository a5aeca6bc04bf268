"""Stacks of numbers instead of tokens: what goes in, what reads the last layer, and what both cost."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from chimeralab import ops
from chimeralab.contracts import Classifier, Readout, Regression, Told
from chimeralab.errors import DataError
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.cost import cost
from chimeralab.stack.model import StackModel
from chimeralab.stack.weights.saved import load, tensors_of, write_saved
from chimeralab.testing.layer import randomise

B, T, FEATURES, WIDTH, CLASSES = 2, 6, 12, 16, 5
READOUTS = {"class": partial(Classifier, classes=CLASSES), "numbers": partial(Regression, features=3)}
PATTERN = "bidirectional_attention[heads=2] x2"


def model_of(readout: str, **settings: object) -> StackModel:
    stack = compose(PATTERN, d_model=WIDTH, **settings)
    model = build(stack, 0, seed=0, dtype=torch.float64, input_features=FEATURES, readout=READOUTS[readout], classes=3)
    randomise(model)
    return model


def numbers() -> torch.Tensor:
    return torch.randn(B, T, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("readout", READOUTS)
def test_numbers_go_in_by_a_linear_map_and_are_read_as_the_readout_says(readout: str) -> None:
    model, x = model_of(readout, positions=T), numbers()
    h = x @ model.embedding.weight.T + model.embedding.bias + model.positions.weight[:T]
    for layer in model.layers:
        h, _ = layer(h)
    h = F.rms_norm(h, (WIDTH,), model.norm.weight, 1e-5)
    if readout == "class":
        wanted = h.mean(1) @ model.readout.scores.weight.T + model.readout.scores.bias
        targets = torch.tensor([3, -100])
        loss = -wanted[0].log_softmax(-1)[3]
    else:
        wanted = h @ model.readout.numbers.weight.T + model.readout.numbers.bias
        targets = torch.randn(B, T, 3, generator=torch.Generator().manual_seed(2))
        loss = ((wanted - targets) ** 2).mean()
    torch.testing.assert_close(model(x)[0], wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.loss(x, targets).double(), loss, rtol=0, atol=1e-6)  # it sums in float32


def test_the_loss_hears_what_is_told() -> None:
    model, x = model_of("numbers", residual="adaptive"), numbers()
    targets = torch.zeros(B, T, 3)
    losses = [
        model.loss(x, targets, told=Told(torch.tensor(levels), torch.tensor([0, 1]))).item()
        for levels in ([0.1, 0.9], [0.9, 0.1])
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("settings", [{}, {"residual": "adaptive", "positions": T}, {"tie_embeddings": False}])
def test_both_ends_are_costed(readout: str, settings: dict) -> None:
    model = model_of(readout, **settings)
    report = cost(
        model.spec,
        vocab_size=0,
        sequence_length=T,
        batch_size=B,
        classes=3,
        input_features=FEATURES,
        readout=READOUTS[readout],
    )
    assert report.total_params == model.parameter_count() == sum(report.params.values())
    with torch.no_grad(), ops.flop_counter() as counted:
        model(numbers())
    assert report.prefill_flops * T * B == pytest.approx(counted.get_total_flops(), rel=0.02)
    assert report.memory["readout"] > 0


@pytest.mark.parametrize("readout", READOUTS)
def test_every_parameter_is_in_one_group(readout: str) -> None:
    model = model_of(readout, residual="adaptive", positions=T)
    groups = model.param_groups()
    grouped = [parameter for group in groups for parameter in group.params]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    assert len(grouped) == len({id(p) for p in grouped})
    decayed = {id(p) for group in groups if group.weight_decay for p in group.params}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert "embedding.weight" in names
    assert not [name for name in names if name.endswith("bias")]


def test_a_readout_of_ones_own_is_drawn_by_the_seed() -> None:
    class Own(Readout):
        def __init__(self, d_model: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(d_model))

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return h @ self.weight

    stack = compose(PATTERN, d_model=WIDTH)
    first, second, other = (build(stack, 9, seed=seed, readout=Own).readout.weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_weights_of_numbers_are_not_taken_for_those_of_tokens(tmp_path: Path) -> None:
    model = model_of("numbers")
    write_saved(tmp_path, model.spec, *tensors_of(model))
    assert "readout.numbers.weight" in load_file(tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"embedding\.bias"):
        load(tmp_path)
