"""The demo corpus: a drawn signer reports the weather. `demo_text` has sentences to pre-train a language model on."""

from collections.abc import Mapping

import numpy as np

from experiments.drawn.chinese import chinese_sentence
from experiments.drawn.drawing import FRAMES_PER_SECOND, Signing
from experiments.drawn.grammar import Report, sample_reports, single_sign_reports
from experiments.drawn.signs import DEMO_SIGNS, Sign
from training_fla.corpora.clips import DrawnVideo
from training_fla.corpora.row import CorpusRow
from training_fla.dictionary.sentences import stable_integer
from training_fla.errors import InputError

LANGUAGE = "de_DE"
# The demo's corpora by the language of their sentences; the signs are the same.
CORPUS_OF_LANGUAGE = {LANGUAGE: "demo", "zh_CN": "demo_chinese"}
# Clips of one sign teach what each sign means.
TRAIN_LENGTH_SHARES = {2: 0.30, 3: 0.28, 4: 0.20, 5: 0.13, 6: 0.09}
HELD_OUT_LENGTH_SHARES = {2: 0.15, 3: 0.30, 4: 0.25, 5: 0.17, 6: 0.13}
TEXT_LENGTH_SHARES = {2: 0.05, 3: 0.15, 4: 0.25, 5: 0.28, 6: 0.27}
SINGLE_SIGN_SHARE = 0.18
# With few train signers the model memorises them; none of them signs in dev or test.
NUM_SIGNERS = {"train": 48, "dev": 6, "test": 8}


def read_demo(
    seed: int = 0,
    num_train: int = 800,
    num_dev: int = 80,
    num_test: int = 100,
    size: int = 64,
    gloves: bool = True,
    language: str = LANGUAGE,
) -> list[CorpusRow]:
    """The demo corpus: weather reports in signs, drawn when their frames are asked for; each language has its own."""
    check_language(language)
    counts = {"train": num_train, "dev": num_dev, "test": num_test}
    check_drawing(seed, size)
    for split, count in counts.items():
        if count < 0:
            raise InputError(f"num_{split} must be 0 or more, got {count}")
    rows = []
    for split, count in counts.items():
        rng = np.random.default_rng([seed, stable_integer("sentences", split, *other_language(language))])
        reports = reports_of_split(rng, split, count)
        signers = rng.permutation(np.arange(count) % NUM_SIGNERS[split])
        for index, (report, signer) in enumerate(zip(reports, signers, strict=True)):
            cells = {"id": f"{split}-{index:05d}", "signer": f"{split}-signer-{signer:02d}", "split": split}
            cells |= {"glosses": " ".join(report.glosses), "sentence": sentence_in(report, language)}
            rows.append(drawn_row(cells, DEMO_SIGNS, size, seed, language, gloves))
    return rows


def sentence_in(report: Report, language: str) -> str:
    """What a report means in one of the demo's languages."""
    return report.sentence if language == LANGUAGE else chinese_sentence(report)


def other_language(language: str) -> tuple[str, ...]:
    """What the random numbers of a language depend on besides; nothing of the first one, which was here alone."""
    return () if language == LANGUAGE else (language,)


def check_language(language: str) -> None:
    """Refuse a language that the demo does not speak."""
    if language not in CORPUS_OF_LANGUAGE:
        known = " and ".join(CORPUS_OF_LANGUAGE)
        raise InputError(f"the demo has sentences in {known}, not in {language}: give one of these, or --pairs")


def demo_text(seed: int = 0, num_sentences: int = 6000, language: str = LANGUAGE) -> list[str]:
    """Distinct sentences of the demo's grammar that stand in neither its dev nor its test split, for any seed."""
    check_drawing(seed, size=16)
    rng = np.random.default_rng([seed, stable_integer("text", *other_language(language))])
    reports = [*single_sign_reports(), *sample_reports(rng, "train", num_sentences, TEXT_LENGTH_SHARES)]
    sentences = list(dict.fromkeys(sentence_in(report, language) for report in reports))
    return [sentences[index] for index in rng.permutation(len(sentences))]


def sentences_of_split(split: str, count: int, seed: int, language: str, spoken: str) -> list[str]:
    """What the clips of a split of one language's corpus mean in another language."""
    rng = np.random.default_rng([seed, stable_integer("sentences", split, *other_language(language))])
    return [sentence_in(report, spoken) for report in reports_of_split(rng, split, count)]


def reports_of_split(rng: np.random.Generator, split: str, count: int) -> list[Report]:
    if split != "train":
        return sample_reports(rng, split, count, HELD_OUT_LENGTH_SHARES)
    singles = single_sign_reports()
    num_singles = round(SINGLE_SIGN_SHARE * count)
    reports = [singles[index % len(singles)] for index in range(num_singles)]
    reports += sample_reports(rng, split, count - num_singles, TRAIN_LENGTH_SHARES)
    return [reports[index] for index in rng.permutation(count)]


def drawn_row(
    cells: dict[str, str],
    signs: Mapping[str, Sign],
    size: int,
    seed: int,
    language: str = LANGUAGE,
    gloves: bool = True,
) -> CorpusRow:
    """A clip that is drawn when its frames are asked for; `cells` are fields of `CorpusRow`."""
    glosses = cells["glosses"].split()
    signing = Signing(tuple(signs[gloss] for gloss in glosses), cells["signer"], cells["id"], size, seed, gloves)
    known = cells | {"glosses": " ".join(glosses), "language": language, "num_frames": signing.num_frames}
    return CorpusRow(video=DrawnVideo(signing, fps=FRAMES_PER_SECOND, name=cells["id"]), **known)


def check_drawing(seed: int, size: int) -> None:
    """Refuse what cannot be drawn."""
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, got {seed}")
    if size < 16:
        raise InputError(f"a drawn frame needs at least 16 pixels a side, got {size}")
