"""What only a clone of the repository holds, and a wheel does not: recipes, run scripts, experiments."""

import sys
from pathlib import Path

from training_fla.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
# What a clone has beside this package.
PARTS = ("experiments", "recipes", "run_stage1.py", "run_stage2.py")


def open_experiments(command: str) -> None:
    """Make `experiments` importable, or refuse a command that needs it."""
    if not all((ROOT / part).exists() for part in PARTS):
        raise InputError(f"`{command}` needs a clone of the repository, installed with `pip install --editable .`")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
