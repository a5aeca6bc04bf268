"""The `reference` tier: each op as its definition reads. Slow, exact, in any dtype: the oracle."""

from __future__ import annotations

from chimeralab import Kernel


def kernels() -> list[Kernel]:
    from chimeralab_kernels.reference.attention import attention
    from chimeralab_kernels.reference.delta_rule import delta_rule
    from chimeralab_kernels.reference.gated_linear_attention import gated_linear_attention
    from chimeralab_kernels.reference.grouped_linear import grouped_linear
    from chimeralab_kernels.reference.linear_cross_entropy import linear_cross_entropy
    from chimeralab_kernels.reference.long_convolution import long_convolution
    from chimeralab_kernels.reference.neighborhood_attention import neighborhood_attention
    from chimeralab_kernels.reference.rnn_scan import rnn_scan
    from chimeralab_kernels.reference.scan import diagonal_scan, selective_scan
    from chimeralab_kernels.reference.short_convolution import short_convolution
    from chimeralab_kernels.reference.taylor_linear_attention import taylor_linear_attention
    from chimeralab_kernels.reference.within_token import add_rms_norm, rms_norm, rotary, swiglu
    from chimeralab_kernels.reference.wkv4 import wkv4

    functions = (
        attention,
        neighborhood_attention,
        gated_linear_attention,
        taylor_linear_attention,
        delta_rule,
        diagonal_scan,
        selective_scan,
        wkv4,
        rnn_scan,
        short_convolution,
        long_convolution,
        rms_norm,
        add_rms_norm,
        rotary,
        swiglu,
        grouped_linear,
        linear_cross_entropy,
    )
    return [Kernel(function.__name__, "reference", function) for function in functions]
