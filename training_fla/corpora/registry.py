"""What is known of each corpus: its title, terms, languages, size, scoring convention and reader."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from training_fla.corpora import csl_daily, how2sign, phoenix14t
from training_fla.corpora.row import CorpusRow


@dataclass(frozen=True)
class Corpus:
    """One corpus; `read` and `media` are of releases that `fla prepare` reads from a folder."""

    title: str
    terms: str  # in a sentence
    url: str = ""
    languages: tuple[str, ...] = ()  # ISO codes, the sign language first
    license: str = "other"  # for a model's metadata; `other` where the corpus's terms bind the model too
    convention: str = ""  # the name of the scoring convention
    expected: Mapping[str, int] = field(default_factory=dict)  # rows of each split
    counts_note: str = ""
    read: Callable[..., list[CorpusRow]] | None = None
    reader_flags: Mapping[str, str] = field(default_factory=dict)  # what `read` may be asked besides, with help texts
    media: Callable[[str | Path], list[Path]] | None = None  # every clip that lies in the release


# Terms checked in November 2026 against the corpora's own pages; those of CSL-Daily against the list of data sets at
# sign-language-processing.github.io, which links its release agreement.
CORPORA = {
    "phoenix14t": Corpus(
        title=(
            "RWTH-PHOENIX-Weather 2014 T: German Sign Language, interpreted weather forecasts of the TV station "
            "PHOENIX"
        ),
        terms="Its terms allow no commercial use.",
        url="https://www-i6.informatik.rwth-aachen.de/~koller/RWTH-PHOENIX-2014-T/",
        languages=("gsg", "de"),
        convention="phoenix14t",
        expected={"train": 7096, "dev": 519, "test": 642},  # Paper: Sec. 5.1
        read=phoenix14t.read_phoenix14t,
        media=phoenix14t.media,
    ),
    "csl_daily": Corpus(
        title="CSL-Daily: Chinese Sign Language, daily life",
        terms="It is given out to academics under a release agreement.",
        url="https://ustc-slr.github.io/datasets/2021_csl_daily/",
        languages=("csl", "zh"),
        convention="csl_daily",
        expected={"train": 18401, "dev": 1077, "test": 1176},  # Paper: Sec. 5.1
        read=csl_daily.read_csl_daily,
        media=csl_daily.media,
    ),
    "how2sign": Corpus(
        title="How2Sign: American Sign Language, instructions from How2's videos, recorded in studios",
        terms="Its terms are CC BY-NC 4.0: no commercial use.",
        url="https://how2sign.github.io/",
        languages=("ase", "en"),
        convention="how2sign",
        # Differs: the rows of the realigned files; val and test were counted, train is the literature's.
        expected={"train": 31165, "dev": 1741, "test": 2357},
        counts_note=(
            "the paper (Sec. 5.1) counts 31164, 1740 and 2356: one less than each file has rows, "
            "as happens when the header is taken off twice"
        ),
        read=how2sign.read_how2sign,
        reader_flags={"released_clips": "use the clips as released, cut at the unaligned times"},
        media=how2sign.media,
    ),
    "demo": Corpus(
        title="The demo corpus of `fla-llm`: a drawn figure that makes invented signs, with German weather sentences",
        terms=(
            "It is not a sign language: the figures below say that the code works, nothing about translating people."
        ),
        languages=("de",),
        license="apache-2.0",
        convention="words",
    ),
    "demo_chinese": Corpus(
        title="The demo corpus of `fla-llm` in Chinese: a figure that makes invented signs, with weather sentences",
        terms=(
            "It is not a sign language: the figures below say that the code works, nothing about translating people."
        ),
        languages=("zh",),
        license="apache-2.0",
        convention="characters",
    ),
}


def convention_of(name: str) -> str:
    """The scoring convention of a known corpus; any other name as it is."""
    return CORPORA[name].convention if name in CORPORA else name
