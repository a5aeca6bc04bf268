"""The ops: what mixers compute with.

A mixer calls an op, never a kernel. Each op is a signature in a file of its family; kernels (`reference`, `torch`,
`triton`, a third party's) come in as plugins. A call takes the kernel of the highest priority that supports its
arguments; `pin` fixes the choice for a run. Next to each op stands what it costs, counted from the algorithm.

Letters: B batch, T time, S keys, H heads, G groups (divide H), K key dim, V value dim, D width, W taps.
Decays are natural logarithms, at most 0. Recurrent ops take an initial state and return the final one; packed
sequences (`cu_seqlens`, int32, N + 1 offsets into T) need B = 1 and one initial state a sequence.
Products accumulate in float32 or better.
"""

from chimeralab.ops import tiles
from chimeralab.ops.attention import attention, attention_cost, visible_pairs
from chimeralab.ops.convolution import (
    DIRECT,
    long_convolution,
    long_convolution_cost,
    short_convolution,
    short_convolution_cost,
    transform_length,
)
from chimeralab.ops.delta import delta_rule, delta_rule_cost
from chimeralab.ops.grouped import grouped_linear, grouped_linear_cost
from chimeralab.ops.linear import (
    gated_linear_attention,
    gated_linear_attention_cost,
    taylor_features_count,
    taylor_linear_attention,
    taylor_linear_attention_cost,
)
from chimeralab.ops.neighborhood import neighborhood_attention, neighborhood_attention_cost
from chimeralab.ops.rnn import CELLS, rnn_scan, rnn_scan_cost, rnn_scan_state
from chimeralab.ops.scan import diagonal_scan, diagonal_scan_cost, selective_scan, selective_scan_cost
from chimeralab.ops.table import (
    CHUNK,
    Call,
    around,
    check_pins,
    choose,
    dispatch,
    explain,
    flop_counter,
    kernels,
    load,
    pin,
    record,
)
from chimeralab.ops.token import add_rms_norm, linear_cross_entropy, rms_norm, rotary, swiglu
from chimeralab.ops.wkv import wkv4, wkv4_cost, wkv4_state

OPS: tuple[str, ...] = (
    "attention",
    "neighborhood_attention",
    "gated_linear_attention",
    "taylor_linear_attention",
    "delta_rule",
    "diagonal_scan",
    "selective_scan",
    "wkv4",
    "rnn_scan",
    "short_convolution",
    "long_convolution",
    "rms_norm",
    "add_rms_norm",
    "rotary",
    "swiglu",
    "grouped_linear",
    "linear_cross_entropy",
)

__all__ = [
    "CELLS",
    "CHUNK",
    "DIRECT",
    "OPS",
    "Call",
    "add_rms_norm",
    "around",
    "attention",
    "attention_cost",
    "check_pins",
    "choose",
    "delta_rule",
    "delta_rule_cost",
    "diagonal_scan",
    "diagonal_scan_cost",
    "dispatch",
    "explain",
    "flop_counter",
    "gated_linear_attention",
    "gated_linear_attention_cost",
    "grouped_linear",
    "grouped_linear_cost",
    "kernels",
    "linear_cross_entropy",
    "load",
    "long_convolution",
    "long_convolution_cost",
    "neighborhood_attention",
    "neighborhood_attention_cost",
    "pin",
    "record",
    "rms_norm",
    "rnn_scan",
    "rnn_scan_cost",
    "rnn_scan_state",
    "rotary",
    "selective_scan",
    "selective_scan_cost",
    "short_convolution",
    "short_convolution_cost",
    "swiglu",
    "taylor_features_count",
    "taylor_linear_attention",
    "taylor_linear_attention_cost",
    "tiles",
    "transform_length",
    "visible_pairs",
    "wkv4",
    "wkv4_cost",
    "wkv4_state",
]
