"""What do our packages add to importing transformers' MBart?

    python -m benchmarks.import_time [--repeats 7] [--json]         half a minute

Each run is a fresh interpreter that imports MBart, then ours. Limit: 0.15 s added, as the median.
"""

import argparse
import json
import statistics
import subprocess
import sys

LIMIT_SECONDS = 0.15
PROGRAM = """
import json, time
start = time.perf_counter()
from transformers import MBartForConditionalGeneration
theirs = time.perf_counter()
import modeling_fla, processing_fla
print(json.dumps([theirs - start, time.perf_counter() - theirs]))
"""


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where the limit is exceeded."""
    from benchmarks.measuring import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    runs = []
    for _ in range(options.repeats + 1):  # the first fills the file cache
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    added = statistics.median(ours for _, ours in runs[1:])
    rows = [("import modeling_fla, processing_fla after MBart", added, LIMIT_SECONDS)]
    return report(rows, " s", options.json, mbart_seconds=statistics.median(theirs for theirs, _ in runs[1:]))


if __name__ == "__main__":
    sys.exit(main())
