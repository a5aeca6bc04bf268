"""The conformance suite of a kernel: it computes what the reference tier computes, gradients included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from chimeralab import ops
from chimeralab.contracts.kernel import Kernel
from chimeralab.op_samples import sample
from chimeralab.testing.conformance import Conformance, Finding, require


class KernelConformance(Conformance):
    """Subclass it and set `kernel`. The arguments are the op's sample call; a GPU is used where there is one.

    `tolerance` bounds ‖ours - reference‖ / ‖reference‖, with the reference in float64 and the kernel in `dtype`.
    """

    kernel: ClassVar[Kernel]
    dtype: ClassVar[torch.dtype] = torch.float32
    tolerance: ClassVar[float] = 1e-5

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def test_the_op_exists(self) -> None:
        require(self.kernel.op in ops.OPS, f"there is no op {self.kernel.op!r}; known: {', '.join(ops.OPS)}")

    def test_it_serves_the_sample_call_or_says_why_not(self) -> None:
        reason = self.kernel.unsupported(*self._arguments(self.dtype))
        require(reason is None or bool(reason), "`unsupported` must return a reason or None")

    def test_outputs_agree_with_the_reference(self) -> None:
        if not self._serves:
            return
        ours = self.kernel.function(*self._arguments(self.dtype))
        self._compare("output", _tensors(ours), _tensors(self._reference.function(*self._arguments(torch.float64))))

    def test_gradients_agree_with_the_reference(self) -> None:
        if not self._serves:
            return
        ours = _gradients(self.kernel, self._arguments(self.dtype))
        self._compare("gradient", ours, _gradients(self._reference, self._arguments(torch.float64)))

    @property
    def _serves(self) -> bool:
        return self.kernel.unsupported(*self._arguments(self.dtype)) is None

    @property
    def _reference(self) -> Kernel:
        return next(kernel for kernel in ops.kernels(self.kernel.op) if kernel.tier == "reference")

    def _arguments(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """The same numbers in every precision: drawn in float32, rounded to the kernel's dtype."""
        drawn = sample(self.kernel.op, self.device, torch.float32)
        return tuple(
            argument.to(self.dtype).to(dtype)
            if isinstance(argument, Tensor) and argument.is_floating_point()
            else argument
            for argument in drawn
        )

    def _compare(self, what: str, ours: list[Tensor], expected: list[Tensor]) -> None:
        require(len(ours) == len(expected), f"{len(ours)} {what}s come back, the reference gives {len(expected)}")
        for index, (a, b) in enumerate(zip(ours, expected, strict=True)):
            require(a.shape == b.shape, f"{what} {index} has shape {tuple(a.shape)}, not {tuple(b.shape)}")
            error = float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))
            require(error <= self.tolerance, f"{what} {index} is off by {error:.1e} of the reference's norm")


def check_kernel(kernel: Kernel) -> list[Finding]:
    """Run every check on a kernel; none is raised."""
    return KernelConformance.of(kernel=kernel).run()


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _gradients(kernel: Kernel, arguments: tuple[Any, ...]) -> list[Tensor]:
    leaves = [a.requires_grad_() for a in arguments if isinstance(a, Tensor) and a.is_floating_point()]
    outputs = _tensors(kernel.function(*arguments))
    loss = sum((output.double() * weights).sum() for output, weights in zip(outputs, _weights(outputs), strict=True))
    found = torch.autograd.grad(loss, leaves, allow_unused=True)  # type: ignore[arg-type]
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def _weights(outputs: list[Tensor]) -> Iterator[Tensor]:
    draws = torch.Generator().manual_seed(1)
    for output in outputs:
        yield torch.randn(output.shape, generator=draws, dtype=torch.float64).to(output.device)
