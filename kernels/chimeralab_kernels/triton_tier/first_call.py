"""The kernels of an operator's first call are compiled side by side.

A launch in an operator whose kernel is not compiled yet ends the call. The call is rehearsed: gone through with
compilations, in a pool of threads, for launches; then made again, each launch waiting for its own kernel alone. Where
an input needs a gradient the backward pass is rehearsed with it. What a rehearsal allocates is what the call will, and
is free again before it. Once all is compiled nothing of this is met.

Triton compiles outside of Python's lock but for reading a kernel's source, a fifteenth of the time. Compiled as without
this module are launches outside of operators, those that a CUDA graph captures, and what a rehearsal did not foresee.
What cannot be compiled fails in its launch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from functools import partial, wraps
from threading import Lock
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import CustomOpDef, infer_schema
from triton.runtime import JITFunction, driver

from chimeralab_kernels.triton_tier.machine import INTERPRETED

_ENDS = object()
"""What `_call` holds in a call of an operator that ends where it meets a kernel that is not compiled."""
_call: ContextVar[Executor | object | None] = ContextVar("_call", default=None)
"""`_ENDS`, the pool of a rehearsal, or None where kernels are compiled as they are met."""
_compiling: dict[tuple, Future] = {}
"""By kernel, device and Triton's key: what pools are at, whichever thread asked for it."""
_lock = Lock()
_gradients: dict[CustomOpDef, tuple[Callable, Callable]] = {}
"""What `differentiate` was given."""


class _Uncompiled(Exception):
    pass


class Kernel(JITFunction):
    """A Triton kernel that a rehearsal compiles instead of launching it."""

    def __getitem__(self, grid: Any) -> Any:
        if isinstance(_call.get(), Executor):
            return partial(self.run, grid=grid, warmup=True)
        return super().__getitem__(grid)

    def _do_compile(self, key: Any, signature: Any, device: int, *rest: Any) -> Any:
        """Triton's, for a kernel that it has not compiled. None: not to be launched."""
        call, place, compiled = _call.get(), (id(self), device, key), self.device_caches[device][0]
        if isinstance(call, Executor):
            with _lock:
                if place not in _compiling and key not in compiled:
                    _compiling[place] = call.submit(self._compile, key, signature, device, *rest)
                    _compiling[place].add_done_callback(lambda _: _compiling.pop(place))
            return None
        if (compiling := _compiling.get(place)) is not None:
            wait([compiling])
        elif call is _ENDS and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
            raise _Uncompiled
        return compiled[key] if key in compiled else super()._do_compile(key, signature, device, *rest)

    def _compile(self, *given: Any) -> None:
        kernel = super()._do_compile(*given)
        if kernel is not None:
            driver.active.launcher_cls(kernel.src, kernel.metadata)  # Triton 3.6 has a C compiler make and keep it


def jit(fn: Callable | None = None, **options: Any) -> Any:
    """`triton.jit`, for the kernels of operators."""
    if fn is None:
        return partial(jit, **options)
    return triton.jit(fn, **options) if INTERPRETED else Kernel(fn, **options)


def operator(name: str, *, changes: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """`torch.library.custom_op` for one that launches kernels; an input that it `changes` only by its last launch."""

    def define(fn: Callable[..., Any]) -> CustomOpDef:
        @wraps(fn)
        def call(*inputs: Any) -> Any:
            if _call.get() is not None:
                return fn(*inputs)
            token = _call.set(_ENDS)
            try:
                return fn(*inputs)
            except _Uncompiled:
                pass  # what the call has allocated goes with the exception
            finally:
                _call.reset(token)
            _rehearse(fn, inputs, _gradients.get(op))
            return fn(*inputs)

        schema = infer_schema(fn, mutates_args=changes)
        op = torch.library.custom_op(name, call, mutates_args=changes, schema=schema)
        return op

    return define


def differentiate(op: CustomOpDef, backward: Callable, keep: Callable) -> None:
    """`register_autograd`; a rehearsal goes through `keep` and `backward` too."""
    op.register_autograd(backward, setup_context=keep)
    _gradients[op] = backward, keep


class _Context:
    """What autograd would hand from one pass to the other."""

    materializes = True
    saved_tensors: tuple[Tensor | None, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self.materializes = value


def _rehearse(fn: Callable, inputs: tuple, gradients: tuple[Callable, Callable] | None) -> None:
    pool = ThreadPoolExecutor(os.cpu_count())
    token = _call.set(pool)
    try:
        outputs = fn(*inputs)
        needed = any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        if needed and gradients is not None and not torch.is_inference_mode_enabled():
            backward, keep = gradients
            keep(context := _Context(), inputs, outputs)
            first, *others = outputs if isinstance(outputs, tuple) else (outputs,)
            # As in most training steps: of the first output alone.
            backward(context, torch.empty_like(first), *(x if context.materializes else None for x in others))
    except torch.OutOfMemoryError:
        pass  # then one by one; and the call, which needs as much, will tell
    finally:
        _call.reset(token)
        pool.shutdown(wait=False)
