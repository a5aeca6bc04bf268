from __future__ import annotations

import numpy as np

from chimeralab_plugins.tasks import draws


def test_bits_are_the_published_outputs_of_splitmix64() -> None:
    from_zero = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    other = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert draws.bits(0, np.arange(3)).tolist() == from_zero
    assert draws.bits(1234567, np.arange(3)).tolist() == other


def test_a_draw_depends_on_its_position_alone() -> None:
    row = draws.bits(7, np.arange(100))
    assert draws.bits(7, np.array([[42], [3]])).tolist() == [[row[42]], [row[3]]]


def test_keys_differ_with_every_part() -> None:
    keys = {
        draws.key("text", seed, split, 1, rank) for seed in (0, 1) for split in ("train", "test") for rank in (0, 1)
    }
    assert len(keys) == 8


def test_below_reaches_every_number_and_no_other() -> None:
    assert set(draws.below(draws.bits(1, np.arange(1000)), 7).tolist()) == set(range(7))


def test_unit_never_reaches_its_ends() -> None:
    ends = draws.unit(np.array([0, 2**64 - 1], np.uint64))
    assert 0 < ends[0] < ends[1] < 1


def test_an_order_holds_every_number_once() -> None:
    assert sorted(draws.order(5, 1000).tolist()) == list(range(1000))
    assert draws.order(5, 1000).tolist() != draws.order(6, 1000).tolist()
