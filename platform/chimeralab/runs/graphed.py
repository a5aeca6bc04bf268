"""A training step as one CUDA graph.

A small model's step is hundreds of kernels of a few microseconds each, and Python takes longer to launch them than the
GPU to run them. A graph launches them all at once. What it computes is fixed when it is captured: only the contents of
the tensors that it reads may change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from chimeralab.contracts import Batch
from chimeralab.errors import RunFailed

Step = Callable[[list[Batch]], tuple[Tensor, Tensor]]

WARM_UP = 3
"""Ordinary steps before the capture: kernels are compiled, and the optimizer makes its state, outside of a graph."""


class GraphedStep:
    """Stands in for `step`, which must do all of its work on the current stream and never wait for the device.

    The first steps are ordinary ones; the next is captured, and from then on replayed. Batches must keep their shapes.
    The tensors that it returns are overwritten by the next call.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        self.step, self.optimizer = step, optimizer
        self.taken = 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        for group in optimizer.param_groups:  # a number would be captured as it is
            group["lr"] = torch.tensor(float(group["lr"]), device="cuda")

    def __call__(self, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """Loss and gradient norm of a step over `batches`, which are on the device.

        Raises:
            RunFailed: the step cannot be captured.
        """
        self.taken += 1
        if self.taken <= WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):  # autograd remembers the stream that it first saw a parameter on
                result = self.step(batches)
            torch.cuda.current_stream().wait_stream(self.stream)
            return result
        if self.graph is None:
            self._capture(batches)
        else:
            for mine, given in zip(self.batches, batches, strict=True):
                for kept, new in zip(mine.tensors(), given.tensors(), strict=True):
                    kept.copy_(new)
        assert self.graph is not None
        self.graph.replay()
        return self.result

    def _capture(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the thread that reads batches pins memory meanwhile, which would end the capture
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.result = self.step(batches)
        except RuntimeError as error:
            raise RunFailed(
                f"the training step cannot be captured as a CUDA graph: {str(error).splitlines()[0]}",
                place="train.cuda_graph",
                remedy="Set train.cuda_graph to false: a layer of this stack waits for the device in its step",
            ) from error
