"""The `torch` tier: chunked matrix products, on any device, differentiable, one graph to compile."""

from __future__ import annotations

from chimeralab import Kernel


def kernels() -> list[Kernel]:
    from chimeralab_kernels.torch_tier.attention import attention
    from chimeralab_kernels.torch_tier.delta_rule import delta_rule
    from chimeralab_kernels.torch_tier.diagonal_scan import diagonal_scan
    from chimeralab_kernels.torch_tier.gated_linear_attention import gated_linear_attention
    from chimeralab_kernels.torch_tier.grouped_linear import grouped_linear
    from chimeralab_kernels.torch_tier.linear_cross_entropy import linear_cross_entropy
    from chimeralab_kernels.torch_tier.long_convolution import long_convolution
    from chimeralab_kernels.torch_tier.neighborhood_attention import neighborhood_attention
    from chimeralab_kernels.torch_tier.rnn_scan import rnn_scan
    from chimeralab_kernels.torch_tier.selective_scan import selective_scan
    from chimeralab_kernels.torch_tier.short_convolution import short_convolution
    from chimeralab_kernels.torch_tier.taylor_linear_attention import taylor_linear_attention
    from chimeralab_kernels.torch_tier.within_token import add_rms_norm, rms_norm, rotary, swiglu
    from chimeralab_kernels.torch_tier.wkv4 import wkv4

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
    return [Kernel(function.__name__, "torch", function) for function in functions]
