"""Whether this machine runs Triton kernels, and on what."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

INSTALLED = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
UNSEEN = "has not been checked on a GPU yet"
"""Why a kernel that is right in the interpreter is left out: what Triton compiles may differ."""
DTYPES = (torch.float32,) if INTERPRETED else (torch.bfloat16, torch.float16, torch.float32)


def machine_lacks(x: Tensor) -> str | None:
    """Why no kernel can serve x here, or None."""
    if not INSTALLED:
        return "needs the package triton"
    if INTERPRETED:
        return None if x.device.type == "cpu" else "is being interpreted, on a CPU"
    return None if x.device.type == "cuda" else "needs a CUDA device"
