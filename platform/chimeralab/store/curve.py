"""Thinning a long curve for a screen, without hiding what people look for: spikes and NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence


def thin(values: Sequence[float], max_points: int) -> list[int]:
    """Indices, in order and at most `max_points` (but no fewer than 5), of the values to draw.

    Kept are the first and the last, and of each of equal stretches between them the least, the greatest and,
    where the curve has NaN, the first NaN.
    """
    count = len(values)
    if count <= max_points:
        return list(range(count))
    each = 3 if any(map(math.isnan, values)) else 2
    stretches = max(1, (max_points - 2) // each)
    kept = {0, count - 1}
    for number in range(stretches):
        start = 1 + number * (count - 2) // stretches
        stop = 1 + (number + 1) * (count - 2) // stretches
        finite = [index for index in range(start, stop) if values[index] == values[index]]
        if finite:
            kept.add(min(finite, key=values.__getitem__))
            kept.add(max(finite, key=values.__getitem__))
        if len(finite) < stop - start:
            kept.add(next(index for index in range(start, stop) if values[index] != values[index]))
    return sorted(kept)
