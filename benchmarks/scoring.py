"""How long do 10,000 sentences take to score, and to bootstrap?

    python -m benchmarks.scoring             half a minute

The sentences are drawn, with the lengths of CSL-Daily (characters) and How2Sign (words). Seconds are those of one
core. For comparison: sacrebleu's own time for BLEU-4 and chrF of the second.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import argparse
import random
import sys
import time

NUM_SENTENCES = 10_000
SCORE_LIMIT, BOOTSTRAP_LIMIT = 10.0, 30.0  # seconds


def draw_words(seed: int) -> tuple[list[str], list[str]]:
    """Predictions and references of 1 to 33 words from a vocabulary of 5,000, about half of the words right."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    references = [draw.choices(vocabulary, weights, k=draw.randint(1, 33)) for _ in range(NUM_SENTENCES)]
    predictions = [[w if draw.random() < 0.5 else draw.choice(vocabulary) for w in r] for r in references]
    return [" ".join(p) + "." for p in predictions], [" ".join(r) + "." for r in references]


def draw_characters(seed: int) -> tuple[list[str], list[str]]:
    """Predictions and references of 1 to 35 Chinese characters, about half of them right."""
    draw = random.Random(seed)
    characters = [chr(0x4E00 + index) for index in range(2000)]
    weights = [1 / rank for rank in range(1, len(characters) + 1)]
    references = [draw.choices(characters, weights, k=draw.randint(1, 35)) for _ in range(NUM_SENTENCES)]
    predictions = [[c if draw.random() < 0.5 else draw.choice(characters) for c in r] for r in references]
    return ["".join(p) + "。" for p in predictions], ["".join(r) + "。" for r in references]


def seconds(work, *args) -> tuple[float, object]:
    """How long the processor works on `work(*args)`, and what that returns."""
    start = time.process_time()
    result = work(*args)
    return time.process_time() - start, result


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    import sacrebleu

    from benchmarks.measuring import report
    from training_fla.scoring.conventions import CONVENTIONS
    from training_fla.scoring.scores import (
        alternative_scores,
        compare_systems,
        corpus_scores,
        seed_intervals,
    )

    rows = []
    for convention, (predictions, references) in (("csl_daily", draw_characters(0)), ("how2sign", draw_words(0))):
        form = CONVENTIONS[convention]
        scoring, _ = seconds(corpus_scores, predictions, references, form)
        others, _ = seconds(alternative_scores, predictions, references, convention)
        bootstrap, _ = seconds(seed_intervals, [predictions], references, form)
        paired, _ = seconds(compare_systems, [predictions], [references], references, form)
        rows.append((f"{convention}: figures", scoring, SCORE_LIMIT))
        rows.append((f"{convention}: figures and all alternatives", scoring + others, SCORE_LIMIT))
        rows.append((f"{convention}: bootstrap", bootstrap, BOOTSTRAP_LIMIT))
        rows.append((f"{convention}: paired test", paired, BOOTSTRAP_LIMIT))
    theirs = sum(seconds(f, predictions, [references])[0] for f in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf))
    return report(rows, " s", options.json, sacrebleu_bleu4_and_chrf_seconds=theirs)


if __name__ == "__main__":
    sys.exit(main())
