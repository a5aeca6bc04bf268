"""Text → spec → cost → model.

This package's face needs no torch; `build`, `cost` and `model` are modules of their own for those who want them.
"""

from chimeralab.stack.pattern import parse
from chimeralab.stack.spec import LayerSpec, StackSpec
from chimeralab.stack.text import to_text

__all__ = ["LayerSpec", "StackSpec", "parse", "to_text"]
