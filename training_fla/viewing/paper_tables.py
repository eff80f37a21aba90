"""The paper's ablation tables, read from `paper_tables.yaml`."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

SCORES = {"R": "rouge_l", "B1": "bleu1", "B2": "bleu2", "B3": "bleu3", "B4": "bleu4"}


@dataclass
class Row:
    """A row: its label, the paper's R, B1, B2, B3, B4 (or B4 alone, or nothing), and the recipes of its stages."""

    label: str
    paper: list[float]
    stage1: str | None = "stage1"
    stage2: str | None = "stage2"
    stage1_epochs: int | None = None  # of Figure 4

    @property
    def paper_scores(self) -> dict[str, float]:
        """By the names in `SCORES`."""
        names = list(SCORES) if len(self.paper) == len(SCORES) else ["B4"]
        return dict(zip(names, self.paper, strict=False))

    @property
    def folder(self) -> str:
        """The folder of its last run."""
        if not self.stage2:
            return self.stage1
        return self.stage2 + ("" if self.stage1 in (None, "stage1") else f"-after-{self.stage1}")


@dataclass
class Table:
    """A table's caption in short, its rows, and Table 6's column of hours by label."""

    title: str
    rows: list[Row]
    stage1_hours: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.rows = [Row(**row) for row in self.rows]


_CONTENT = yaml.safe_load(Path(__file__).with_name("paper_tables.yaml").read_text(encoding="utf-8"))
WHOLE: list[float] = _CONTENT["whole"]
CORPORA: dict[str, dict] = _CONTENT["corpora"]
TABLES = {name: Table(**table) for name, table in _CONTENT["tables"].items()}
