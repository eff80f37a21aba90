"""A dictionary: who signs for which split, and where hands move."""

from dataclasses import replace

import pytest

from tests.dictionary.drawn_signs import FPS, MOVE, REST, sign, write_dictionary
from training_fla.captions.pauses import MARGIN_SECONDS
from training_fla.corpora.clips import DrawnVideo
from training_fla.corpora.row import CorpusRow, Reading
from training_fla.dictionary.lexicon import Splits, deal, moving_part, read_lexicon
from training_fla.errors import InputError


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rows, has_splits = read_lexicon(write_dictionary(tmp_path_factory.mktemp("d")), Reading(), sentence_column="gloss")
    assert not has_splits and rows[-1].sentence == "GOOD-MORNING"
    return rows


def splits_of(rows):
    return {row.signer: {other.split for other in rows if other.signer == row.signer} for row in rows}


def test_named_signers_sign_for_one_split_alone(rows):
    dealt = deal(rows, False, Splits(["C"], ["B"]), seed=0)
    assert splits_of(dealt) == {"A": {"train"}, "B": {"dev"}, "C": {"test"}}
    with pytest.raises(InputError, match="'Z'.*A, B, C"):
        deal(rows, False, Splits(["Z"]), seed=0)


def test_dev_may_show_signers_of_train_in_clips_of_their_own(rows):
    dealt = deal(rows, False, Splits(["C"], same_signers_in_dev=True), seed=0)
    assert splits_of(dealt) == {"A": {"train", "dev"}, "B": {"train", "dev"}, "C": {"test"}}
    signs = {(row.signer, row.sentence) for row in rows if row.signer != "C"}
    for split in ("train", "dev"):
        of_split = [row for row in dealt if row.split == split]
        assert {(row.signer, row.sentence) for row in of_split} == signs and len(of_split) == len(signs)


def test_a_signer_or_clip_in_two_splits_is_refused(rows):
    shared = [replace(rows[0], split="test"), *rows[1:]]
    with pytest.raises(InputError, match="signer A stands in the splits test, train"):
        deal(shared, True, Splits(), seed=0)
    shared = [replace(rows[0], split="dev"), *rows[1:]]
    with pytest.raises(InputError, match="signer A.*dev, train.*--same-signers-in-dev"):
        deal(shared, True, Splits(), seed=0)
    assert deal(shared, True, Splits(same_signers_in_dev=True), seed=0)
    with pytest.raises(InputError, match="0/A-0.mp4 stands in the splits dev, train"):
        deal([replace(rows[0], split="dev", signer=""), replace(rows[0], signer="")], True, Splits(), seed=0)
    with pytest.raises(InputError, match="column split.*--test-signers"):
        deal(shared, True, Splits(["C"]), seed=0)


def test_the_part_in_which_hands_move_is_found():
    row = CorpusRow("a", DrawnVideo(lambda: sign(1, 0, size=96), fps=FPS), "RED", "train")
    begin, end, length = moving_part(row)
    assert length == pytest.approx((2 * REST + MOVE) / FPS)
    assert begin == pytest.approx(REST / FPS - MARGIN_SECONDS, abs=0.17)
    assert end == pytest.approx((REST + MOVE) / FPS + MARGIN_SECONDS, abs=0.17)
    still = replace(row, video=DrawnVideo(lambda: sign(1, 0)[:6], fps=FPS))
    assert moving_part(still) == (0.0, 6 / FPS, 6 / FPS)
    assert "broken" in moving_part(replace(row, video=DrawnVideo(lambda: int("broken"))))
