"""One split of several packed folders, with what a run asks of one."""

from collections.abc import Sequence
from itertools import chain

from processing_fla import FlaVideoProcessor
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.errors import InputError
from training_fla.recipe import CorpusEntry


class SeveralCorpora:
    """The clips of one split of several corpora, one corpus after the other in the order of the recipe."""

    def __init__(
        self, entries: Sequence[CorpusEntry], parts: Sequence[PackedCorpus], default_language: str | None = None
    ):
        self.entries, self.parts = entries, parts
        # Of each clip of each corpus: the entry's, else the row's, else the recipe's; empty where nothing says it.
        self.languages = [
            [entry.language or row or default_language or "" for row in part.column("language")]
            for entry, part in zip(entries, parts, strict=True)
        ]
        first = parts[0]
        for part in parts:
            if (part.feature_size, part.extractor) != (first.feature_size, first.extractor):
                both = f"{first.folder} and {part.folder} do not hold the same"
                raise InputError(f"{both}: all corpora of a run must hold frames, or features of one extractor")

    feature_size = property(lambda self: self.parts[0].feature_size)
    sentences = property(lambda self: list(chain.from_iterable(part.sentences for part in self.parts)))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def size_before(self, video_processor: FlaVideoProcessor) -> dict[str, int] | None:
        """As of one corpus, where all agree; else the frames of every corpus go straight to the model's size."""
        sizes = [part.size_before(video_processor) for part in self.parts]
        return sizes[0] if all(size == sizes[0] for size in sizes) else None


def spoken_languages(corpus: PackedCorpus | SeveralCorpora) -> list[str]:
    """The languages of several corpora in the order in which they come; none of one corpus, whose recipe says it."""
    if not isinstance(corpus, SeveralCorpora):
        return []
    codes = list(dict.fromkeys(chain.from_iterable(corpus.languages)))
    if "" in codes and len(codes) > 1:
        place = next(place for place, languages in enumerate(corpus.languages) if "" in languages)
        raise InputError(f"{corpus.parts[place].folder} does not say the language of its clips: add `language` to it")
    return [code for code in codes if code]
