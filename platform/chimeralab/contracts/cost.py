"""What a layer costs, as functions of the sequence length. Costs add up along a stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

FlopsOf = Callable[[int], float]
ElementsOf = Callable[[int], float]


def _zero(_: int) -> float:
    return 0.0


@dataclass(frozen=True)
class Cost:
    """Parameters, FLOPs and state of a layer or a whole stack.

    FLOPs count a multiply and an add as two, of matrix products and of scans; element-wise work is left out.
    All FLOPs are per token of one sequence.

    >>> up = Cost.linear(256, 1024)
    >>> (up + Cost.linear(1024, 256)).params
    524288
    """

    params: int = 0
    prefill: FlopsOf = _zero  # T -> FLOPs per token, averaged over a sequence of T tokens
    decode: FlopsOf = _zero  # L -> FLOPs for the token that follows a context of L - 1 tokens
    elements: ElementsOf = _zero  # L -> state elements in the model's dtype, per sequence
    accumulators: ElementsOf = _zero  # L -> state elements kept in float32 or better, per sequence
    inactive: int = 0  # of the parameters, those that a token passes by: experts that it does not go to

    @classmethod
    def linear(cls, d_in: int, d_out: int, *, bias: bool = False) -> Cost:
        """A dense map applied to every token: 2·d_in·d_out FLOPs."""
        flops = 2.0 * d_in * d_out
        return cls(d_in * d_out + (d_out if bias else 0), lambda T: flops, lambda L: flops)

    @classmethod
    def weights(cls, count: int) -> Cost:
        """Parameters that take part in no matrix product: norms, biases, decays."""
        return cls(params=count)

    @classmethod
    def work(cls, prefill: FlopsOf, decode: FlopsOf) -> Cost:
        """FLOPs of an op, per token; see `Cost.prefill` and `Cost.decode`."""
        return cls(prefill=prefill, decode=decode)

    @classmethod
    def state(cls, elements: ElementsOf, *, accumulator: bool = False) -> Cost:
        """State carried from token to token; an accumulator stays in float32 when the model runs in less."""
        return cls(accumulators=elements) if accumulator else cls(elements=elements)

    @property
    def active_params(self) -> int:
        """Parameters that work on a token."""
        return self.params - self.inactive

    def prefill_flops(self, T: int) -> float:
        """FLOPs per token of a forward pass over T tokens."""
        return self.prefill(T)

    def train_flops(self, T: int) -> float:
        """FLOPs per token of a training step over T tokens: the forward pass, and twice as much backward."""
        return 3 * self.prefill(T)

    def decode_flops(self, L: int) -> float:
        """FLOPs to produce one token at context length L."""
        return self.decode(L)

    def state_bytes(self, L: int, dtype: torch.dtype = torch.bfloat16) -> int:
        """Bytes of state per sequence after a context of L tokens."""
        wide = torch.promote_types(dtype, torch.float32)
        return int(self.elements(L) * dtype.itemsize + self.accumulators(L) * wide.itemsize)

    def once(self) -> Cost:
        """Of what is computed once for a sequence, not for each token; decoding computes it at each step."""
        return Cost(self.params, lambda T: self.prefill(T) / T, self.decode)

    def without_params(self) -> Cost:
        """The same work with weights that are counted elsewhere (a shared layer's second use)."""
        return Cost(0, self.prefill, self.decode, self.elements, self.accumulators)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            lambda T: self.prefill(T) + other.prefill(T),
            lambda L: self.decode(L) + other.decode(L),
            lambda L: self.elements(L) + other.elements(L),
            lambda L: self.accumulators(L) + other.accumulators(L),
            self.inactive + other.inactive,
        )

    def __mul__(self, n: int) -> Cost:
        return Cost(
            self.params * n,
            lambda T: n * self.prefill(T),
            lambda L: n * self.decode(L),
            lambda L: n * self.elements(L),
            lambda L: n * self.accumulators(L),
            self.inactive * n,
        )

    __rmul__ = __mul__

    @classmethod
    def total(cls, costs: list[Cost]) -> Cost:
        """The sum; flat, so that a stack of a thousand layers does not nest a thousand calls."""
        return cls(
            sum(c.params for c in costs),
            lambda T: sum(c.prefill(T) for c in costs),
            lambda L: sum(c.decode(L) for c in costs),
            lambda L: sum(c.elements(L) for c in costs),
            lambda L: sum(c.accumulators(L) for c in costs),
            sum(c.inactive for c in costs),
        )
