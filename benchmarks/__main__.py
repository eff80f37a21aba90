"""Run every benchmark in a process of its own, and say which exceeded a limit.

python -m benchmarks                   all of them; leave the machine alone meanwhile
python -m benchmarks import_time       only those named
"""

import subprocess
import sys
from pathlib import Path

NOT_BENCHMARKS = {"__init__", "__main__", "measuring"}


def main(names: list[str]) -> int:
    """Run the benchmarks named, or all; 1 where one failed or exceeded a limit."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"No benchmark {', '.join(unknown)}; there are {', '.join(known)}.", file=sys.stderr)
        return 2
    codes = {}
    for name in names or known:
        print(f"== {name}", flush=True)
        codes[name] = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode
    failed = [name for name, code in codes.items() if code]
    print(f"== {len(codes) - len(failed)} of {len(codes)} within their limits")
    for name in failed:
        print(f"   not {name}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
