"""What active sweeps want beside their queue: members that should stop, points to try next, and their end."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence

from chimeralab.errors import StoreError, described
from chimeralab.events import Event, Metrics
from chimeralab.scheduling.hooks import Hooks
from chimeralab.scheduling.submission import new_members
from chimeralab.store import UNFINISHED, MemberRow, Store, SweepRow
from chimeralab.sweeps import SweepSpec
from chimeralab.sweeps.halving import verdict
from chimeralab.sweeps.search import Trial, suggest

LOOK_SECONDS = 1.0
log = logging.getLogger(__name__)


class SweepKeeper:
    """Looks after the active sweeps, on a thread of its own. All that it knows stands in the store."""

    def __init__(self, store: Store, hooks: Hooks) -> None:
        self.store, self.hooks = store, hooks
        threading.Thread(target=self._loop, name="sweeps", daemon=True).start()

    def evaluated(self, run_id: int, attempt: int, events: Sequence[Event]) -> None:
        """Events of a run have been stored: should it stop, for the sake of the sweep that queued it?

        A sweep that cannot be judged harms no run.
        """
        try:
            self._judge(run_id, attempt, events)
        except StoreError:
            raise
        except Exception:
            log.exception("the sweep of run %d", run_id)

    def _judge(self, run_id: int, attempt: int, events: Sequence[Event]) -> None:
        measured = [event for event in events if isinstance(event, Metrics)]
        owner = self.store.owner(run_id) if measured else None
        if owner is None or not owner.spec.get("prune"):
            return
        spec = SweepSpec.model_validate(owner.spec)
        new = {event.step for event in measured if spec.metric in event.values}
        if spec.prune is None or not spec.direction or not new:
            return
        evaluations = self.store.sweep_curves(owner.id, spec.metric)
        if run_id not in evaluations:
            return
        reason = verdict(spec.prune, spec.direction, run_id, evaluations, new)
        if reason:
            self.store.request_prune(run_id, attempt, reason)

    def _loop(self) -> None:
        while True:
            try:
                self._look()
            except StoreError as error:  # the database is away: we look again
                log.warning("sweeps: %s", error)
            except Exception:
                log.exception("sweeps")
            time.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        for row in self.store.sweeps("active"):
            if row.spec.get("search", {}).get("kind") == "optuna":
                try:
                    self._ask(row)
                except StoreError:
                    raise
                except Exception as error:  # a point that cannot be built, or no optuna here: it would fail each time
                    log.exception("sweep %s", row.name)
                    for run_id, reason in self.store.end_sweep(row.id, "failed", described(error)).items():
                        self.hooks.tell("run_finished", run_id=run_id, status="cancelled", reason=reason)
            self.store.settle_sweep(row.id)

    def _ask(self, row: SweepRow) -> None:
        """Queue the next points of a search that learns, while it has room."""
        spec = SweepSpec.model_validate(row.spec)
        there = sum(row.members.values())
        running = sum(row.members.get(status, 0) for status in UNFINISHED)
        seeds = len(spec.seeds)
        count = min(spec.points_at_once - math.ceil(running / seeds), math.ceil((row.wanted - there) / seeds))
        if count > 0:
            points = suggest(spec, self._trials(row.id, spec), count)
            self.store.add_members(row.id, new_members(spec.members(points)))

    def _trials(self, sweep: int, spec: SweepSpec) -> list[Trial]:
        members = self.store.sweep_members(sweep)
        summaries = self.store.summaries([member.run_id for member in members])
        points: dict[str, list[MemberRow]] = {}
        for member in members:
            points.setdefault(repr(member.point), []).append(member)
        trials = []
        for group in points.values():
            ended = all(member.status not in UNFINISHED for member in group)
            # a pruned member counts with what it had: little, which is why it was stopped
            told = [member for member in group if member.status in ("completed", "pruned")]
            values = [found[spec.metric].last for m in told if spec.metric in (found := summaries[m.run_id])]
            good = ended and len(values) == len(group) and all(map(math.isfinite, values))
            trials.append(Trial(group[0].point, math.fsum(values) / len(values) if good else None, ended))
        return trials
