import pickle
import unicodedata

import pytest

from tests.corpora.corpus_trees import CSL_TEXTS, csl_daily, how2sign, phoenix14t
from training_fla.corpora.clips import FrameFolder, VideoFile
from training_fla.corpora.csl_daily import read_csl_daily, read_plain_pickle
from training_fla.corpora.how2sign import read_how2sign
from training_fla.corpora.phoenix14t import read_phoenix14t
from training_fla.corpora.registry import CORPORA
from training_fla.corpora.row import Reading
from training_fla.data.checking import check_corpus
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.data.packing import pack
from training_fla.errors import InputError


def shapes(row):
    return [frame.shape for frame in row.video.frames()]


@pytest.mark.parametrize("video_column", ["{name}/1/*.png", "{name}/*.png"])
def test_phoenix14t_is_read_from_the_release_or_the_folder_above(tmp_path, video_column):
    phoenix14t(tmp_path / "PHOENIX-2014-T-release-v3/PHOENIX-2014-T", video_column)
    rows = read_phoenix14t(tmp_path)
    assert [(row.id, row.split, row.signer) for row in rows] == [
        ("a-1", "train", "Signer00"), ("a-2", "train", "Signer01"),
        ("b-1", "dev", "Signer00"), ("c-1", "test", "Signer00"),
    ]  # fmt: skip
    assert rows[0].sentence == 'im norden " regen a-1'  # a quote mark is a quote mark
    assert {row.language for row in rows} == {"de_DE"}
    assert shapes(rows[0]) == [(18, 22, 3)] * 5  # without the stray file
    assert rows == read_phoenix14t(tmp_path / "PHOENIX-2014-T-release-v3/PHOENIX-2014-T")


