"""What a lab knows of its studies: their files come from plugins, their members from the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chimeralab.errors import LabError, RequestError, did_you_mean
from chimeralab.store import Store
from chimeralab.studies import StudySpec, read_study
from chimeralab.sweeps import SweepSpec

if TYPE_CHECKING:
    from chimeralab.studies.results import Results


class StudyRecords:
    """Studies by name, and what their sweeps measured. `Lab` is one."""

    store: Store

    def studies(self) -> list[StudySpec]:
        """Every study that a plugin ships and that can be read, by name; see `broken_studies`."""
        return [found for found in self._read_studies().values() if isinstance(found, StudySpec)]

    def broken_studies(self) -> dict[str, str]:
        """Why a study that a plugin ships cannot be read, by name."""
        return {name: str(found) for name, found in self._read_studies().items() if isinstance(found, LabError)}

    def _read_studies(self) -> dict[str, StudySpec | LabError]:
        from chimeralab.plugins import registry

        found: dict[str, StudySpec | LabError] = {}
        for name, file in registry().studies.items():
            try:
                found[name] = read_study(file)
            except LabError as error:
                found[name] = error
        return found

    def study(self, reference: str) -> StudySpec:
        """A study by name, or from a file.

        Raises:
            RequestError: there is none of that name. DataError, SpecError: its file does not describe one.
        """
        from chimeralab.plugins import registry

        known = registry().studies
        if reference in known:
            return read_study(known[reference])
        if reference.endswith((".yaml", ".yml")):
            return read_study(Path(reference))
        raise RequestError(
            "there is no such study", place=f"study {reference!r}", remedy=did_you_mean(reference, known)
        )

    def study_results(self, study: StudySpec, scale: str) -> Results:
        """Tables and figures of what its sweep at this scale measured so far.

        Raises:
            RequestError: it never ran.
        """
        from chimeralab.studies.results import Measured, results

        study.scale(scale)
        name = f"{study.name}-{scale}"
        if name not in {sweep.name for sweep in self.store.sweeps()}:
            remedy = f"chimeralab study run {study.name} --scale {scale}"
            raise RequestError("it has not run in this lab", place=f"study {study.name}, scale {scale}", remedy=remedy)
        row = self.store.sweep(name)
        members = self.store.sweep_members(row.id)
        summaries = self.store.summaries([member.run_id for member in members])
        measured = [
            Measured(
                member.point,
                member.seed,
                member.status,
                {metric: summary.last for metric, summary in summaries[member.run_id].items()},
                member.run_id,
            )
            for member in members
        ]
        seconds = sum({member.run_id: member.seconds for member in members}.values())
        return results(study, scale, SweepSpec.model_validate(row.spec), measured, seconds)

    def study_sections(self, study: StudySpec, scale: str) -> dict[str, Any]:
        """Its results as titles, texts, tables and Plotly figures; see `chimeralab.studies.report.sections`.

        Raises:
            RequestError: it never ran.
        """
        from chimeralab.studies.report import sections

        return sections(self.study_results(study, scale))

    def study_scales(self, study: StudySpec) -> dict[str, str]:
        """The status of its sweep at each scale; "" where it never ran."""
        known = {sweep.name: sweep.status for sweep in self.store.sweeps()}
        return {scale: known.get(f"{study.name}-{scale}", "") for scale in study.scales}
