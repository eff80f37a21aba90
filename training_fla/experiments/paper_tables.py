"""The paper's ablation tables: rows of recipes with the paper's scores on PHOENIX14T's test split."""

from dataclasses import dataclass, field

SCORES = {"R": "rouge_l", "B1": "bleu1", "B2": "bleu2", "B3": "bleu3", "B4": "bleu4"}


@dataclass
class Row:
    """A row: its label, R, B1, B2, B3, B4 (or B4 alone, or nothing), and the recipes of its stages, if it has them."""

    label: str
    paper: tuple[float, ...]
    stage1: str | None = "stage1"
    stage2: str | None = "stage2"

    @property
    def paper_scores(self) -> dict[str, float]:
        """By the names in `SCORES`."""
        names = list(SCORES) if len(self.paper) == len(SCORES) else ["B4"]
        return dict(zip(names, self.paper, strict=False))


@dataclass
class Table:
    """A table's caption in short, its rows, and Table 6's column of hours by label."""

    title: str
    rows: list[Row]
    stage1_hours: dict[str, float] = field(default_factory=dict)


WHOLE = (45.27, 46.29, 35.33, 28.03, 23.09)  # Paper: the method itself, the same row in Tables 4, 5, 6, 8, 9, 10
TABLES = {
    "table4": Table(
        "factorized learning",
        [
            Row("joint", (32.52, 31.96, 21.96, 16.32, 12.90), stage1=None, stage2="stage2_joint"),
            Row("factorized", WHOLE),
        ],
    ),
    "table5": Table(
        "each stage alone",
        [
            Row("stage 2 only", (17.33, 17.64, 10.51, 7.37, 5.62), stage1=None, stage2="stage2_untrained_encoder"),
            Row("stage 1 only", (38.67, 39.09, 28.20, 21.83, 17.69), stage2=None),
            Row("both", WHOLE),
        ],
    ),
    "table6": Table(
        "downsampling rate",
        [
            Row("100%", (44.55, 45.68, 35.01, 27.82, 22.96), "stage1_rate_100", "stage2_rate_100"),
            Row("50%", (44.60, 46.22, 35.12, 27.90, 23.04), "stage1_rate_50", "stage2_rate_50"),
            Row("25%", WHOLE),
            Row("12.5%", (40.77, 42.42, 31.62, 24.68, 20.02), "stage1_rate_12", "stage2_rate_12"),
        ],
        {"100%": 17.90, "50%": 9.85, "25%": 4.75, "12.5%": 3.55},
    ),
    "table7": Table(
        "size of Light-T",
        [
            Row("tiny", (22.52,), "stage1_light_t_tiny"),
            Row("small", (22.36,), "stage1_light_t_small"),
            Row("base", (23.09,)),
            Row("large", (22.49,), "stage1_light_t_large"),
        ],
    ),
    "table8": Table(
        "input features",
        [
            Row("frame-wise", (41.59, 42.54, 31.72, 24.82, 20.30), stage2="stage2_frame_features"),
            Row("sign-wise", WHOLE),
            Row("hidden states", (45.16, 45.41, 34.74, 27.47, 22.60), stage2="stage2_hidden_states"),
        ],
    ),
    "table9": Table(
        "frozen blocks",
        [
            Row("nothing", (40.72, 40.74, 29.79, 22.65, 17.86), stage2="stage2_nothing_frozen"),
            Row("backbone", (39.86, 41.64, 31.48, 24.86, 20.40), stage2="stage2_backbone_frozen"),
            Row("backbone, temporal module", WHOLE),
        ],
    ),
    "table10": Table(
        "language models",
        [
            Row("MBart w/o pre", (40.18, 37.18, 26.99, 20.54, 16.19), stage2="stage2_mbart_without"),
            Row("MT5-Base w/o pre", (22.71, 18.02, 12.21, 9.17, 7.39), stage2="stage2_mt5_without"),
            Row("MBart w/ pre", WHOLE),
            Row("MT5-Base w/ pre", (41.06, 41.96, 31.20, 24.24, 19.71), stage2="stage2_mt5"),
        ],
    ),
    "figure4": Table(
        "epochs of visual initialing",
        # Unstated: the figure's points; its text names 75 and 100.
        [
            row
            for epochs in (25, 50, 75, 100)
            for stage1 in ("stage1" if epochs == 75 else f"stage1_epochs_{epochs}",)
            for row in (
                Row(f"{epochs}, stage 1", (17.69,) if epochs == 75 else (), stage1, None),
                Row(f"{epochs}, stage 2", (23.09,) if epochs == 75 else (), stage1),
            )
        ],
    ),
}
