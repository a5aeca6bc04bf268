"""A kernel on a case: what it costs at a size, and how far it is from float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from chimeralab import ops
from chimeralab.benchmark import clock
from chimeralab.benchmark.floor import Ceilings, differentiable, floor
from chimeralab.contracts.kernel import Kernel
from chimeralab.errors import SpecError, did_you_mean
from chimeralab.op_cases import OpCase, Size

SIZES = {
    "S": Size(2, 256, 4, 32, vocabulary=512),
    "M": Size(8, 2048, 16, 128),
    "L": Size(1, 32768, 16, 128),
}
CHECKED = Size(2, 1000, 4, 128, vocabulary=1000)
"""Where errors are measured: a length that is no multiple of a chunk."""


@dataclass
class Measurement:
    """One kernel on one case at one size. Times are medians in ms; `both` is forward and backward pass.

    `forward_ms` and `both_ms` are replays of a CUDA graph, on a CPU the calls themselves. `failure` says why there
    are no figures, or fewer.
    """

    op: str
    form: str
    kernel: str
    size: str
    dtype: str
    forward_ms: float | None = None
    both_ms: float | None = None
    launched_forward_ms: float | None = None
    launched_both_ms: float | None = None
    extra_mib: float | None = None  # of forward and backward pass
    first_call_seconds: float | None = None  # forward and backward, compilation included, at the first size measured
    floor_forward_ms: float | None = None
    floor_both_ms: float | None = None
    errors: dict[str, float] = field(default_factory=dict)  # relative to float64, of outputs and gradients
    failure: str = ""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return self.op, self.form, self.kernel, self.size, self.dtype

    @property
    def case(self) -> str:
        return f"{self.op}, {self.form}" if self.form else self.op


def check_ops(names: Iterable[str]) -> None:
    """Raises SpecError: an op that does not exist."""
    for op in names:
        if op not in ops.OPS:
            raise SpecError(f"unknown op {op!r}", place="--op", remedy=did_you_mean(op, ops.OPS))


def sizes(names: Iterable[str] = ()) -> list[Size]:
    """Those of SIZES; without names M and L on a GPU, S elsewhere. Raises SpecError: one that does not exist."""
    wanted = list(names) or (["M", "L"] if torch.cuda.is_available() else ["S"])
    for name in wanted:
        if name not in SIZES:
            raise SpecError(f"unknown size {name!r}", place="--size", remedy=f"Known: {', '.join(SIZES)}")
    return [SIZES[name] for name in wanted]


def timed_kernels(op: str) -> list[Kernel]:
    """All but the reference tier, which goes token by token; that where there is no other."""
    found = [kernel for kernel in ops.kernels(op) if kernel.tier != "reference"]
    return found or list(ops.kernels(op))


def exact_kernel(op: str) -> Kernel:
    """What float64 is computed with: the torch tier, which is tested against the reference, or that itself."""
    by_tier = {kernel.tier: kernel for kernel in ops.kernels(op)}
    return by_tier.get("torch") or by_tier["reference"]


def measure(
    kernel: Kernel, case: OpCase, size: str, dtype: torch.dtype, device: torch.device, at_most: Ceilings
) -> Measurement:
    """Times and memory at one of SIZES. What the kernel raises becomes the measurement's `failure`."""
    result = Measurement(case.op, case.form, kernel.tier, size, str(dtype).removeprefix("torch."))
    try:
        call = Call(kernel, case, SIZES[size], dtype, device)
        if call.reason:
            result.failure = call.reason
            return result
        least = floor(case, SIZES[size], call.inputs, call.forward(), at_most)
        result.floor_forward_ms, result.floor_both_ms = least.forward_ms, least.both_ms
        result.launched_forward_ms = clock.launched_ms(call.forward, device)
        result.launched_both_ms = clock.launched_ms(call.both, device)
        result.forward_ms, result.both_ms = result.launched_forward_ms, result.launched_both_ms
        if device.type == "cuda":
            result.extra_mib = clock.extra_mib(call.both)
            if not case.loops:
                result.forward_ms, result.both_ms = clock.replayed_ms(call.forward), clock.replayed_ms(call.both)
    except Exception as error:  # one kernel's trouble is a line of the table
        result.failure = f"{type(error).__name__}: {error}"[:300]
    return result


