"""First-party tasks."""

from __future__ import annotations

from chimeralab import hookimpl
from chimeralab.contracts import Task


@hookimpl
def register_tasks() -> list[type[Task]]:
    from chimeralab_plugins.tasks.compression import Compression
    from chimeralab_plugins.tasks.copy import Copy
    from chimeralab_plugins.tasks.diffusion import Diffusion
    from chimeralab_plugins.tasks.fuzzy_recall import FuzzyRecall
    from chimeralab_plugins.tasks.group_word_problem import GroupWordProblem
    from chimeralab_plugins.tasks.images import Images
    from chimeralab_plugins.tasks.induction import Induction
    from chimeralab_plugins.tasks.just_read_twice import JustReadTwice
    from chimeralab_plugins.tasks.mad import InContextRecall, NoisyRecall
    from chimeralab_plugins.tasks.memorization import Memorization
    from chimeralab_plugins.tasks.modular_arithmetic import ModularArithmetic
    from chimeralab_plugins.tasks.mqar import Mqar
    from chimeralab_plugins.tasks.mqar_mixed import MqarMixed
    from chimeralab_plugins.tasks.needle import Needle
    from chimeralab_plugins.tasks.phonebook import Phonebook
    from chimeralab_plugins.tasks.selective_copy import SelectiveCopy
    from chimeralab_plugins.tasks.state_tracking import Parity
    from chimeralab_plugins.tasks.text import Text

    mad = [InContextRecall, NoisyRecall, FuzzyRecall, SelectiveCopy, Compression, Memorization]
    state_tracking = [Parity, ModularArithmetic, GroupWordProblem]
    long_context = [Copy, Induction, Phonebook, Needle, JustReadTwice]
    return [Text, Images, Diffusion, Mqar, MqarMixed, *mad, *state_tracking, *long_context]
