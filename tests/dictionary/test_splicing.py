"""`fla prepare splice`: what a spliced clip shows, who signs it, and that a killed run ends with the same bytes."""

import multiprocessing
import time
from itertools import pairwise

import numpy as np
import pytest

from tests.dictionary.drawn_signs import FPS, PAIRS, write_dictionary
from training_fla.cli import main
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.dictionary.lexicon import Signs
from training_fla.dictionary.splicing import FADE_SECONDS, Piece, SplicedVideo, spans
from training_fla.tables import read_table


def splice(folder, out, *more):
    words = ["prepare", "splice", "--lexicon", str(folder / "lexicon.csv"), "--pairs", str(folder / "pairs.tsv")]
    words += ["--out", str(out), "--size", "24", "--test-signers", "C", "--same-signers-in-dev", "--language", "en_XX"]
    return main([*words, "--workers", "0", *more])


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dictionary")
    write_dictionary(folder)
    (folder / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    assert splice(folder, folder / "out") == 0
    return folder


def test_each_sentence_is_signed_by_one_signer_of_its_split(place):
    train, dev, test = (PackedCorpus(place / "out", split) for split in ("train", "dev", "test"))
    assert list(train.column("glosses")) == ["RED"] * 2 + ["RED BREAD EAT"] * 3 + ["GOOD-MORNING EAT"] * 3
    assert train.language == "en_XX" and train.sentences[3] == "I eat red bread."
    assert set(train.signers) == {"A", "B"}, "a sign alone is shown in each clip of train"
    assert set(test.signers) == {"C"} and set(dev.signers) <= {"A", "B"}
    assert (len(dev), len(test)) == (1, 1), "several renderings are for train alone"
    assert len(set(train.num_frames[2:5])) > 1, "renderings differ in speed"


def test_signs_alone_are_packed_beside_and_cut_to_their_motion(place):
    signs = Signs(place / "out-signs")
    assert len(signs.places) == 24 and signs.common_fps == FPS
    for id_ in signs.places:
        begin, end = signs.moving[id_]
        assert 0 < begin < end < signs.seconds(id_) < 2.8 - 0.1, "shorter than the clip, with a rest at both ends"


def test_spans_overlap_while_one_sign_fades_into_the_next(place):
    signs = Signs(place / "out-signs")
    pieces = (Piece("0/A-0", 0.2, 1.4, 1.0), Piece("2/A-1", 0.4, 1.4, 0.5), Piece("1/A-0", 0.0, 0.1, 1.0))
    begins, ends = spans(pieces)
    assert (ends - begins).tolist() == pytest.approx([1.2, 2.0, 0.1])
    overlaps = [end - begin for end, begin in zip(ends[:-1], begins[1:], strict=True)]
    assert overlaps == pytest.approx([FADE_SECONDS, 0.045])
    assert all(end <= begin for end, begin in zip(ends[:-2], begins[2:], strict=True))
    video = SplicedVideo(pieces, "x", signs)
    frames = np.stack(list(video.joined(1)))
    assert len(frames) == int(ends[-1] * FPS) and frames.shape[1:] == (24, 24, 3)
    first = signs.frames("0/A-0", np.array([0.2 + 3 / FPS]))[0]
    assert (frames[3] == first).all()
    moment = next(n / FPS for n in range(len(frames)) if begins[1] < n / FPS < ends[0])
    before = signs.frames("0/A-0", np.array([0.2 + moment]))[0].astype(float)
    after = signs.frames("2/A-1", np.array([0.4 + (moment - begins[1]) * 0.5]))[0].astype(float)
    share = (moment - begins[1]) / FADE_SECONDS
    assert np.abs(frames[round(moment * FPS)] - (before + share * (after - before))).max() <= 1
    assert (np.stack(list(video.joined(4))) == frames[::4]).all()


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_processes_and_another_seed_others(place, tmp_path):
    signs = ("--signs", str(place / "out-signs"))
    assert splice(place, tmp_path / "again", *signs, "--workers", "2") == 0
    assert contents(tmp_path / "again") == contents(place / "out")
    assert splice(place, tmp_path / "other", *signs, "--seed", "1") == 0
    assert contents(tmp_path / "other") != contents(place / "out")


def slow(folder, out):
    """Splice slowly, to be killed on the way."""
    joined = SplicedVideo.joined
    SplicedVideo.joined = lambda self, stride: (time.sleep(0.3), *joined(self, stride))[1:]
    splice(folder, out, "--shard-clips", "2")


def test_a_killed_splicing_goes_on_to_the_same_bytes(place, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=slow, args=(place, tmp_path / "out"))
    process.start()
    while len(list((tmp_path / ".out.packing/folder").glob("*.arrow"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    first = tmp_path / ".out.packing/folder/train-00000-of-00004.arrow"
    written = first.stat().st_mtime_ns
    assert splice(place, tmp_path / "out", "--shard-clips", "2") == 0
    assert (tmp_path / "out" / first.name).stat().st_mtime_ns == written, "a finished shard is kept"
    assert splice(place, tmp_path / "whole", "--shard-clips", "2", "--signs", str(place / "out-signs")) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert contents(tmp_path / "out-signs") == contents(place / "out-signs")


def test_sentences_whose_glosses_no_signer_has_are_named(place, tmp_path, capsys):
    (tmp_path / "lexicon.csv").symlink_to(place / "lexicon.csv")
    more = "RED CHEESE\tRed cheese.\ttrain\nEAT HAM\tEat ham.\ttest\n"
    (tmp_path / "pairs.tsv").write_text(PAIRS + more, encoding="utf-8")
    words = ("--video-root", str(place), "--signs", str(place / "out-signs"))
    assert splice(tmp_path, tmp_path / "out", *words) == 2
    message = capsys.readouterr().err
    assert "line 7: no signer of train has CHEESE" in message and "line 8: no signer of test has HAM" in message
    assert "--on-error skip" in message and not (tmp_path / "out").exists()
    assert splice(tmp_path, tmp_path / "out", *words, "--on-error", "skip") == 0
    reasons = [cells["reason"] for _, cells in read_table(tmp_path / "out/skipped.tsv", ["reason"])]
    assert reasons == ["no signer of train has CHEESE", "no signer of test has HAM"]
    assert splice(tmp_path, tmp_path / "none", *words, "--check") == 1
    assert "no signer of train has CHEESE" in capsys.readouterr().out and not (tmp_path / "none").exists()


def test_glosses_that_no_one_signer_has_together_are_named(place, tmp_path, capsys):
    lines = (place / "lexicon.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.endswith((",RED,A", ",BREAD,B"))]
    (tmp_path / "lexicon.csv").write_text("\n".join(kept), encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text("glosses\tsentence\tsplit\nRED BREAD\tRed bread.\ttrain\n", encoding="utf-8")
    assert splice(tmp_path, tmp_path / "out", "--video-root", str(place), "--check") == 1
    printed = capsys.readouterr().out
    assert "no signer of train has RED, BREAD together" in printed, printed


def test_a_split_that_nobody_signs_for_is_named_with_the_remedy(place, tmp_path, capsys):
    words = ["prepare", "splice", "--lexicon", str(place / "lexicon.csv"), "--pairs", str(place / "pairs.tsv")]
    assert main([*words, "--test-signers", "C", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "line 5: no clip of the lexicon is for dev" in error and "--dev-signers" in error
    assert not list(tmp_path.iterdir())


def test_clips_with_times_are_taken_as_they_are_cut(place, tmp_path):
    (tmp_path / "lexicon.csv").write_text("video,gloss,start,end\n0/A-0.mp4,RED,0.4,1.2\n2/A-0.mp4,EAT,,\n")
    (tmp_path / "pairs.tsv").write_text("glosses\tsentence\tsplit\nRED EAT\tIt is red.\ttrain\n", encoding="utf-8")
    words = ["prepare", "splice", "--lexicon", str(tmp_path / "lexicon.csv"), "--pairs", str(tmp_path / "pairs.tsv")]
    words += ["--video-root", str(place), "--size", "24", "--workers", "0", "--renderings", "8"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    signs = Signs(tmp_path / "out-signs")
    assert [signs.seconds(id_) for id_ in signs.places] == pytest.approx([0.8, 2.0], abs=0.41)
    assert signs.moving["0/A-0_0.4-1.2"][0] == 0
    lengths = list(PackedCorpus(tmp_path / "out", "train").num_frames)
    assert len(lengths) == 8 and all(count > 10 for count in lengths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "absent.tsv"], "absent.tsv"),
        (["--renderings", "0"], "--renderings.*0"),
        (["--dev-signers", "C"], "signer C"),
        (["--test-signers", "Z"], "'Z'"),
    ],
)
def test_bad_use_is_refused_before_anything_is_packed(place, tmp_path, capsys, arguments, message):
    assert splice(place, tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in message.split(".*")) and not list(tmp_path.iterdir())


def test_a_pair_of_neighbours_alone_overlaps():
    begins, ends = spans([Piece("x", 0.0, 0.1 * n, 1.0) for n in (5, 1, 1, 7)])
    assert all(later >= earlier for (_, earlier), (later, _) in pairwise(list(zip(begins, ends, strict=True))[::2]))
