"""Tensors as the Triton kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.triton_tier.launch import aligned


def odd(*shape: int) -> Tensor:
    """A tensor whose first row does not begin at a multiple of 16 bytes."""
    return torch.randn(torch.Size(shape).numel() + 1)[1:].view(shape)


def test_rows_are_copied_to_multiples_of_16_bytes_where_they_lie_between() -> None:
    given = [odd(2, 3, 1, 8) for _ in range(4)]
    read = aligned(*given)
    assert all(x.data_ptr() % 16 != 0 and y.data_ptr() % 16 == 0 for x, y in zip(given, read, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(given, read, strict=True))
    again = aligned(*read)
    assert [x.data_ptr() for x in again] == [x.data_ptr() for x in read]


def test_a_decay_by_head_or_shared_by_channels_and_what_is_missing_stay_as_they_are() -> None:
    q, k, v, a = (odd(2, 3, 1, 8) for _ in range(4))
    by_head, shared = odd(2, 3, 1), odd(2, 3, 1, 1).expand(2, 3, 1, 8)
    for decay in (by_head, shared, None):
        *_, same, first, second = aligned(q, k, v, decay, a, None)
        assert same is decay
        assert first.data_ptr() % 16 == 0
        assert second is None
