"""What the benchmarks share: timing works in turn, and a table of values against their limits."""

import json
import statistics
import time
from collections.abc import Callable


def seconds_in_turn(
    works: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every work, `repeats` times each, after one run that is not counted.

    The works take turns and every other round goes backwards, so that a machine that slows down slows all of them.
    """
    for work in works.values():
        work()
    seconds = {name: [] for name in works}
    for i in range(repeats):
        for name in list(works) if i % 2 == 0 else reversed(works):
            start = clock()
            works[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio_of_medians(seconds: dict[str, list[float]], name: str, reference: str) -> float:
    """How many times as long `name` takes as `reference`."""
    return statistics.median(seconds[name]) / statistics.median(seconds[reference])


def report(rows: list[tuple[str, float, float]], unit: str = "", as_json: bool = False, **details) -> int:
    """Print (label, value, limit) rows, as a table or one JSON object with `details`; 1 where a limit is exceeded."""
    if as_json:
        print(json.dumps({"rows": [{"label": a, "value": b, "limit": c} for a, b, c in rows], **details}))
    else:
        for label, value, limit in rows:
            verdict = "ok" if value <= limit else "EXCEEDED"
            print(f"{label:<60} {value:7.3f}{unit}   limit {limit:g}{unit}   {verdict}", flush=True)
    return int(any(value > limit for _, value, limit in rows))
