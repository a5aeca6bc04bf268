"""The mixture of experts: what is chosen, what it weighs, what evens the loads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from chimeralab.errors import SpecError
from chimeralab_plugins.feed_forwards.gated import SwiGLU
from chimeralab_plugins.feed_forwards.moe import MoE, MoEConfig
from chimeralab_plugins.routing import Routing, balance_loss, route

WIDTH = 16


def built(**options: Any) -> MoE:
    torch.manual_seed(0)
    moe = MoE.build(WIDTH, **{"experts": 6, "hidden": 24, **options}).double()
    torch.nn.init.normal_(moe.router)  # scores that differ
    return moe


def tokens(count: int = 40) -> Tensor:  # B T D
    return torch.randn(2, count, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_all_experts_together_are_the_weighted_sum_of_feed_forwards() -> None:
    moe, x = built(top_k=6), tokens()
    weights = (x @ moe.router.T).softmax(-1)
    expected = torch.zeros_like(x)
    for index in range(6):
        expert = SwiGLU.build(WIDTH, hidden=24).double()
        gate, up = moe.experts_in[index].chunk(2)
        expert.load_state_dict({"gate.weight": gate, "up.weight": up, "down.weight": moe.experts_out[index]})
        expected = expected + weights[..., index : index + 1] * expert(x)[0]
    assert torch.allclose(moe(x)[0], expected, atol=1e-12)


def test_no_token_is_dropped_when_all_want_one_expert() -> None:
    moe, x = built(top_k=1, renormalise=False), tokens()
    moe.router.data.zero_()
    moe.router.data[3, 0] = 100.0
    x[..., 0] = 1.0
    gate, up = (x @ moe.experts_in[3].T).chunk(2, -1)
    expected = (torch.nn.functional.silu(gate) * up) @ moe.experts_out[3].T
    assert torch.allclose(moe(x)[0], expected, atol=1e-12)


def test_balance_loss_is_top_k_when_scores_are_even_and_more_when_not() -> None:
    even = torch.full((8, 4), 0.25)
    assert balance_loss(even, torch.full((4,), 4.0)) == pytest.approx(2.0)  # two choices a token
    skewed = torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(8, 4)
    assert balance_loss(skewed, torch.tensor([8.0, 8.0, 0.0, 0.0])) == pytest.approx(4 * (0.7 + 0.1))


def test_losses_are_of_training_alone_and_add_up() -> None:
    x = tokens()
    both, balance, z = (built(balance_loss=balance, z_loss=z) for balance, z in ((0.02, 0.1), (0.02, 0.0), (0.0, 0.1)))
    losses = []
    for moe in (both, balance, z):
        moe.train()(x)
        losses.append(moe.auxiliary_loss())
    assert losses[0].item() == pytest.approx((losses[1] + losses[2]).item())
    log_z = (x @ z.router.T).logsumexp(-1)
    assert losses[2].item() == pytest.approx(0.1 * log_z.square().mean().item())
    both.eval()(x)
    assert both.auxiliary_loss() is None
    quiet = built(balance_loss=0.0)
    quiet.train()(x)
    assert quiet.auxiliary_loss() is None


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_k": 1, "renormalise": False}])
@pytest.mark.parametrize("router", ["softmax", "sigmoid"])
def test_the_task_trains_the_router(router: str, options: dict[str, Any]) -> None:
    moe = built(router=router, balance_loss=0.0, **options)
    moe(tokens())[0].square().sum().backward()
    assert moe.router.grad.norm() > 1e-3


def test_the_bias_evens_out_loads_without_a_loss_and_stays_in_evaluation() -> None:
    moe, x = built(top_k=1, renormalise=False, router="sigmoid", bias_rate=0.02, balance_loss=0.0), tokens(200)
    moe.router.data[0], moe.router.data[1:] = 0.0, 0.3 * moe.router.data[1:]
    moe.router.data[0, 0], x[..., 0] = 3.0, 1.0  # everyone prefers the first

    def loads() -> Tensor:
        chosen = route(moe.config.routing, x.flatten(0, 1) @ moe.router.T, moe.choice_bias)[2]
        return torch.bincount(chosen.flatten(), minlength=6)

    before = loads().max()
    for _ in range(100):
        moe.train()(x)
    assert before > 200
    assert loads().max() < 100  # 400 / 6 = 67 where even
    bias = moe.choice_bias.clone()
    moe.eval()(x)
    assert torch.equal(moe.choice_bias, bias)


def test_the_bias_chooses_and_does_not_weigh() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    routing = Routing("sigmoid", 1, False, 1.0, 1, 1)
    _, weights, chosen = route(routing, logits, torch.tensor([0.0, 0.0, 5.0]))
    assert chosen.item() == 2
    assert weights.item() == pytest.approx(0.5)


def test_tokens_stay_within_the_best_groups() -> None:
    # The best expert stands alone in its group; two good ones together are better.
    logits = torch.tensor([[3.0, -9.0, 2.0, 2.1, -9.0, -9.0]])
    chosen = route(Routing("sigmoid", 2, True, 1.0, 3, 1), logits)[2]
    assert sorted(chosen[0].tolist()) == [2, 3]


def test_active_parameters_are_those_that_a_token_meets() -> None:
    cost = MoE.cost(MoEConfig(experts=6, top_k=2, hidden=24, shared=8), WIDTH)
    one = 3 * WIDTH * 24
    assert cost.params == 6 * one + 6 * WIDTH + 3 * WIDTH * 8
    assert cost.active_params == 2 * one + 6 * WIDTH + 3 * WIDTH * 8
    assert (2 * cost + cost).active_params == 3 * cost.active_params


def test_training_compiles_to_one_graph_with_its_loss() -> None:
    moe, x = built(bias_rate=0.001, z_loss=0.1).train(), tokens()

    def loss(x: Tensor) -> Tensor:
        return moe(x)[0].square().mean() + moe.auxiliary_loss()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    compiled.backward()
    gradient, bias = moe.router.grad.clone(), moe.choice_bias.clone()
    moe.zero_grad()
    moe.choice_bias.zero_()
    expected = loss(x)
    expected.backward()
    assert compiled.item() == pytest.approx(expected.item())
    assert torch.allclose(gradient, moe.router.grad)
    assert torch.equal(bias, moe.choice_bias)
    assert bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 7}, "a token cannot go to 7 of 6 experts.*Lower top_k"),
        ({"groups": 4}, "6 experts do not go into 4 groups"),
        ({"groups": 3, "top_groups": 4}, "of which 4 are chosen"),
        ({"groups": 3, "top_groups": 1, "top_k": 3}, "3 of 6 experts in 1 of 3 groups"),
        ({"shared_gate": True}, "Set shared to its width"),
        ({"top_k": 1}, "never teaches the router.*Set renormalise=false"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        built(**options)
