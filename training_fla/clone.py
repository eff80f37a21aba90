"""Files beside the packages: recipes and the card's template, which a wheel brings too, and what only a clone has."""

import sys
import sysconfig
from pathlib import Path

from training_fla.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
# What a clone has beside this package.
PARTS = ("experiments", "recipes", "run_stage1.py", "run_stage2.py")


def shipped_file(name: str) -> Path | None:
    """A file of the repository by its path there: of the clone, or else of those that were installed."""
    installed = Path(sysconfig.get_path("data")) / "share" / "fla-llm"
    return next((place / name for place in (ROOT, installed) if (place / name).is_file()), None)


def open_experiments(command: str) -> None:
    """Make `experiments` importable, or refuse a command that needs it."""
    if not all((ROOT / part).exists() for part in PARTS):
        raise InputError(f"`{command}` needs a clone of the repository, installed with `pip install --editable .`")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
