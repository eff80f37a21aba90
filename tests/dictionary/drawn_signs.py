"""A dictionary of drawn signs: a square hand that rests, moves along a path of its sign, and rests again."""

from pathlib import Path

import numpy as np

from training_fla.corpora.clips import write_clip

FPS = 12.5
REST, MOVE = 10, 15  # frames: 0.8 s before and after, 1.2 s of motion
GLOSSES = ("RED", "BREAD", "EAT", "GOOD MORNING")


def sign(gloss: int, signer: int, variant: int = 0, size: int = 48) -> np.ndarray:
    """`(S, size, size, 3)` uint8: the body's shade is the signer's, the hand's way the gloss's."""
    frames = np.full((2 * REST + MOVE, size, size, 3), 60 + 30 * signer, np.uint8)
    frames[:, :, size // 2 - 6 : size // 2 + 6] = 20
    phase = np.r_[np.zeros(REST), np.linspace(0, 2 * np.pi, MOVE), np.full(REST, 2 * np.pi)]
    across, down = (0.3 * size * np.sin(factor * phase) for factor in (1 + gloss, 2))
    for frame, x, y in zip(frames, across + size // 2 + variant, size // 2 - abs(down), strict=True):
        frame[int(y) : int(y) + 10, int(x) - 5 : int(x) + 5] = 230
    return frames


def write_dictionary(folder: Path, signers: str = "ABC", clips: int = 2, more: str = "") -> Path:
    """A table `lexicon.csv` and its clips; `more` is put after it."""
    lines = ["video,gloss,signer"]
    for number, gloss in enumerate(GLOSSES):
        for signer_number, signer in enumerate(signers):
            for variant in range(clips):
                file = folder / f"{number}/{signer}-{variant}.mp4"
                file.parent.mkdir(parents=True, exist_ok=True)
                write_clip(file, sign(number, signer_number, variant), FPS)
                lines.append(f"{number}/{signer}-{variant}.mp4,{gloss},{signer}")
    (folder / "lexicon.csv").write_text("\n".join(lines) + f"\n{more}", encoding="utf-8")
    return folder / "lexicon.csv"


PAIRS = (
    "glosses\tsentence\tsplit\nRED\tRed.\ttrain\nRED BREAD EAT\tI eat red bread.\ttrain\n"
    "GOOD-MORNING EAT\tGood morning, eat!\ttrain\nEAT BREAD\tEat bread.\tdev\nBREAD RED\tThe bread is red.\ttest\n"
)
