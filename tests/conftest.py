"""Shared fixtures: everything is seeded, offline and small, and sizes differ so that a swapped axis fails."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real corpora; the test is skipped where the machine has none."""
    folder = os.environ.get("FLA_REAL_DATA")
    if not folder:
        pytest.skip("FLA_REAL_DATA is not set: the real corpora are not on this machine")
    if not Path(folder).is_dir():
        pytest.fail(f"FLA_REAL_DATA is {folder}, which is no folder")
    return Path(folder)
