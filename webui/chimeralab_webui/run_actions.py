"""What can be done to runs from a page: cancel, retry, archive, restore, tag, untag, note."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from chimeralab import LabError

if TYPE_CHECKING:
    from chimeralab import Lab

# What a page says afterwards; a tag is seen where it was added.
DONE = {
    "cancel": "cancelled",
    "retry": "queued again",
    "archive": "archived",
    "restore": "restored",
    "note": "annotated",
}


class Act(BaseModel):
    action: str = Field(pattern="^(cancel|retry|archive|restore|tag|untag|note)$")
    ids: list[int] = Field(min_length=1, max_length=1000)
    text: str = Field("", max_length=20_000, description="A tag, or the notes")


def perform(lab: Lab, value: Any) -> dict[str, Any]:
    """Do it to each run; `message` says how many, `error` why some could not."""
    act = Act.model_validate(value)
    one: Callable[[int], Any] = {
        "cancel": lab.cancel,
        "retry": lab.retry,
        "archive": lambda run: lab.archive([run]),
        "restore": lambda run: lab.archive([run], archived=False),
        "tag": lambda run: lab.tag(run, add=[act.text]),
        "untag": lambda run: lab.tag(run, remove=[act.text]),
        "note": lambda run: lab.note(run, act.text),
    }[act.action]
    done, errors = 0, []
    for run in act.ids:
        try:
            one(run)
            done += 1
        except LabError as error:
            errors.append(str(error))
    message = f"{done} {'run' if done == 1 else 'runs'} {DONE[act.action]}" if done and act.action in DONE else ""
    return {"message": message, "error": {"reason": "; ".join(errors)} if errors else None}
