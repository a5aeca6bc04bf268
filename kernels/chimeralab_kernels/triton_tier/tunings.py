"""The tiles that `chimeralab kernels tune` may choose. The kernels' own values, beside which these are tried, stand in
their plans; docs/kernels.md has the measurements behind those."""

from __future__ import annotations

from chimeralab import Tuning

OUTPUT = Tuning(
    "gated_linear_attention.output",  # a scan that reads the state
    (
        {"block_v": 32, "stages": 2},
        {"block_v": 64, "stages": 1},
        {"block_v": 64, "stages": 3},
        {"block_v": 128, "warps": 8, "stages": 2},
    ),
    small={"block_v": 32, "stages": 1},
)
STATE = Tuning(
    "gated_linear_attention.state",  # one that only writes it
    (
        {"block_k": 64, "stages": 2},
        {"block_k": 64, "stages": 3},
        {"block_k": 128, "stages": 2},
        {"block_k": 128, "stages": 4},
    ),
    small={"block_k": 64, "stages": 1},
)
GRADIENTS = Tuning(
    "gated_linear_attention.gradients",  # of queries and keys, chunk by chunk
    ({"stages": 3}, {"block_v": 32, "stages": 4}, {"block_v": 128, "stages": 1}),
    small={"block_v": 32, "stages": 1},
)
WITHIN = Tuning(
    "gated_linear_attention.within",  # chunks by themselves, decay by channel
    ({"stages": 2}, {"warps": 8}),  # blocks of 32 channels have read outside their memory on Hopper
    small={"block_k": 32, "stages": 1},
)
WITHIN_BACKWARD = Tuning(
    "gated_linear_attention.within_backward",
    ({"block_v": 32}, {"stages": 1}, {"warps": 8}),
    small={"block_k": 32, "block_v": 32, "stages": 1},
)
GATED_LINEAR_ATTENTION = (OUTPUT, STATE, GRADIENTS, WITHIN, WITHIN_BACKWARD)

# Walks from token to token keep nothing in shared memory: they fit every GPU as they are.
DIAGONAL = Tuning("diagonal_scan", ({"block": 64}, {"block": 256}, {"warps": 8}, {"warps": 24}))
DIAGONAL_COMPLEX = Tuning("diagonal_scan.complex", ({"block": 32}, {"block": 128}, {"warps": 24}))
SHORT_CONVOLUTION = Tuning("short_convolution", ({"block": 256}, {"block": 64}, {"block": 256, "warps": 8}))
WKV4 = Tuning("wkv4", ({"block": 32}, {"block": 128}, {"warps": 16}))
