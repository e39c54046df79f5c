"""Medians of alternating runs, and peak memory of a process of its own."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def alternate(
    routes: dict[str, Callable[[], object]],
    repeats: int,
    after: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each route, run in turns A B A B; the first turn is not counted.

    Args:
        routes: what to run, by name.
        repeats: counted turns.
        after: called after every run, untimed.
        clock: what tells the seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(repeats + 1):
        for name, route in routes.items():
            started = clock()
            route()
            if turn:
                seconds[name].append(clock() - started)
            after(name)
        print(f"  turn {turn} of {repeats}", file=sys.stderr, flush=True)
    return {name: statistics.median(found) for name, found in seconds.items()}


def resident() -> float:
    """MiB of memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def peak() -> float:
    """MiB of memory this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def peak_of(model: str, method: str, route: str) -> float:
    """Peak MiB of two steps of a route in a process of its own, above what Python and its libraries take."""
    command = [sys.executable, str(HERE / "engine.py"), "peak", "--model", model, "--only", f"{method}/{route}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out.strip().splitlines()[-1]))
