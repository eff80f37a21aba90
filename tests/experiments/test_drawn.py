import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.drawn import signs as demo_signs
from experiments.drawn.broad_text import broad_text
from experiments.drawn.demo import demo_text, read_demo
from experiments.drawn.drawing import Signing
from experiments.drawn.grammar import (
    GLOSSES,
    WEATHER,
    Statement,
    sample_report,
    single_sign_reports,
    split_of_sentence,
)
from experiments.drawn.pairs import phoenix_text, read_pairs, read_phoenix_pairs
from experiments.drawn.signs import DEMO_SIGNS, HAND_FORMS, Sign, sign_of_gloss, signs_of_glosses
from training_fla.corpora.clips import DrawnVideo
from training_fla.errors import InputError


@pytest.fixture(scope="module")
def rows():
    return read_demo(seed=3, num_train=300, num_dev=40, num_test=50, size=32)


def frames_of(row):
    return np.stack(list(row.video.frames()))


def picture_of_sign(sign: Sign, signer: str = "someone", clip_id: str = "clip", size: int = 32) -> np.ndarray:
    """Its sampled frames as a vector, gloves only: how red and how blue each spot is."""
    frames = Signing((sign,), signer, clip_id, size, seed=0)()
    frames = frames[np.linspace(4, len(frames) - 6, 4).round().astype(int)].astype(np.float32) / 255
    gloves = np.stack([frames[..., 0] - frames[..., 2], frames[..., 2] - frames[..., 0]], axis=-1)
    return gloves.clip(0.3, 1).ravel() - 0.3


# --- the corpus


def test_rows_are_drawn_clips_with_the_counts_asked_for(rows):
    assert [sum(row.split == split for row in rows) for split in ("train", "dev", "test")] == [300, 40, 50]
    assert len({row.id for row in rows}) == 390
    assert {row.language for row in rows} == {"de_DE"}
    assert all(isinstance(row.video, DrawnVideo) and row.video.fps == 25 for row in rows)


def test_frames_are_uint8_rgb_of_the_size_and_number_the_row_says(rows):
    for row in (rows[0], rows[299], rows[-1]):
        frames = frames_of(row)
        assert frames.dtype == np.uint8
        assert frames.shape == (row.num_frames, 32, 32, 3)


def test_bare_hands_have_the_colour_of_the_face_and_all_else_stays():
    gloved, bare = (read_demo(num_train=4, num_dev=0, num_test=0, size=32, gloves=gloves) for gloves in (True, False))
    for with_gloves, without in zip(gloved, bare, strict=True):
        first, second = (frames_of(row).astype(int) for row in (with_gloves, without))
        red, blue = ([sign * (frames[..., 0] - frames[..., 2]) for frames in (first, second)] for sign in (1, -1))
        assert red[0].max() > 150 > 110 > red[1].max(), "skin is no glove"
        assert blue[0].max() > 150 and blue[1].max() < 110
        assert first.shape == second.shape and 0.01 < (first != second).any(axis=-1).mean() < 0.3


def test_every_size_shows_the_same_clip():
    small, large = (frames_of(read_demo(num_train=1, num_dev=0, num_test=0, size=size)[0]) for size in (40, 80))
    shrunk = large.reshape(len(large), 40, 2, 40, 2, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - small).mean() < 6


