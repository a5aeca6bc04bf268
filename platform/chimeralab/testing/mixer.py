"""The conformance suite of a mixer."""

from __future__ import annotations

from typing import Any, ClassVar

from chimeralab.contracts.mixer import Mixer
from chimeralab.testing.conformance import Finding
from chimeralab.testing.layer import LayerConformance
from chimeralab.testing.sequence import SequenceConformance


class BidirectionalMixerConformance(LayerConformance):
    """What a mixer must do that is not causal: it sees whole sequences and is never asked to go on."""

    mixer: ClassVar[type[Mixer]]

    @property
    def layer_type(self) -> type[Mixer]:
        return self.mixer


class MixerConformance(SequenceConformance):
    """Subclass it and set `mixer` and, where the defaults do not do, `options` and `d_model`."""

    mixer: ClassVar[type[Mixer]]

    @property
    def layer_type(self) -> type[Mixer]:
        return self.mixer


def check_mixer(
    mixer: type[Mixer], options: dict[str, Any] | None = None, d_model: int = MixerConformance.d_model
) -> list[Finding]:
    """Run every check on a mixer; none is raised."""
    suite = MixerConformance if mixer.causal else BidirectionalMixerConformance
    return suite.of(mixer=mixer, options=options or {}, d_model=d_model).run()
