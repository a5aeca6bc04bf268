"""Every op on one GPU in one run: ours, fla's, torch's, beside the least time that the bytes allow.

    python benchmarks/kernels.py [--case TEXT ...] [--size M L] [--no-peers] [--quick] [--tuned FOLDER] [--out FILE]
    python benchmarks/kernels.py --from FILE [--page kernels.html]

Each case is a process of its own, and so is each peer's, so that a crash or a lack of memory is one line. First all of
them compile, tune themselves and are compared with float64, side by side; then they take times one after the other. A
peer that tunes itself needs minutes: what is not ready after `--prepare` seconds is left out. What it chose so far is
kept in the folder `--tuned`, from which a later run on such a card takes it. Figures of another run can stand in for
it: `--add FILE`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from libraries import peers
from report import OURS, page, text
from side_by_side import SideBySide

from chimeralab import Kernel, benchmark
from chimeralab.op_cases import OpCase, cases

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
BY = ": "
"""Between a case and its peer, in the name of a process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="part of a case's name; repeat it for several")
    parser.add_argument("--size", nargs="+", default=["M", "L"], choices=[*benchmark.SIZES])
    parser.add_argument("--no-peers", action="store_true", help="time our own tiers only")
    parser.add_argument("--quick", action="store_true", help="the first tier of each case alone, without errors")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases that prepare side by side")
    parser.add_argument("--prepare", type=float, default=300, help="seconds until times are taken")
    parser.add_argument("--seconds", type=float, default=600, help="of the whole run")
    parser.add_argument("--tuned", type=Path, help="folder with what peers that tune themselves chose; renewed")
    parser.add_argument("--out", type=Path, default=Path("kernels.json"), help="where the measurements go")
    parser.add_argument("--from", dest="source", type=Path, help="measurements to show, instead of taking some")
    parser.add_argument("--add", type=Path, help="measurements of another run on the same kind of card")
    parser.add_argument("--page", type=Path, help="write an HTML page that needs nothing else")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options)
        return
    report = json.loads(options.source.read_text()) if options.source else _run(options)
    if options.add:
        report["measurements"] += json.loads(options.add.read_text())["measurements"]
    print(text(report))
    if options.page:
        options.page.write_text(page(report), encoding="utf-8")


def _run(options: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    at_most = asdict(benchmark.ceilings(DEVICE, DTYPE))
    chosen = [case for case in cases() if not options.case or any(part in case.name for part in options.case)]
    chosen.sort(key=lambda case: not case.op.startswith(("delta_rule", "gated_linear")))  # what compiles longest, first
    wanted = [case.name for case in chosen]
    if not options.no_peers and not options.quick:
        wanted += [f"{case.name}{BY}{peer.tier}" for case in reversed(chosen) for peer in peers(case)]
    with tempfile.TemporaryDirectory() as cache:  # what was compiled before would hide how long a first call takes
        environment = os.environ | {"CEILINGS": json.dumps(at_most), "TRITON_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        if options.tuned:
            _copy_choices(options.tuned, Path(cache))
        command = [sys.executable, __file__, *sys.argv[1:], "--child"]
        processes = SideBySide(command, environment, options.jobs, options.prepare, options.seconds)
        processes.run(wanted)
        if options.tuned:
            _copy_choices(Path(cache), options.tuned)
    report = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "dtype": str(DTYPE).removeprefix("torch."),
        **at_most,
        "seconds": round(time.monotonic() - start, 1),
        "measurements": processes.outcomes,
        "troubles": processes.troubles,
    }
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _copy_choices(source: Path, target: Path) -> None:
    """What Triton's autotuner chose, without what it compiled for that."""
    for chosen in source.glob("*/*.autotune.json"):
        (target / chosen.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(chosen, target / chosen.parent.name)


def _child(options: argparse.Namespace) -> None:
    """One case: prepare it, say so, and take times when told to."""
    at_most = benchmark.Ceilings(**json.loads(os.environ["CEILINGS"]))
    name, _, peer = options.child.partition(BY)
    case = next(case for case in cases() if case.name == name)
    calls = _calls(case, peer, options)
    prepared = {kernel: _prepare(kernel, case, sizes, not options.quick) for kernel, sizes in calls.items()}
    print("ready", flush=True)
    sys.stdin.readline()
    for kernel, sizes in calls.items():
        seconds, errors, failure = prepared[kernel]
        for size in sizes:
            measured = benchmark.measure(kernel, case, size, DTYPE, DEVICE, at_most)
            measured.errors, measured.first_call_seconds = errors, seconds
            measured.failure = measured.failure or failure
            print(json.dumps(asdict(measured)), flush=True)
            _free()
    print("done", flush=True)


def _calls(case: OpCase, peer: str, options: argparse.Namespace) -> dict[Kernel, list[str]]:
    """The sizes at which each kernel is timed: the torch tier at the first alone where a GPU kernel serves the case."""
    sizes = options.size[:1] if case.loops else options.size
    if peer:
        return {kernel: sizes for kernel in peers(case) if kernel.tier == peer}
    arguments = case.arguments(benchmark.SIZES["S"], DEVICE, DTYPE)
    ours = [kernel for kernel in benchmark.timed_kernels(case.op) if kernel.unsupported(*arguments) is None]
    if options.quick:
        return {ours[0]: sizes[:1]}
    found = dict.fromkeys(ours[:1], sizes)
    return found | {kernel: sizes if kernel.tier in OURS[:3] else sizes[:1] for kernel in ours[1:]}


def _prepare(
    kernel: Kernel, case: OpCase, sizes: list[str], compare: bool
) -> tuple[float | None, dict[str, float], str]:
    """Seconds of the first call, errors, and what went wrong."""
    seconds, errors, failure = None, {}, ""
    try:
        seconds = benchmark.first_call(kernel, case, sizes[0], DTYPE, DEVICE)
        errors = benchmark.errors(kernel, case, DTYPE, DEVICE) if compare and seconds is not None else {}
        for size in sizes[1:]:
            benchmark.first_call(kernel, case, size, DTYPE, DEVICE)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"[:300]
    _free()
    return seconds, errors, failure


def _free() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
