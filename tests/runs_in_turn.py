"""Runs of the scripts one after the other in one process, which starts only once; given as a JSON list."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    for script, *words in json.loads(sys.argv[1]):
        status = __import__(script).main(words)
        if status:
            sys.exit(status)
