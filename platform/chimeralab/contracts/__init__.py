"""What a plugin author implements. Knows torch and pydantic only."""

from chimeralab.contracts.cost import Cost
from chimeralab.contracts.ends import Classifier, Ends, Readout, Regression, Told
from chimeralab.contracts.extras import Page, Preset, Size
from chimeralab.contracts.feed_forward import FeedForward, FeedForwardConfig
from chimeralab.contracts.kernel import Kernel
from chimeralab.contracts.layer import Context, LayerConfig, ParamGroup, Place, State
from chimeralab.contracts.mixer import Mixer, MixerConfig, View
from chimeralab.contracts.probe import Drawn, Predict, Probe
from chimeralab.contracts.task import IGNORE, Batch, Evaluation, Task, TaskConfig
from chimeralab.contracts.tuning import Tuning

__all__ = [
    "IGNORE",
    "Batch",
    "Classifier",
    "Context",
    "Cost",
    "Drawn",
    "Ends",
    "Evaluation",
    "FeedForward",
    "FeedForwardConfig",
    "Kernel",
    "LayerConfig",
    "Mixer",
    "MixerConfig",
    "Page",
    "ParamGroup",
    "Place",
    "Predict",
    "Preset",
    "Probe",
    "Readout",
    "Regression",
    "Size",
    "State",
    "Task",
    "TaskConfig",
    "Told",
    "Tuning",
    "View",
]
