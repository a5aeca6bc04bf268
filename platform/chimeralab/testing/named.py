"""Check whatever is registered under a name."""

from __future__ import annotations

from chimeralab.errors import SpecError, did_you_mean
from chimeralab.plugins import registry
from chimeralab.testing.conformance import Finding
from chimeralab.testing.feed_forward import check_feed_forward
from chimeralab.testing.kernel import check_kernel
from chimeralab.testing.mixer import check_mixer
from chimeralab.testing.task import check_task


def check_named(name: str) -> list[Finding]:
    """The findings on a mixer, feed-forward or task with its default options, or on a kernel ("op/tier").

    Raises:
        SpecError: nothing is registered under that name.
    """
    known = registry()
    kernels = {"/".join(key): kernel for key, kernel in known.kernels.items()}
    if name in known.mixers:
        return check_mixer(known.mixers[name])
    if name in known.feed_forwards:
        return check_feed_forward(known.feed_forwards[name])
    if name in known.tasks:
        return check_task(known.tasks[name])
    if name in kernels:
        return check_kernel(kernels[name])
    names = [*known.mixers, *known.feed_forwards, *known.tasks, *kernels]
    raise SpecError(f"nothing is registered as {name!r}", place="--check", remedy=did_you_mean(name, names))
