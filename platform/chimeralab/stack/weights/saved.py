"""A folder that holds a model: its stack as JSON, its weights as safetensors. A run's checkpoint is one, and more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chimeralab.contracts import LayerConfig
from chimeralab.errors import DataError
from chimeralab.stack.build import build
from chimeralab.stack.model import StackModel
from chimeralab.stack.resolve import resolve
from chimeralab.stack.spec import StackSpec
from chimeralab.stack.text import to_text

STACK, PARAMETERS, BUFFERS = "stack.json", "model.safetensors", "buffers.safetensors"
EMBEDDING, HEAD = "embedding.weight", "head.weight"


def at_ends(name: str) -> bool:
    """Whether a tensor belongs to what a task makes of the two ends of a stack."""
    return name.startswith(("embedding.", "head.", "readout.", "condition.classes."))


def tensors_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and the buffers that are kept, each tensor once."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    persistent = model.state_dict().keys() - dict(model.named_parameters(remove_duplicate=False)).keys()
    return parameters, {name: tensor for name, tensor in model.named_buffers() if name in persistent}


def write_saved(
    folder: Path, stack: StackSpec, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> None:
    (folder / STACK).write_text(stack.model_dump_json(indent=2))
    for name, tensors in ((PARAMETERS, parameters), (BUFFERS, buffers)):
        save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, folder / name)


def read_stack(folder: Path) -> StackSpec:
    """Raises DataError: the folder holds no model of the lab."""
    try:
        return StackSpec.model_validate_json((folder / STACK).read_text())
    except FileNotFoundError:
        foreign = (folder / "config.json").is_file()
        remedy = f"Import it first: chimeralab weights import {folder} OUT" if foreign else "Give a checkpoint's folder"
        raise DataError(f"there is no {STACK}", place=str(folder), remedy=remedy) from None
    except (OSError, ValidationError) as error:
        raise DataError(f"{STACK} cannot be read: {error}", place=str(folder)) from None


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters and buffers by name; no weight is read. Raises DataError."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        for file in (PARAMETERS, BUFFERS):
            with safe_open(folder / file, "pt") as opened:
                found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"the weights cannot be read: {error}", place=str(folder)) from None
    return found


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, in the dtype that they were saved in. Raises DataError."""
    try:
        return load_file(folder / PARAMETERS) | load_file(folder / BUFFERS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"the weights cannot be read: {error}", place=str(folder)) from None


def load(folder: Path | str) -> StackModel:
    """The model of a saved folder, in float32.

    Raises:
        DataError: the folder is missing, damaged, or its weights are not those of its stack.
    """
    folder = Path(folder)
    stack, saved = read_stack(folder), read_tensors(folder)
    if EMBEDDING not in saved:
        raise DataError(f"{EMBEDDING!r} is missing", place=str(folder))
    model = build(stack, saved[EMBEDDING].shape[0])
    put(saved, model, str(folder))
    return model


def put(
    saved: Mapping[str, Tensor], model: StackModel, place: str, *, except_for: Callable[[str], bool] = lambda _: False
) -> None:
    """Copy tensors into a model.

    Raises:
        DataError: names or shapes differ, all of them listed; the model then stays as it is.
    """
    parameters, buffers = tensors_of(model)
    own = {name: tensor for name, tensor in (parameters | buffers).items() if not except_for(name)}
    saved = {name: tensor for name, tensor in saved.items() if not except_for(name)}
    require_same_shapes(
        {name: tuple(tensor.shape) for name, tensor in saved.items()},
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        place,
    )
    for name, tensor in own.items():
        tensor.data.copy_(saved[name])


def require_same_shapes(
    given: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], place: str
) -> None:
    """Raises DataError, with each tensor that is missing, unknown or of another shape."""
    require_same_names(given.keys(), wanted.keys(), place)
    wrong = [f"{name} {given[name]} for {shape}" for name, shape in wanted.items() if given[name] != shape]
    if wrong:
        raise DataError(f"shapes differ: {listed(wrong)}", place=place, remedy="The weights are of another stack")


def require_same_names(given: Collection[str], wanted: Collection[str], place: str) -> None:
    """Raises DataError, with the names that are missing and those that nothing is known of."""
    missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    said = [f"{what} {listed(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
    if said:
        raise DataError(
            f"the tensors are not those of this stack: {'; '.join(said)}",
            place=place,
            remedy="Weights and configuration must be of one model",
        )


def difference(
    stack: StackSpec,
    other: StackSpec,
    *,
    same: Callable[[LayerConfig, LayerConfig, int], bool] = lambda one, two, d_model: one == two,
) -> str | None:
    """Where two stacks compute different things; None: nowhere. `same` compares options at a width."""
    ours, theirs = stack.model_dump(exclude={"layers"}), other.model_dump(exclude={"layers"})
    for name in sorted({**ours, **theirs}):
        if ours.get(name) != theirs.get(name):
            return f"{name} would be {theirs.get(name)!r}, not {ours.get(name)!r}"
    if len(stack.layers) != len(other.layers):
        return f"{len(other.layers)} layers, not {len(stack.layers)}"
    for index, (one, two) in enumerate(zip(resolve(stack), resolve(other), strict=True)):
        alike = (one.mixer, one.ffn, one.share, one.lora) == (two.mixer, two.ffn, two.share, two.lora)
        if not (
            alike
            and same(one.config, two.config, stack.d_model)
            and same(one.ffn_config, two.ffn_config, stack.d_model)
        ):
            return f"layer {index} would be {to_text(other.layers[index : index + 1])}"
    return None


def listed(names: list[str], shown: int = 8) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
