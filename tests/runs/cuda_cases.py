"""What only a GPU can show of the trainer: `pytest tests/runs/cuda_cases.py` on a machine that has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chimeralab.events import Metrics
from chimeralab.runs import RunSpec
from chimeralab.runs.execute import execute
from chimeralab.runs.sink import Listing
from chimeralab.stack.compose import compose

STACKS = (
    "attention x2, ffn=none",
    "mamba2 x2, ffn=none",
    "gated_delta_net x2, ffn=none",
    "hyena x2, ffn=none",
    "rwkv4 x2, ffn=none",
    "slstm x2, ffn=none",
    "every(2, attention, base=mamba) x4",
    "attention x2, ffn=moe[experts=8, top_k=2]",
)


class Unheard(Listing):
    """Nothing is known to be stored, so that every checkpoint stays."""

    acknowledged = 0


def losses(stack: str, folder: Path, *, cuda_graph: bool, resume: Path | None = None) -> list[float]:
    spec = RunSpec(
        stack=compose(stack, d_model=64),
        task={"name": "mqar"},
        train={
            "steps": 30,
            "log_every": 1,
            "eval_every": 10,
            "eval_batches": 1,
            "checkpoint_every": 20,
            "cuda_graph": cuda_graph,
        },
        profile={"contexts": []},
        resources={"gpus": 1},
    )
    sink = Unheard()
    execute(spec, folder=folder, cache=folder / "cache", sink=sink, resume=resume)
    return [e.values["train/loss"] for e in sink.events if isinstance(e, Metrics) and "train/loss" in e.values]


@pytest.mark.parametrize("stack", STACKS)
def test_a_cuda_graph_trains_as_single_launches_do(stack: str, tmp_path: Path) -> None:
    plain = losses(stack, tmp_path / "plain", cuda_graph=False)
    graphed = losses(stack, tmp_path / "graphed", cuda_graph=True)
    torch.testing.assert_close(torch.tensor(graphed), torch.tensor(plain), rtol=2e-3, atol=0)
    assert graphed[-1] < graphed[0]


def test_a_graphed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole = losses(STACKS[0], tmp_path, cuda_graph=True)
    rest = losses(STACKS[0], tmp_path / "again", cuda_graph=True, resume=tmp_path / "checkpoints" / "step-00000020")
    torch.testing.assert_close(torch.tensor(rest), torch.tensor(whole[20:]), rtol=2e-3, atol=0)
