"""Studies: a question, the sweep that answers it, and what was published, in one file. Knows no store, no web."""

from chimeralab.studies.spec import Figure, Published, Scale, StudySpec, Table, read_study

__all__ = ["Figure", "Published", "Scale", "StudySpec", "Table", "read_study"]
