"""A RunSpec as the store queues it."""

from __future__ import annotations

from collections.abc import Sequence

from chimeralab.runs import RunSpec
from chimeralab.stack import to_text
from chimeralab.store import NewMember, NewRun
from chimeralab.sweeps import Member


def new_run(spec: RunSpec) -> NewRun:
    """What the store keeps of a run that is to be queued. The spec was checked before."""
    pattern = to_text(spec.stack.layers)
    return NewRun(
        name=spec.name or pattern,
        project=spec.project,
        spec=spec.model_dump(mode="json"),
        spec_hash=spec.spec_hash,
        pattern=pattern,
        task=spec.task.name,
        total_steps=spec.train.steps,
        max_attempts=spec.max_attempts,
        resources=spec.resources.model_dump(),
        tags=spec.tags,
        notes=spec.notes,
        plugins=_plugins_of(spec),
    )


def new_members(members: Sequence[Member]) -> list[NewMember]:
    return [NewMember(member.point, member.seed, new_run(member.spec)) for member in members]


def _plugins_of(spec: RunSpec) -> list[tuple[str, str, str]]:
    """(name, version, package) of every plugin that a run needs, for its record."""
    from chimeralab.plugins import registry
    from chimeralab.stack.branch import mixers_of

    known = registry()
    known.task(spec.task.name, "task.name")  # a dispatcher that asks for more runs has loaded no task yet
    owners = {known.owner("task", spec.task.name).name}
    for layer in spec.stack.layers:
        owners |= {known.owner("mixer", name).name for name in mixers_of(layer)}
        owners.add(known.owner("feed-forward", layer.ffn).name)
    infos = [known.plugins[name] for name in sorted(owners)]
    return [(info.name, info.version, info.package) for info in infos]
