"""What a stack is said to cost, against the model that is built from the same spec."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from chimeralab import Cost, StackSpec, ops
from chimeralab.contracts import Classifier
from chimeralab.stack import cost as costs
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.cost import cost, saved_bytes
from chimeralab.stack.model import StackModel

pytestmark = pytest.mark.usefixtures("one_thread")

HYBRID = (
    "mamba2[head_dim=16, d_state=8], attention[heads=2, window=24], gla[heads=2], linear_attention[heads=2],"
    " attention[heads=4, kv_heads=1, qk_norm=true], short_conv, ffn=(swiglu, none, mlp)"
)
PATTERNS = ["attention x3", "(mamba2, attention[bias=true]) x2, ffn=none", HYBRID]


@pytest.fixture(scope="module")
def hybrid() -> StackSpec:
    return compose(HYBRID, d_model=32)


def parameters_by_part(model: StackModel) -> dict[str, int]:
    def count(*modules: torch.nn.Module | None) -> int:
        return sum(p.numel() for module in modules if module is not None for p in module.parameters())

    return {
        "embedding": count(model.embedding),
        "mixers": count(*(layer.mixer for layer in model.layers)),
        "feed_forwards": count(*(layer.ffn for layer in model.layers)),
        "norms": count(model.norm, *(norm for layer in model.layers for norm in (layer.mixer_norm, layer.ffn_norm))),
        "head": count(model.head),
    }


@pytest.mark.parametrize(
    ("pattern", "d_model", "vocab_size", "tied"),
    itertools.product(PATTERNS, (32, 192), (256, 1000), (True, False)),
)
def test_parameters_by_part_are_those_of_the_model(pattern: str, d_model: int, vocab_size: int, tied: bool) -> None:
    stack = compose(pattern, d_model=d_model, tie_embeddings=tied)
    assert cost(stack, vocab_size=vocab_size).params == parameters_by_part(build(stack, vocab_size, device="meta"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_total_and_the_layers_add_up_to_the_model(pattern: str) -> None:
    stack = compose(pattern, d_model=64, tie_embeddings=False)
    report, model = cost(stack, vocab_size=100), build(stack, 100, device="meta")
    assert report.total_params == model.parameter_count()
    assert [layer.params for layer in report.layers] == [
        sum(p.numel() for p in layer.parameters()) for layer in model.layers
    ]


EXPERTS = "attention[heads=2] x4, ffn=every(2, moe[experts=8, top_k=2, hidden=48], offset=1, base=swiglu)"


def test_active_parameters_leave_out_the_experts_that_a_token_passes_by() -> None:
    stack = compose(EXPERTS, d_model=64)
    report, model = cost(stack, vocab_size=100), build(stack, 100, device="meta")
    assert [layer.ffn for layer in report.layers] == ["swiglu", "moe", "swiglu", "moe"]
    assert report.total_params == model.parameter_count()
    assert report.total_params - report.active_params == 2 * 6 * 3 * 64 * 48  # six of eight experts, in two layers
    dense = cost(compose("attention x2", d_model=64))
    assert dense.active_params == dense.total_params


def test_flops_of_experts_are_those_of_the_chosen_ones_alone() -> None:
    stack = compose(EXPERTS, d_model=64)
    model, T = build(stack, 100).eval(), 128
    with torch.no_grad(), ops.flop_counter() as counter:
        model(torch.zeros(1, T, dtype=torch.int64))
    assert cost(stack, vocab_size=100, sequence_length=T).prefill_flops * T == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("context", [1, 16, 24, 100])
def test_state_bytes_are_those_of_the_state(hybrid: StackSpec, context: int, dtype: torch.dtype) -> None:
    state = build(hybrid, 16, device="meta", dtype=dtype).init_state(1, context)
    counters = 8 * 2  # each attention layer's number of tokens seen, shared by the batch
    held = sum(tensor.nbytes for tensor in pytree.tree_leaves(state) if isinstance(tensor, torch.Tensor)) - counters
    assert costs.stack_cost(hybrid).state_bytes(context, dtype) == held


def test_the_report_gives_state_at_each_context_in_bfloat16(hybrid: StackSpec) -> None:
    whole = costs.stack_cost(hybrid)
    assert cost(hybrid, contexts=(8, 80)).state_bytes == [whole.state_bytes(8), whole.state_bytes(80)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("chunks", [1, 4])
@torch.no_grad()
def test_prefill_flops_are_those_that_the_model_does(pattern: str, chunks: int) -> None:
    stack, T = compose(pattern, d_model=64), chunks * ops.CHUNK
    model = build(stack, 256, seed=0)
    with ops.pin({"attention": "torch", "gated_linear_attention": "torch"}), ops.flop_counter() as counter:
        model(torch.zeros(1, T, dtype=torch.long))
    predicted = cost(stack, sequence_length=T).prefill_flops
    assert counter.get_total_flops() / T == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_decode_flops_are_those_that_the_model_does(pattern: str) -> None:
    stack, context = compose(pattern, d_model=64), 50
    model = build(stack, 256, seed=0)
    _, state = model(torch.zeros(1, context - 1, dtype=torch.long), model.init_state(1, context))
    with ops.flop_counter() as counter:
        model.step(torch.zeros(1, dtype=torch.long), state)
    predicted = cost(stack, contexts=(context,)).decode_flops_at[0]
    assert counter.get_total_flops() == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize(
    ("ends", "settings", "rows"),
    [
        ({}, {}, 0),
        ({}, {"tie_embeddings": False}, 1),
        ({}, {"tie_embeddings": False, "positions": 512}, 2),
        ({"readout": partial(Classifier, classes=10)}, {}, 1),
        ({"readout": partial(Classifier, classes=10), "input_features": 48}, {"positions": 512}, 1),
    ],
)
def test_decoding_reads_every_weight_once_and_one_row_of_a_table(
    ends: dict[str, Any], settings: dict[str, Any], rows: int
) -> None:
    stack = compose("attention x2", d_model=64, **settings)
    model = build(stack, 1000, device="meta", **ends)
    tables = [model.positions, *([model.embedding] if isinstance(model.embedding, torch.nn.Embedding) else [])]
    whole_tables = sum(table.weight.numel() for table in tables if table is not None) if rows else 0
    read = model.parameter_count() - whole_tables + rows * 64
    report = cost(stack, vocab_size=1000, contexts=[1024], **ends)
    seconds = (2 * read + report.state_bytes[0]) / costs.BANDWIDTH["CPU"]
    assert report.decode_tokens_per_second["CPU"] == pytest.approx(1 / seconds)


def test_training_takes_three_forward_passes(hybrid: StackSpec) -> None:
    report = cost(hybrid)
    assert report.train_flops == 3 * report.prefill_flops


@pytest.mark.parametrize("layer", range(6))
def test_activations_counted_on_meta_are_those_that_a_real_layer_saves(hybrid: StackSpec, layer: int) -> None:
    one, T = hybrid.model_copy(update={"layers": hybrid.layers[layer : layer + 1]}), 2 * ops.CHUNK
    built = build(one, 8, seed=0)
    x = torch.randn(1, T, hybrid.d_model, requires_grad=True)
    predicted = cost(one, batch_size=1, sequence_length=T).memory["activations"]
    assert predicted == saved_bytes(lambda: built.layers[0](x)[0], exclude=[*built.parameters()])


def test_activations_grow_with_the_batch(hybrid: StackSpec) -> None:
    one, four = (cost(hybrid, batch_size=size, sequence_length=64).memory for size in (1, 4))
    assert four["activations"] == 4 * one["activations"]


def test_bfloat16_activations_are_smaller() -> None:
    stack = compose("attention x2", d_model=64)
    wide, narrow = (cost(stack, batch_size=1, precision=precision).memory for precision in ("float32", "bfloat16"))
    assert 0.4 < narrow["activations"] / wide["activations"] < 0.7


def test_without_a_batch_size_activations_are_left_out(hybrid: StackSpec) -> None:
    assert cost(hybrid).memory.keys() == {"weights", "gradients", "optimizer"}


def test_weights_gradients_and_moments_take_sixteen_bytes_a_parameter(hybrid: StackSpec) -> None:
    report = cost(hybrid)
    assert report.training_bytes == 16 * report.total_params


def test_a_tensor_saved_twice_counts_once() -> None:
    x, y_bytes = torch.randn(10, requires_grad=True), 40

    def forward() -> torch.Tensor:
        y = x.exp()
        return y * y

    assert saved_bytes(forward) == y_bytes


def test_equal_layers_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[StackSpec] = []
    monkeypatch.setattr(costs, "build", lambda stack, **options: built.append(stack) or build(stack, **options))
    costs._layer_activations.cache_clear()
    cost(compose("(attention, mamba2) x500", d_model=64), batch_size=1, sequence_length=64)
    assert len(built) == 2


def test_a_thousand_layers_ask_each_layer_for_its_formula_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, mixer = [], costs.resolve(compose("attention", d_model=64))[0].mixer
    formula = mixer.cost
    monkeypatch.setattr(mixer, "cost", classmethod(lambda _, *args: asked.append(1) or formula(*args)))
    report = cost(compose("attention x1000", d_model=64))
    assert len(report.layers) == 1000
    assert len(asked) <= 3 * 1000


def test_costs_of_many_layers_do_not_nest() -> None:
    assert Cost.total([Cost.linear(2, 3)] * 5000).prefill_flops(8) == 5000 * 12


def test_ops_with_a_gpu_kernel_keep_only_their_inputs_when_they_are_counted_as_fused() -> None:
    stack = compose("mamba2", d_model=64)
    plain = cost(stack, batch_size=1, sequence_length=256).memory["activations"]
    fused = cost(stack, batch_size=1, sequence_length=256, fused=True).memory["activations"]
    chunk_scores = 4 * 256 * ops.CHUNK * 2  # T x C for each of two heads: no kernel stores it
    assert plain - fused >= chunk_scores
