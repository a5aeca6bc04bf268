"""What a lab does with weights: other libraries' in and out, and tests of what a run's checkpoint knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chimeralab.errors import DataError, RequestError
from chimeralab.run_records import RunRecords
from chimeralab.scheduling.home import Home
from chimeralab.stack import StackSpec

if TYPE_CHECKING:
    from chimeralab.stack.weights import Converted


class WeightRecords(RunRecords):
    """Folders of weights, and the checkpoints that runs left. `Lab` is one."""

    home: Home

    def import_weights(self, source: Path | str, to: Path | str) -> Converted:
        """A transformers checkpoint (config.json and safetensors) → a folder that a run can start from.

        Raises:
            DataError: files or tensors are missing, unknown, of another shape, pickled or damaged.
            SpecError: the model computes something that the lab does not. Nothing is written then.
        """
        from chimeralab.stack.weights import import_weights

        return import_weights(source, to)

    def export_weights(
        self,
        source: int | Path | str,
        to: Path | str,
        *,
        checkpoint: Literal["best", "newest"] = "best",
        family: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    ) -> Converted:
        """A run's checkpoint, or a folder of weights → a checkpoint that transformers loads.

        Args:
            source: a run's id, or a folder with stack.json.
            checkpoint: which of the run's; where it has one alone, that.
            family: a model type; default: the first whose configuration says exactly this stack.
            dtype: of the file; default: as the weights are.

        Raises:
            RequestError: there is no such run, or it has no checkpoint. DataError: the weights cannot be read.
            SpecError: no model of transformers that is known here is this stack.
        """
        import torch

        from chimeralab.stack.weights import export_weights, read_stack, read_tensors

        if isinstance(source, int):
            stack, folder = self.spec(source).stack, self.checkpoint(source, checkpoint)
        else:
            folder = Path(source)
            stack = read_stack(folder)
        return export_weights(
            stack, read_tensors(folder), to, family=family, dtype=getattr(torch, dtype) if dtype else None
        )

    def saved_stack(self, folder: Path | str) -> StackSpec:
        """The stack of a folder of weights. Raises DataError: there is none."""
        from chimeralab.stack.weights import read_stack

        return read_stack(Path(folder))

    def evaluate(
        self,
        run_id: int,
        tests: Sequence[str],
        *,
        checkpoint: Literal["best", "newest"] = "best",
        length: int | None = None,
        limit: int | None = None,
        shots: int | None = None,
    ) -> dict[str, float]:
        """Measure a run's checkpoint here and now by tests of the lm-evaluation-harness, and keep what is found with
        the run, as metrics `lm_eval/test/metric` at the checkpoint's step.

        Args:
            tests: names that the harness knows, or files of tasks (YAML).
            length: most tokens of context and continuation together; default: the sequences of training.
            limit: only so many documents of each test. shots: examples before each question, not the test's own.

        Raises:
            RequestError: there is no such run, it has no checkpoint, or the harness is not installed.
            SpecError: its model writes no text. DataError: there is no such test, or its data cannot be read.
        """
        from chimeralab.runs.language import evaluate_language

        spec, folder = self.spec(run_id), self.checkpoint(run_id, checkpoint)
        measured = evaluate_language(
            spec, folder, self.home.path / "cache", tests, length=length, limit=limit, shots=shots
        )
        self.store.record(run_id, measured)
        return measured.values

    def checkpoint(self, run_id: int, which: Literal["best", "newest"] = "best") -> Path:
        """The folder of a run's checkpoint: its best or its newest, and where it has one alone, that.

        Raises:
            RequestError: there is no such run, or it has no checkpoint yet. DataError: the folder is gone.
        """
        found = {artifact.role: artifact.path for artifact in self.artifacts(run_id)}
        if not found:
            self.run(run_id)  # says so where there is no such run
            raise RequestError("it has no checkpoint yet", place=f"run {run_id}")
        folder = Path(found.get(which) or next(iter(found.values())))
        if not folder.is_dir():
            raise DataError(
                f"there is no {folder}",
                place=f"run {run_id}, {which} checkpoint",
                remedy="Put it back, or train the run anew",
            )
        return folder