def first_call(kernel: Kernel, case: OpCase, size: str, dtype: torch.dtype, device: torch.device) -> float | None:
    """Seconds of a first forward and backward pass, with all that is compiled for them; None where it cannot serve."""
    call = Call(kernel, case, SIZES[size], dtype, device)
    return None if call.reason else clock.first_call_seconds(call.both, device)


class Call:
    """A kernel with its arguments."""

    def __init__(self, kernel: Kernel, case: OpCase, size: Size, dtype: torch.dtype, device: torch.device) -> None:
        self.function, self.arguments = kernel.function, case.arguments(size, device, dtype)
        self.reason = kernel.unsupported(*self.arguments) or ""
        self.inputs = [x for x in self.arguments if isinstance(x, Tensor)]
        self.leaves = _leaves(case, self.arguments)
        self.gradient: Tensor | None = None

    def forward(self) -> Tensor:
        with torch.no_grad():
            return _tensors(self.function(*self.arguments))[0]

    def both(self) -> object:
        output = _tensors(self.function(*self.arguments))[0]
        if self.gradient is None:
            self.gradient = torch.randn_like(output)
        return torch.autograd.grad(output, self.leaves, self.gradient, allow_unused=True)


def errors(
    kernel: Kernel, case: OpCase, dtype: torch.dtype, device: torch.device, size: Size = CHECKED
) -> dict[str, float]:
    """‖found − exact‖ / ‖exact‖ of every output and gradient, both from the same rounded inputs.

    The gradient is that of a random projection of the outputs that the kernel returns. NaN is infinitely far. Nothing
    where the kernel cannot serve.
    """
    arguments = case.arguments(size, device, dtype)
    if kernel.unsupported(*arguments):
        return {}
    wide = tuple(_widen(x) if isinstance(x, Tensor) else x for x in arguments)
    found = outputs_and_gradients(kernel.function, case, arguments)
    outputs = sum(not name.startswith("d ") for name in found)  # another library's kernel may leave out the state
    exact = outputs_and_gradients(exact_kernel(case.op).function, case, wide, outputs)
    far = {name: (_widen(y) - exact[name]).norm() / exact[name].norm().clamp_min(1e-30) for name, y in found.items()}
    return {name: float(distance.nan_to_num(float("inf"), float("inf"))) for name, distance in far.items()}


def outputs_and_gradients(
    function: Callable[..., Any], case: OpCase, arguments: tuple[Any, ...], count: int | None = None
) -> dict[str, Tensor]:
    """The first `count` outputs, "y" and then by number, and gradients by the name of their argument: "d q".

    The projection's weights are numbers that every dtype has: outputs in half precision meet the same ones as those in
    float64.
    """
    leaves, names = _leaves(case, arguments), list(inspect.signature(getattr(ops, case.op)).parameters)
    outputs = _tensors(function(*arguments))[:count]
    draws = torch.Generator(outputs[0].device).manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64, device=outputs[0].device)
    for y in outputs:
        real = torch.view_as_real(y) if y.is_complex() else y
        weights = torch.randn(real.shape, generator=draws, device=y.device).bfloat16()
        loss = loss + (real.double() * weights).sum()
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    found = {"y" if i == 0 else f"output {i}": y.detach() for i, y in enumerate(outputs)}
    at = [i for i, x in enumerate(arguments) if any(x is leaf for leaf in leaves)]
    for i, leaf, gradient in zip(at, leaves, gradients, strict=True):
        found[f"d {names[i]}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return found


def _leaves(case: OpCase, arguments: tuple[Any, ...]) -> list[Tensor]:
    wanted = [x for i, x in enumerate(arguments) if isinstance(x, Tensor) and i not in case.constants]
    return [x.requires_grad_() for x in wanted if differentiable(x)]


def _widen(x: Tensor) -> Tensor:
    if not differentiable(x):
        return x
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
