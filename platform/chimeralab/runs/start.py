"""Beginning with weights that there are: checked before the run is queued, put in before its first step."""

from __future__ import annotations

from pathlib import Path

from chimeralab.contracts import Ends
from chimeralab.errors import DataError, SpecError
from chimeralab.runs.spec import RunSpec
from chimeralab.stack.build import build
from chimeralab.stack.model import StackModel
from chimeralab.stack.weights.saved import (
    EMBEDDING,
    HEAD,
    at_ends,
    difference,
    put,
    read_shapes,
    read_stack,
    read_tensors,
    require_same_shapes,
    tensors_of,
)


def check_start(spec: RunSpec, ends: Ends) -> None:
    """Compare the folder with the run: stack, vocabulary, names and shapes. No weight is read.

    Raises:
        SpecError: the weights are of another stack or vocabulary. DataError: they are missing or damaged.
    """
    if spec.start is None:
        return
    try:
        _check(spec, Path(spec.start.folder), spec.start.new_vocabulary, ends)
    except DataError as error:
        raise DataError(f"{error.place}: {error.reason}", place="start.folder", remedy=error.remedy) from None


def _check(spec: RunSpec, folder: Path, new_vocabulary: bool, ends: Ends) -> None:
    unlike = difference(spec.stack, read_stack(folder))
    if unlike is not None:
        raise SpecError(
            f"the weights in {folder} are of another stack: {unlike}",
            place="start.folder",
            remedy="Leave the pattern out, and the stack is theirs",
        )
    shapes = read_shapes(folder)
    parameters, buffers = tensors_of(build(spec.stack, **ends, device="meta"))
    wanted = {name: tuple(tensor.shape) for name, tensor in (parameters | buffers).items()}
    if not new_vocabulary and _of(shapes, ends=True) != _of(wanted, ends=True):
        known, asked = shapes.get(EMBEDDING, (0,))[0], ends["vocab_size"]
        tokens = {name for name in (*shapes, *wanted) if at_ends(name)} <= {EMBEDDING, HEAD}
        raise SpecError(
            f"the weights know {known} tokens, and the task has {asked}"
            if tokens
            else "the weights are of a task with another embedding or readout",
            place="start.new_vocabulary",
            remedy="Choose a task with their vocabulary, or draw embedding and head anew: start.new_vocabulary=true",
        )
    require_same_shapes(_of(shapes, ends=False), _of(wanted, ends=False), str(folder))


def _of(shapes: dict[str, tuple[int, ...]], *, ends: bool) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if at_ends(name) == ends}


def begin(spec: RunSpec, model: StackModel) -> str | None:
    """Put the weights into a model just built; says what was done.

    Raises:
        DataError: they are no longer what was checked.
    """
    if spec.start is None:
        return None
    folder, new = Path(spec.start.folder), spec.start.new_vocabulary
    put(read_tensors(folder), model, str(folder), except_for=at_ends if new else lambda _: False)
    return f"started from the weights in {folder}" + (", with a new embedding and head" if new else "")