def test_phoenix14t_packs_and_comes_back(tmp_path):
    rows = read_phoenix14t(phoenix14t(tmp_path / "root"))
    pack(rows, tmp_path / "out", size=16, num_workers=0, corpus="phoenix14t")
    corpus = PackedCorpus(tmp_path / "out", "train")
    assert corpus.num_frames == [5, 6]
    assert corpus.read_frames(1, [5]).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x|../../../../x/1/*.png|-1|-1|S|A|b", r"train.corpus.csv, line 4: path '\.\./"),
        ("x|/x/1/*.png|-1|-1|S|A|b", "train.corpus.csv, line 4: path '/x'"),
        ("x|x/1/*.png|-1|-1|S", "train.corpus.csv, line 4: .*5 cells.* 7"),
    ],
)
def test_bad_lines_of_phoenix14t_are_named(tmp_path, line, message):
    file = phoenix14t(tmp_path) / "annotations/manual/PHOENIX-2014-T.train.corpus.csv"
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_phoenix14t(tmp_path)


def test_folders_that_are_no_release_are_refused(tmp_path):
    with pytest.raises(InputError, match="annotations/manual"):
        read_phoenix14t(tmp_path)
    with pytest.raises(InputError, match="holds no how2sign_realigned_"):
        read_how2sign(tmp_path)
    with pytest.raises(InputError, match="absent"):
        read_csl_daily(tmp_path / "absent")
    phoenix14t(tmp_path / "one")
    phoenix14t(tmp_path / "two")
    with pytest.raises(InputError, match="one.*two"):
        read_phoenix14t(tmp_path)


@pytest.mark.parametrize("videos", [False, True])
@pytest.mark.parametrize("table", [False, True])
def test_csl_daily_is_read_in_both_forms_of_clips_and_labels(tmp_path, videos, table):
    reading = Reading()
    rows = read_csl_daily(csl_daily(tmp_path, videos, table), reading)
    # The listed clip without frames gave way to the unlisted one with frames, in its place.
    assert [(row.id, row.split) for row in rows] == [
        ("S000007_P0003_T00", "train"), ("S000001_P0000_T00", "train"),
        ("S000002_P0001_T00", "dev"), ("S000003_P0002_T00", "test"),
    ]  # fmt: skip
    assert [row.sentence for row in rows] == [CSL_TEXTS[row.id] for row in rows]
    assert [row.signer for row in rows] == ["P0003", "P0000", "P0001", "P0002"]
    assert [row.num_frames for row in rows] == [7, 4, 5, 6]
    assert isinstance(rows[0].video, VideoFile if videos else FrameFolder)
    assert [len(shapes(row)) for row in rows] == [7, 4, 5, 6]
    assert len(reading.notes) == 1 and "S000007_P0003_T00, in no list, takes its place" in reading.notes[0]


def test_csl_daily_without_its_gap_is_left_as_it_is(tmp_path):
    reading = Reading()
    rows = read_csl_daily(csl_daily(tmp_path, absent=()), reading)
    assert rows[0].id == "S000005_P0004_T00"
    assert not reading.notes


def test_csl_daily_lacking_both_clips_says_so(tmp_path):
    reading = Reading()
    rows = read_csl_daily(csl_daily(tmp_path, absent=("S000005_P0004_T00", "S000007_P0003_T00")), reading)
    assert rows[0].id == "S000005_P0004_T00" and rows[0].video.is_missing
    assert "as is known of CSL-Daily" in reading.notes[0]


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_names_of_releases_are_found_however_the_disk_spells_them(tmp_path, stored):
    def rename(path, old, new, *tables):
        path.rename(path.with_name(unicodedata.normalize(stored, path.name.replace(old, new))))
        for table in tables:
            text = table.read_text(encoding="utf-8").replace(old, unicodedata.normalize("NFC", new))
            table.write_text(text, encoding="utf-8")

    phoenix = phoenix14t(tmp_path / "phoenix")
    table = phoenix / "annotations/manual/PHOENIX-2014-T.dev.corpus.csv"
    rename(phoenix / "features/fullFrame-210x260px/dev/b-1", "b-1", "bär-1", table)
    sign = how2sign(tmp_path / "how2sign")
    rename(sign / "val_raw_videos/d-5-rgb_front.mp4", "d-5-", "dé-5-", sign / "how2sign_realigned_val.csv")
    daily = csl_daily(tmp_path / "csl", videos=True, table=True)
    tables = [daily / "sentence_label/split_1.txt", daily / "sentence_label/video_map.txt"]
    rename(daily / "sentence-crop/S000002_P0001_T00.mp4", "S000002", "ñ02", *tables)
    rows = [*read_phoenix14t(phoenix), *read_how2sign(sign), *read_csl_daily(daily)]
    assert not any(row.video.is_missing for row in rows)
    assert {"bär-1", "ñ02_P0001_T00"} <= {row.id for row in rows}


class Runs:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_refused_by_name_and_nothing_runs(tmp_path, capsys, protocol):
    file = csl_daily(tmp_path) / "sentence_label/csl2020ct_v2.pkl"
    file.write_bytes(pickle.dumps({"info": [Runs()]}, protocol))
    with pytest.raises(InputError, match=r"csl2020ct_v2.pkl.*(__builtin__|builtins)\.print"):
        read_csl_daily(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_from_a_pickle_of_any_protocol(tmp_path, protocol):
    data = {"info": [{"name": "ä", "length": 3, "n": -(2**70), "f": 0.5, "t": ("你", None, True, [])}], 3: {}}
    (tmp_path / "p").write_bytes(pickle.dumps(data, protocol))
    assert read_plain_pickle(tmp_path / "p") == data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: EOFError"),
        (pickle.dumps({"info": [{"name": "a"}]})[:-5], "is damaged"),
        (pickle.dumps([1]), "`info`"),
        (pickle.dumps({"info": [{"length": 3}]}), "info 0: .*name"),
        (pickle.dumps({"info": [{"name": "a"}]}), "info 0: clip 'a' .*`label_char`"),
        (b"\x80\x02U\x01aU\x01b\x85R.", "is damaged: TypeError"),  # calls a string
        (b"\x80\x02]r\xff\xff\xff\x7fX\xff\xff\xff\xff.", "is damaged"),  # a memo of 2 billion entries
    ],
)
def test_damaged_labels_of_csl_daily_are_refused(tmp_path, content, message):
    (csl_daily(tmp_path) / "sentence_label/csl2020ct_v2.pkl").write_bytes(content)
    with pytest.raises(InputError, match="csl2020ct_v2.pkl.*" + message):
        read_csl_daily(tmp_path)


def test_clips_of_csl_daily_cannot_leave_the_root(tmp_path):
    file = csl_daily(tmp_path) / "sentence_label/csl2020ct_v2.pkl"
    file.write_bytes(pickle.dumps({"info": [{"name": "../../x", "label_char": ["x"]}]}))
    (tmp_path / "sentence_label/split_1.txt").write_text("name|split\n../../x|train\n")
    with pytest.raises(InputError, match=r"path '\.\./\.\./x'"):
        read_csl_daily(tmp_path)


@pytest.mark.parametrize(("delimiter", "newline"), [("\t", "\r\n"), ("\t", "\n"), (",", "\n")])
def test_how2sign_is_cut_at_the_realigned_times(tmp_path, delimiter, newline):
    rows = read_how2sign(how2sign(tmp_path, delimiter, newline))
    assert [(row.split, row.id) for row in rows] == [
        (split, f"{name}_{number}-5-rgb_front")
        for split, name in (("train", "-aB_1"), ("train", "c"), ("dev", "d"), ("test", "e"))
        for number in range(2)
    ]
    assert rows[0].sentence == 'Say "hi, -aB_1.'  # an unpaired quote mark stays
    assert rows[1].sentence == 'Then "go", -aB_1.'  # a spreadsheet's quotes go
    assert rows[1].video == VideoFile(tmp_path / "train_raw_videos/-aB_1-5-rgb_front.mp4", 1.2, 2.1)
    assert [len(shapes(row)) for row in rows[:2]] == [20, 16]  # the second ends with its video, at 2.0 s
    assert (rows[0].signer, rows[0].language) == ("5", "en_XX")


def test_how2signs_released_clips_are_used_when_asked_with_a_warning(tmp_path):
    reading = Reading()
    rows = read_how2sign(how2sign(tmp_path, clips=True), reading, released_clips=True)
    assert [len(shapes(row)) for row in rows[:2]] == [7, 8]
    assert "cut at the unaligned times" in reading.notes[0]


def test_how2sign_without_full_videos_points_to_the_clips(tmp_path):
    how2sign(tmp_path, clips=True)
    for folder in tmp_path.glob("*_raw_videos"):
        for file in folder.iterdir():
            file.unlink()
    reading = Reading()
    rows = read_how2sign(tmp_path, reading)
    assert all(row.video.is_missing for row in rows)
    assert "--released-clips takes those" in reading.notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x\tx\tx\tx\tsoon\t2\tHi.", "line 4: '(soon|nan)'.*time"),
        ("x\tx\tx\tx\t1\tnan\tHi.", "line 4: '(soon|nan)'.*time"),
        ("x\t../../x\tx\tx\t1\t2\tHi.", r"line 4: path '\.\./\.\./x\.mp4' leaves"),
        ("x\tx\tx", "line 4: .*3 cells.* 7"),
    ],
)
def test_bad_lines_of_how2sign_are_named(tmp_path, line, message):
    file = how2sign(tmp_path) / "how2sign_realigned_val.csv"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(InputError, match="how2sign_realigned_val.csv, " + message):
        read_how2sign(tmp_path)


def test_videos_that_link_out_of_the_root_are_refused(tmp_path):
    how2sign(tmp_path / "root")
    video = tmp_path / "root/val_raw_videos/d-5-rgb_front.mp4"
    video.rename(tmp_path / "outside.mp4")
    video.symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(InputError, match=r"d-5-rgb_front\.mp4"):
        read_how2sign(tmp_path / "root")


def test_a_check_names_everything_that_is_amiss(tmp_path):
    root = phoenix14t(tmp_path)
    frames = root / "features/fullFrame-210x260px"
    file = root / "annotations/manual/PHOENIX-2014-T.dev.corpus.csv"
    lines = ["gone|gone/1/*.png|-1|-1|S|A|b", "b-1|b-1/1/*.png|-1|-1|S|A|"]
    file.write_text(file.read_text(encoding="utf-8") + "\n".join(lines) + "\n", encoding="utf-8")
    (frames / "test/unlisted").mkdir()
    (frames / "test/c-1/images0001.png").write_bytes(b"no image")
    expected = {"train": 2, "dev": 2, "test": 2}
    report = check_corpus(read_phoenix14t(root), expected, CORPORA["phoenix14t"].media(root), num_workers=0)
    assert report.count_differences == ["dev: 3 rows instead of 2", "test: 1 row instead of 2"]
    assert report.missing == [f"dev gone: {frames}/dev/gone"]
    assert report.empty_sentences == ["dev b-1"]
    assert report.duplicates == ["dev b-1: 2 times"]
    assert report.extra == [f"{frames}/test/unlisted"]
    assert len(report.unreadable) == 1 and "images0001.png is not a readable image" in report.unreadable[0]
    assert report.frames == {"train": [5, 6], "dev": [3, 3]}
    assert not report.is_clean
    assert "train: 2 rows; frames 5 to 6, median 6; words 5 to 5, median 5" in report.lines()


def test_a_check_compares_lengths_with_the_annotation(tmp_path):
    root = csl_daily(tmp_path / "csl")
    (root / "sentence/frames_512x512/S000002_P0001_T00/000004.jpg").unlink()
    report = check_corpus(read_csl_daily(root), None, CORPORA["csl_daily"].media(root), num_workers=1)
    assert report.length_differences == ["dev S000002_P0001_T00: 4 frames instead of 5"]
    assert report.words["dev"] == [6]  # characters, as Chinese has no spaces
    root = how2sign(tmp_path / "h2s")
    file = root / "how2sign_realigned_test.csv"
    times = {"e_7": "1.5\t3.0", "e_8": "1.5\t2.3", "e_9": "7.0\t8.0"}
    late = [f"e\te-5-rgb_front\t{name}\t{name}\t{written}\tHi." for name, written in times.items()]
    file.write_text(file.read_text() + "\n".join(late) + "\n")
    report = check_corpus(read_how2sign(root), None, CORPORA["how2sign"].media(root), num_workers=0)
    assert report.length_differences == ["test e_8: it ends at 2.3 s, its video at 2.00 s"]
    late = "its frames end at 1.95 s, but it is to end at 3.0 s, after the end of its video"
    assert report.unreadable == [
        f"test e_7: {late}",  # half of a sentence is none
        "test e_9: it starts at 7.0 s, after the end of its video at 2.00 s",
    ]
    assert not report.extra and not report.missing


@pytest.mark.real_data
def test_the_real_annotations_are_read_whole(real_data, tmp_path):
    rows = read_phoenix14t(real_data / "phoenix2014t")
    counts = {split: sum(row.split == split for row in rows) for split in ("train", "dev", "test")}
    assert counts == CORPORA["phoenix14t"].expected
    assert all(row.sentence and row.signer.startswith("Signer") for row in rows)
    assert rows[0].video.path.name == rows[0].id
    for split in ("val", "test"):
        name = f"how2sign_realigned_{split}.csv"
        (tmp_path / name).write_bytes((real_data / "how2sign" / name).read_bytes())
    rows = read_how2sign(tmp_path)
    counts = {split: sum(row.split == split for row in rows) for split in ("dev", "test")}
    assert counts == {"dev": 1741, "test": 2357}
    assert all(row.video.end_seconds > row.video.start_seconds for row in rows)
    assert not any(row.sentence.startswith('"') and row.sentence.count('""') for row in rows)


@pytest.mark.real_data
def test_the_real_csl_daily_sentences_survive_the_official_form(real_data, tmp_path):
    """The release's own label files are not to be had: the same names and sentences are put into their form."""
    infos, lines, sentences = [], ["name|split"], {}
    for split in ("train", "dev", "test"):
        for line in (real_data / f"csl_daily/{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            name, _, text = line.split("\t")
            infos.append({"name": name, "length": 100, "label_char": list(text)})
            lines.append(f"{name}|{split}")
            sentences[name] = text
    labels = tmp_path / "sentence_label"
    labels.mkdir()
    (labels / "csl2020ct_v2.pkl").write_bytes(pickle.dumps({"info": infos}))
    (labels / "split_1.txt").write_text("\n".join(lines) + "\n")
    rows = read_csl_daily(tmp_path)
    assert {split: sum(row.split == split for row in rows) for split in ("train", "dev", "test")} == (
        CORPORA["csl_daily"].expected
    )
    assert all(row.sentence == " ".join(sentences[row.id].split()) for row in rows)
