"""Runs per hour of an MQAR sweep: members in warm workers side by side, against a process for each run.

    python benchmarks/sweeps.py                                            # two CPU cores, minutes
    python benchmarks/sweeps.py --gpus 1 --at-once 12 --packed 48 --serial 3 --processes 12 --steps 750 --json out.json

Three ways to do the same work, two layers of width 64 on MQAR, each through the lab's queue and a Ray cluster:

- packed: a sweep; `--at-once` workers share the device, and each takes one member after another.
- processes: as many at once, but each run is a fresh process (runs that no sweep has).
- serial: one fresh process after another with the device to itself, as Zoology's launcher does it.

Measured from the first submission to the last end, worker starts included, the cluster's own start not. Packed comes
first, so that it alone compiles the kernels, and what was measured is written after each way. A count of 0 leaves a way
out. On a GPU start NVIDIA's MPS before, or kernels of different processes take turns; see docs/sweeps.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from chimeralab import Lab, SweepSpec

DONE = ("completed",)


def sweep_of(name: str, runs: int, first_seed: int, options: argparse.Namespace, gpus: float) -> SweepSpec:
    """`runs` members over four learning rates and as many seeds as it takes; `first_seed` keeps the ways apart."""
    on_gpu = options.gpus > 0
    lrs = [3e-4, 1e-3, 3e-3, 1e-2][: max(1, min(4, runs))]
    train: dict[str, Any] = {
        "steps": options.steps,
        "batch_size": options.batch_size,
        "warmup_steps": options.steps // 10,
        "log_every": max(1, options.steps // 10),
        "eval_every": options.steps,
        "eval_batches": 8,
        "checkpoint_every": options.steps,
        "sample_tokens": 0,
    }
    if on_gpu and not options.no_graph:
        train["cuda_graph"] = True
    task = {"vocab_size": options.vocab_size, "sequence_length": options.length, "pairs": options.pairs}
    base = {
        "stack": {"pattern": options.pattern, "d_model": 64},
        "task": {"name": "mqar", "options": task},
        "train": train,
        "profile": {"contexts": []},
        "resources": {"cpus": options.cpus_each, "gpus": gpus},
    }
    seeds = [first_seed + index for index in range(-(-runs // len(lrs)))]
    return SweepSpec.read({"name": name, "base": base, "axes": {"train.lr": lrs}, "seeds": seeds})


def measure(lab: Lab, way: str, runs: int, options: argparse.Namespace) -> dict[str, Any]:
    share = 1 / options.at_once if options.gpus else 0.0
    packed = way == "packed"
    spec = sweep_of(way, runs, {"packed": 0, "processes": 1000, "serial": 2000}[way], options, share)
    if way == "serial" and options.gpus:
        spec = sweep_of(way, runs, 2000, options, 1.0)
    start = time.perf_counter()
    if packed:
        lab.sweep(spec.model_copy(update={"at_once": options.at_once}))
        lab.wait_sweep(way, poll=0.1)
        ids = lab.sweep_table(way).run_ids
    else:
        waiting, ids = [member.spec for member in spec.members()], []
        room = 1 if way == "serial" else options.at_once
        while waiting or not all(lab.run(run).ended_at for run in ids):
            active = sum(lab.run(run).ended_at is None for run in ids)
            for run_spec in [waiting.pop(0) for _ in range(min(len(waiting), room - active))]:
                ids.append(lab.submit(run_spec))
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    rows = [lab.run(run) for run in ids]
    failed = [f"run {row.id}: {row.status} {row.status_reason}" for row in rows if row.status not in DONE]
    workers = {lab.attempts(row.id)[-1].worker.get("pid") for row in rows}
    began = [lab.attempts(row.id)[-1] for row in rows]
    each = [(row.ended_at or 0) - (attempt.claimed_at or 0) for row, attempt in zip(rows, began, strict=True)]
    accuracy = [metrics["validation/accuracy"].last for metrics in lab.summaries(ids).values() if metrics]
    return {
        "way": way,
        "runs": len(rows),
        "seconds": round(seconds, 1),
        "runs_per_hour": round(len(rows) / seconds * 3600, 1),
        "processes": len(workers),
        "seconds_a_run": round(sum(each) / len(each), 2),  # from claim to end
        "training_seconds_a_run": round(sum(row.seconds for row in rows) / len(rows), 2),
        "best_accuracy": round(max(accuracy, default=float("nan")), 4),
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=None, help="of the cluster; default: the machine's")
    parser.add_argument("--cpus-each", type=float, default=1.0)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--packed", type=int, default=12, help="runs")
    parser.add_argument("--processes", type=int, default=6, help="runs")
    parser.add_argument("--serial", type=int, default=3, help="runs")
    parser.add_argument("--pattern", default="attention[heads=1] x2, ffn=none")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--vocab-size", type=int, default=None)
    parser.add_argument("--length", type=int, default=None)
    parser.add_argument("--pairs", type=int, default=None)
    parser.add_argument("--no-graph", action="store_true", help="on a GPU: launch every kernel from Python")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    usual = (64, 8192, 256, 16) if options.gpus else (16, 512, 64, 4)
    for name, value in zip(("batch_size", "vocab_size", "length", "pairs"), usual, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)

    home = Path(tempfile.mkdtemp(prefix="chimeralab-sweeps-"))
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    found: dict[str, dict[str, Any]] = {}
    try:
        with Lab.open(home, cluster="embedded", cpus=options.cpus, gpus=options.gpus) as lab:
            for way in ("packed", "serial", "processes"):
                if getattr(options, way):
                    found[way] = measure(lab, way, getattr(options, way), options)
                    report = {"machine": platform.node(), "options": asked, "ways": found, "packed_over": ratios(found)}
                    print(json.dumps(found[way]), json.dumps({"packed_over": report["packed_over"]}), flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(report, indent=2))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times as many runs an hour the packed way has as each other."""
    if "packed" not in found:
        return {}
    rates = {way: one["runs_per_hour"] for way, one in found.items()}
    return {way: round(rates["packed"] / rate, 2) for way, rate in rates.items() if way != "packed"}


if __name__ == "__main__":
    main()