def test_a_seed_gives_the_same_frames_in_another_process():
    script = (
        "import hashlib; from experiments.drawn.demo import read_demo, demo_text\n"
        "from experiments.drawn.broad_text import broad_text\n"
        "rows = read_demo(seed=5, num_train=3, num_dev=1, num_test=1, size=24)\n"
        "digest = hashlib.sha256()\n"
        "for row in rows:\n"
        "    digest.update(repr((row.id, row.sentence, row.signer)).encode() + row.video.draw().tobytes())\n"
        "digest.update(repr((demo_text(5, 50), broad_text(5, 50))).encode())\n"
        "print(digest.hexdigest())"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_another_seed_gives_other_sentences_and_other_looks():
    first, second = (read_demo(seed=seed, num_train=20, num_dev=0, num_test=0, size=24) for seed in (0, 1))
    assert [row.sentence for row in first] != [row.sentence for row in second]
    sign = (DEMO_SIGNS["REGEN"],)
    assert not np.array_equal(*(Signing(sign, "a", "b", 24, seed)()[0] for seed in (0, 1)))


def test_a_clip_draws_itself_in_another_process(rows):
    copy = pickle.loads(pickle.dumps(rows[7].video.draw))
    assert np.array_equal(copy(), frames_of(rows[7]))


def test_no_signer_and_no_longer_sentence_stands_in_two_splits(rows):
    for kind in ("signer", "sentence"):
        train, dev, test = ({getattr(row, kind) for row in rows if row.split == s} for s in ("train", "dev", "test"))
        assert not train & dev and not train & test and not dev & test
    assert len({row.signer for row in rows if row.split == "train"}) >= 40


def test_train_shows_every_sign_alone_and_dev_and_test_show_none_alone(rows):
    alone = {row.sentence for row in rows if row.split == "train" and len(row.video.draw.signs) == 1}
    assert alone == {report.sentence for report in single_sign_reports()}
    assert all(2 <= len(row.video.draw.signs) <= 6 for row in rows if row.split != "train")


def test_dev_and_test_use_only_words_that_train_has():
    rows = read_demo(seed=0)
    words = {
        split: {w for row in rows if row.split == split for w in row.sentence.split()} for split in ("train", "dev")
    }
    words["test"] = {word for row in rows if row.split == "test" for word in row.sentence.split()}
    assert words["dev"] | words["test"] <= words["train"]


def test_clips_are_short_enough_for_a_quick_demo():
    lengths = [row.num_frames for row in read_demo(seed=0, num_dev=0, num_test=0)]
    assert 40 < np.mean(lengths) < 60
    assert min(lengths) >= 12  # three sampled frames at the frame stride of 4


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="num_dev must be 0 or more, got -1"):
        read_demo(num_dev=-1)
    with pytest.raises(InputError, match="at least 16 pixels a side, got 8"):
        read_demo(size=8)
    with pytest.raises(InputError, match="seed must be 0 or more, got -2"):
        read_demo(seed=-2)


# --- the grammar


def test_german_word_order_is_not_the_sign_order():
    warm = Statement("WARM", ("MORGEN",), ("SÜD",), number="ZWANZIG")
    assert warm.glosses() == ("MORGEN", "SÜD", "WARM", "GRAD", "ZWANZIG")
    assert warm.sentence() == "morgen wird es im süden bei zwanzig grad warm"
    fog = Statement("NEBEL", ("NACHT",), ("BERG",), strength="STARK", polarity="MÖGLICH")
    assert fog.sentence() == "in der nacht kann es in den bergen dichten nebel geben"
    clouds = Statement("WOLKE", (), ("NORD", "WEST"), strength="STARK")
    assert clouds.sentence() == "im nordwesten ziehen dichte wolken auf"
    assert Statement("STURM", polarity="NICHT").sentence() == "es kommt kein sturm"


def test_no_two_sequences_of_signs_have_the_same_sentence():
    rng = np.random.default_rng(0)
    reports = [sample_report(rng, num_signs) for num_signs in (2, 3, 4, 5, 6) for _ in range(800)]
    assert all(len(report.glosses) <= 6 for report in reports)
    glosses_of = {}
    for report in (*reports, *single_sign_reports()):
        assert glosses_of.setdefault(report.sentence, report.glosses) == report.glosses


def test_a_tenth_of_the_sentences_each_is_for_dev_and_for_test():
    rng = np.random.default_rng(0)
    splits = [split_of_sentence(sample_report(rng, 5).sentence) for _ in range(1000)]
    assert 0.07 < splits.count("dev") / 1000 < 0.14 and 0.07 < splits.count("test") / 1000 < 0.14


