"""RunSpec: everything that decides what a run computes, and what it may use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chimeralab.stack.spec import StackSpec

SHOWN = frozenset({"name", "project", "tags", "notes", "resources", "max_attempts"})
"""Fields of a run that decide nothing of what it computes."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskSpec(_Spec):
    name: str = Field("text", description="A task's name; see `chimeralab plugins`")
    options: dict[str, Any] = Field({}, description="The task's options that differ from its defaults")


class TrainSpec(_Spec):
    """The recipe. Steps are optimizer steps; a step sees batch_size x accumulate sequences."""

    steps: int = Field(500, ge=1, description="Optimizer steps")
    batch_size: int = Field(16, ge=1, description="Sequences in one forward pass")
    accumulate: int = Field(1, ge=1, description="Forward passes in one optimizer step")
    lr: float = Field(2e-3, gt=0, description="Peak learning rate of AdamW")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Last learning rate over the peak (cosine)")
    warmup_steps: int = Field(50, ge=0, description="Steps of linear warm-up")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay of matrices")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW β₁")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW β₂")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of embeddings and of each branch's output zeroed")
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 clips nothing")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of activations; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    compile: bool = Field(False, description="Compile the model with torch.compile")
    cuda_graph: bool = Field(False, description="Replay the step as one CUDA graph: for small models on a GPU")
    log_every: int = Field(10, ge=1, description="Steps between points of the curve")
    eval_every: int = Field(100, ge=1, description="Steps between evaluations; the last step is always evaluated")
    eval_batches: int = Field(16, ge=1, description="Largest number of validation batches in an evaluation")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints; the last step always has one")
    patience: int = Field(0, ge=0, description="Stop after so many evaluations without a better one; 0: never")
    stop_at: float | None = Field(None, description="Stop once the task's metric is as good as this; empty: never")
    sample_tokens: int = Field(96, ge=0, description="Tokens of each sample written at an evaluation; 0: none")


class ProfileSpec(_Spec):
    """Speed and memory, measured after training."""

    contexts: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (256, 1024), description="Context lengths, in tokens; none skips the profile"
    )
    batch_size: int = Field(1, ge=1, description="Sequences decoded at once")
    decode_tokens: int = Field(16, ge=1, description="Tokens timed at each context")


class StartSpec(_Spec):
    """Weights to begin with: those of a checkpoint, or imported ones."""

    folder: str = Field(description="A folder with stack.json and safetensors, seen from where the run's worker is")
    new_vocabulary: bool = Field(
        False, description="Draw embedding and head anew: the task's tokens are not those that the weights know"
    )

    @field_validator("folder")
    @classmethod
    def _from_anywhere(cls, folder: str) -> str:
        return str(Path(folder).expanduser().absolute())


class Resources(_Spec):
    cpus: float = Field(1, gt=0, description="Processor cores")
    gpus: float = Field(0, ge=0, description="GPUs; a fraction below one shares one")

    @field_validator("gpus")
    @classmethod
    def _whole_or_part_of_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("more than one GPU are whole ones: take a whole number, or a fraction below 1")
        return gpus


class RunSpec(_Spec):
    """One training run.

    >>> from chimeralab import StackSpec, parse
    >>> RunSpec(stack=StackSpec(layers=parse("attention x2"))).task.name
    'text'
    """

    name: str = Field("", max_length=200, description="For people; default: the pattern")
    project: str = Field("default", min_length=1, max_length=100, description="Groups runs")
    stack: StackSpec
    task: TaskSpec = TaskSpec()
    train: TrainSpec = TrainSpec()
    profile: ProfileSpec = ProfileSpec()
    start: StartSpec | None = Field(None, description="Weights to begin with; without them they are drawn")
    seed: int = Field(0, ge=0, lt=2**31, description="Of weights and of the order of data")
    kernels: dict[str, str] = Field({}, description="Pins ops to kernels: {'attention': 'reference'}")
    resources: Resources = Resources()
    max_attempts: int = Field(3, ge=1, le=100, description="How often a run whose worker was lost may start")
    tags: tuple[str, ...] = ()
    notes: str = ""

    @property
    def spec_hash(self) -> str:
        """Equal for two runs that compute the same: names, tags, notes and resources do not count."""
        text = json.dumps(decisive(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def decisive(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of a stored run's fields, those that decide what it computes; equal for runs from before there was `start`."""
    return {name: value for name, value in fields.items() if name not in SHOWN and (name, value) != ("start", None)}