# --- the signs


def test_every_gloss_of_the_grammar_has_a_sign_of_its_own():
    assert set(DEMO_SIGNS) == set(GLOSSES) and set(WEATHER) < set(GLOSSES)
    assert len(set(DEMO_SIGNS.values())) == len(GLOSSES)
    assert {sign.hands for sign in DEMO_SIGNS.values()} == {"one", "mirrored", "opposed", "base"}


def test_the_signs_of_new_signers_are_nearest_to_the_same_signs_of_known_signers():
    known = [[picture_of_sign(s, f"train-{i}", f"{n}{i}") for i in range(8)] for n, s in DEMO_SIGNS.items()]
    templates = np.array(known).mean(axis=1)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    hits = [
        np.argmax(templates @ picture_of_sign(sign, f"test-{signer}", name)) == index
        for index, (name, sign) in enumerate(DEMO_SIGNS.items())
        for signer in range(3)
    ]
    assert np.mean(hits) > 0.9


def test_hands_stay_inside_a_crop_of_four_fifths_while_they_sign():
    for signer in range(12):
        for name in ("NORD", "SÜD", "WEST", "STURM", "SCHNEE", "KALT", "OST", "WIND", "GEWITTER"):
            frames = Signing((DEMO_SIGNS[name],), f"signer-{signer}", name, 40, seed=0)()[5:14].astype(int)
            red = (frames[..., 0] - frames[..., 1:3].max(axis=-1)) > 90
            for frame in red:
                rows, columns = np.nonzero(frame)
                assert 4 <= rows.mean() <= 36 and 4 <= columns.mean() <= 36, (signer, name)


def test_hundreds_of_glosses_stay_distinguishable():
    signs = signs_of_glosses(f"GLOSSE-{index}" for index in range(400))
    assert len(set(signs.values())) == 400
    # The same signer in the same clip, so that nothing but the sign differs.
    pictures = np.stack([picture_of_sign(sign) for sign in signs.values()])
    squares = (pictures**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * pictures @ pictures.T, 0))
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 2  # a glove counts up to 0.7 in a pixel: this is eight whole pixels of 32 x 32


def test_a_gloss_keeps_its_sign_in_every_table():
    alone = signs_of_glosses(["SONNE"])["SONNE"]
    assert alone == sign_of_gloss("SONNE") == signs_of_glosses(["ZUG", "SONNE", "ABER", "SONNE"])["SONNE"]
    assert alone != sign_of_gloss("SONNE", attempt=1)


def test_a_gloss_whose_sign_is_taken_gets_its_next_one(monkeypatch):
    first, second = Sign(HAND_FORMS[0], "chin", "up"), Sign(HAND_FORMS[1], "chin", "up")
    monkeypatch.setattr(demo_signs, "sign_of_gloss", lambda gloss, attempt: (first, second)[attempt])
    assert signs_of_glosses(["B", "A"]) == {"A": first, "B": second}


# --- gloss tables


def write(folder, text, name="pairs.tsv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_table_of_two_columns_is_drawn_line_by_line(tmp_path):
    lines = [f"ICH SEHEN{index} BAUM\tich sehe baum {index}\n" for index in range(20)]
    rows = read_pairs(write(tmp_path, "".join(lines)), size=24)
    assert [row.sentence for row in rows] == [f"ich sehe baum {index}" for index in range(20)]
    assert sorted(row.split for row in rows) == ["dev"] * 2 + ["test"] * 2 + ["train"] * 16
    assert all(row.signer.startswith(row.split) for row in rows)
    assert rows[0].id == "pairs-000001"
    assert frames_of(rows[0]).shape == (rows[0].num_frames, 24, 24, 3)
    first, second = rows[0].video.draw.signs, rows[1].video.draw.signs
    assert (first[0], first[2]) == (second[0], second[2]) and first[1] != second[1]


def test_a_header_may_order_and_name_the_columns_its_own_way(tmp_path):
    text = "\ufeffname\torth\tspeaker\tnote\ttranslation\tsplit\r\nc1\tA B\tSigner08\tx\tguten tag\tval\r\n\r\n"
    (row,) = read_pairs(write(tmp_path, text), language="de_AT")
    assert (row.id, row.sentence, row.split, row.signer, row.language) == (
        "c1",
        "guten tag",
        "dev",
        "Signer08",
        "de_AT",
    )
    assert len(row.video.draw.signs) == 2


def test_columns_without_a_header_stand_in_a_fixed_order(tmp_path):
    (row,) = read_pairs(write(tmp_path, "A\tja\ttest\tclip7\tanna\n"))
    assert (row.sentence, row.split, row.id, row.signer) == ("ja", "test", "clip7", "anna")


def test_a_sentence_is_dealt_to_the_same_split_wherever_it_stands(tmp_path):
    lines = [f"A{index}\tsatz {index}\n" for index in range(30)]
    forwards = read_pairs(write(tmp_path, "".join(lines)))
    backwards = read_pairs(write(tmp_path, "".join(reversed(lines)), "other.tsv"))
    assert {row.sentence: row.split for row in forwards} == {row.sentence: row.split for row in backwards}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A\tja\nB nein\n", r"pairs.tsv, line 2: expected glosses, a tab and a sentence, got 'B nein'"),
        ("A\tja\n\n\tnein\n", r"line 3: no gloss before the sentence 'nein'"),
        ("A B\t \n", r"line 1: no sentence after the glosses 'A B'"),
        ("A\tja\tfoo\n", r"line 1: unknown split 'foo'"),
        ("A\tja\ttrain\tx\nB\tjo\ttrain\tx\n", r"line 2: id 'x' is already that of line 1"),
        ("A\tja\ttrain\tx\ty\tz\n", r"line 1: expected glosses, a tab and a sentence, got 'A ja train x y z'"),
        ("gloss\tsentence\nA\tja\tnein\n", r"line 2: the row has 3 cells, the header 2"),
        ("gloss\tsentence\n", r"pairs.tsv has no row of glosses"),
        ("", r"pairs.tsv is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_pairs(write(tmp_path, text))


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read .*missing.tsv: No such file"):
        read_pairs(tmp_path / "missing.tsv")
    with pytest.raises(InputError, match="pairs.tsv, line 2: not UTF-8"):
        read_pairs(write(tmp_path, "A\tja\nB\tschön\n", encoding="latin-1"))


@pytest.mark.real_data
@pytest.mark.skipif("FLA_REAL_DATA" not in os.environ, reason="FLA_REAL_DATA is not set")
def test_phoenix14t_annotation_becomes_a_table(tmp_path):
    annotation = Path(os.environ["FLA_REAL_DATA"]) / "phoenix2014t/annotations/manual/PHOENIX-2014-T.train.corpus.csv"
    rows = read_pairs(write(tmp_path, annotation.read_text(encoding="utf-8"), "phoenix.csv"))
    assert len(rows) == 7096
    glosses = {gloss for line in annotation.read_text().splitlines()[1:] for gloss in line.split("|")[5].split()}
    assert len({sign for row in rows for sign in row.video.draw.signs}) == len(glosses) > 1000


def phoenix(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    """Annotation files of PHOENIX14T with rows of split, glosses and sentence; no frames."""
    header = "name|video|start|end|speaker|orth|translation"
    (folder / "annotations/manual").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        cells = [(f"{split}-{n}", f"{split}-{n}/1/*.png", -1, -1, "Signer01", g, s) for n, (w, g, s) in enumerate(rows)
                 if w == split]  # fmt: skip
        text = "\n".join([header, *("|".join(map(str, row)) for row in cells), ""])
        (folder / f"annotations/manual/PHOENIX-2014-T.{split}.corpus.csv").write_text(text, encoding="utf-8")
    return folder


PHOENIX = [
    ("train", "REGEN REGEN SUED", "regen im süden"),
    ("train", "REGEN SONNE", "regen und sonne"),
    ("train", "", "guten abend"),
    ("dev", "SUED REGEN", "im süden regen"),
    ("test", "SONNE", "regen und sonne"),
    ("test", "REGEN NEBEL", "regen und nebel"),
]


def test_phoenix14t_is_drawn_from_its_annotation_files_alone(tmp_path):
    rows = read_phoenix_pairs(phoenix(tmp_path, PHOENIX), size=24)
    assert [(row.split, row.glosses) for row in rows] == [(split, glosses) for split, glosses, _ in PHOENIX if glosses]
    assert all(row.signer.startswith(f"{row.split}-signer") for row in rows), "drawn signers, of one split each"
    assert frames_of(rows[0]).shape == (rows[0].num_frames, 24, 24, 3)
    first, second = rows[0].video.draw.signs[:2]
    assert first == second and len({sign for row in rows for sign in row.video.draw.signs}) == 4


def test_only_clips_of_the_commonest_training_glosses_are_kept(tmp_path):
    root = phoenix(tmp_path, PHOENIX)
    # REGEN comes three times; SONNE and SUED once, and the alphabet decides.
    assert [row.glosses for row in read_phoenix_pairs(root, 2)] == ["REGEN SONNE", "SONNE"]
    with pytest.raises(InputError, match="hold no glosses in a column `orth`"):
        read_phoenix_pairs(phoenix(tmp_path / "bare", [("train", "", "guten abend")]))


def test_text_of_phoenix14t_holds_no_sentence_of_dev_or_test(tmp_path):
    assert phoenix_text(phoenix(tmp_path, PHOENIX)) == ["regen im süden", "guten abend"]


@pytest.mark.real_data
@pytest.mark.skipif("FLA_REAL_DATA" not in os.environ, reason="FLA_REAL_DATA is not set")
@pytest.mark.parametrize(("num_glosses", "counts"), [(60, [749, 54, 81]), (None, [7096, 519, 642])])
def test_the_drawn_benchmark_has_the_counts_of_phoenix14t(num_glosses, counts):
    rows = read_phoenix_pairs(Path(os.environ["FLA_REAL_DATA"]) / "phoenix2014t", num_glosses)
    assert [sum(row.split == split for row in rows) for split in ("train", "dev", "test")] == counts
    train = [row for row in rows if row.split == "train"]
    glosses = {gloss for row in train for gloss in row.glosses.split()}
    assert len({sign for row in train for sign in row.video.draw.signs}) == len(glosses)
    if num_glosses:
        assert len({word for row in train for word in row.sentence.split()}) == 690
        assert not {row.sentence for row in train} & {row.sentence for row in rows if row.split == "test"}
    else:
        assert len(glosses) == 1085


# --- text


def test_text_for_denoising_holds_no_sentence_of_dev_or_test():
    text = demo_text(seed=11, num_sentences=3000)
    assert len(text) == len(set(text)) > 2500
    held_out = {row.sentence for row in read_demo(seed=4, num_train=0)}
    assert not held_out & set(text)
    assert {report.sentence for report in single_sign_reports()} <= set(text)


def test_denoising_text_has_every_word_of_the_grammar():
    rng = np.random.default_rng(0)
    words = {word for _ in range(2000) for word in sample_report(rng, 5).sentence.split()}
    assert words <= {word for sentence in demo_text() for word in sentence.split()}


def test_broad_text_has_thousands_of_words_every_letter_and_punctuation():
    text = broad_text(num_sentences=6000)
    letters = set("".join(text))
    assert set("abcdefghijklmnopqrstuvwxyzäöüß.,?!;:-") <= letters
    assert not any(letter.isdigit() or letter.isupper() for letter in letters)
    words = {word.strip(".,?!;:-") for sentence in text for word in sentence.split()}
    assert len(words) >= 3000
    assert {"siebenundzwanzig", "zeichnest", "fotografiert"} <= words
