"""Features that another program made: files of every kind in, a feature corpus out, bad rows named by row."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training_fla.cli import main
from training_fla.corpora.feature_files import load_features
from training_fla.data import feature_store
from training_fla.data.feature_store import open_features
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.errors import InputError
from training_fla.folders import read_marker

C = 5
SPLITS = ("train", "train", "train", "dev", "test")


def array(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(number + 1, C)).astype(np.float32)


@pytest.fixture
def table(tmp_path) -> Path:
    """Five clips of one to five positions, each saved in another way."""
    folder = tmp_path / "clips"
    folder.mkdir()
    np.save(folder / "0.npy", array(0))
    np.save(folder / "1.npy", array(1)[None].astype(np.float64))
    np.savez(folder / "2.npz", other=np.zeros(3), features=array(2)[:, :, None, None])
    torch.save(torch.tensor(array(3)).half(), folder / "3.pt")
    save_file({"x": torch.tensor(array(4))}, folder / "4.safetensors")
    suffixes = ["npy", "npy", "npz", "pt", "safetensors"]
    rows = [f"clips/{n}.{suffix},Satz {n}.,{SPLITS[n]},s{n}" for n, suffix in enumerate(suffixes)]
    (tmp_path / "table.csv").write_text("\n".join(["features,sentence,split,signer", *rows]))
    return tmp_path / "table.csv"


def prepare(table: Path, out: Path, *words) -> int:
    return main(["prepare", "features", "--root", str(table), "--out", str(out), *map(str, words)])


def test_every_kind_of_file_is_stored_as_it_is(table, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(table, out, "--extractor", "I3D of\nBOBSL", "--language", "de_DE", "--of", "phoenix14t") == 0
    assert "stored 5 clips, C = 5" in capsys.readouterr().err
    known = iter(map(array, range(5)))
    for split in ("train", "dev", "test"):
        corpus = PackedCorpus(out, split)
        assert (corpus.feature_size, corpus.extractor) == (C, "I3D of BOBSL")
        assert (corpus.corpus, corpus.language) == ("phoenix14t", "de_DE")
        cache = open_features(corpus)
        assert len(cache) == len(corpus) == SPLITS.count(split)
        for index, length in enumerate(corpus.num_frames):
            torch.testing.assert_close(cache[index], torch.tensor(next(known)), rtol=1e-3, atol=1e-3)
            assert length == len(cache[index]) and cache[index].dtype == torch.float32
    corpus = PackedCorpus(out, "train")
    assert list(corpus.ids) == ["clips/0", "clips/1", "clips/2"] and list(corpus.signers) == ["s0", "s1", "s2"]
    assert (out / "train.sentences.txt").read_text() == "Satz 0.\nSatz 1.\nSatz 2.\n"
    assert read_marker(out)["kind"] == "corpus" and not list(tmp_path.glob(".*"))
    assert main(["prepare", "features", "--out", str(out), "--verify"]) == 0


def test_hdf5_is_read_where_h5py_is_there(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    for name, arrays in {"one": ["a/b"], "many": ["features", "fps"], "none": [], "two": ["x", "y/z"]}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for number, place in enumerate(arrays):
                file[place] = array(3 - number)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "one.h5").read_bytes()[:300])
    for name in ("one", "many"):
        assert torch.equal(load_features(tmp_path / f"{name}.h5"), torch.tensor(array(3)))
    for name, reason in {"none": "holds nothing", "two": "holds x, y/z: call one", "cut": "cannot be read: "}.items():
        with pytest.raises(InputError, match=f"{name}.h5 {reason}"):
            load_features(tmp_path / f"{name}.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="`pip install h5py`"):
        load_features(tmp_path / "one.h5")


def test_names_of_feature_files_may_lack_their_suffix_and_lie_elsewhere(table, tmp_path):
    text = table.read_text().replace(".npz", "").replace(".safetensors", "").replace("features,", "i3d,", 1)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/t.csv").write_text(text)
    options = ("--features-root", tmp_path, "--features-column", "i3d")
    assert prepare(tmp_path / "tables/t.csv", tmp_path / "out", *options) == 0
    assert list(PackedCorpus(tmp_path / "out", "train").ids) == ["clips/0", "clips/1", "clips/2"]


def test_one_position_in_so_many_in_half_precision(table, tmp_path):
    assert prepare(table, tmp_path / "out", "--frame-stride", 2, "--dtype", "bfloat16") == 0
    corpus = PackedCorpus(tmp_path / "out", "test")
    stored = open_features(corpus)[0]
    assert stored.dtype == torch.bfloat16 and list(corpus.num_frames) == [3]
    assert torch.equal(stored, torch.tensor(array(4)[::2]).bfloat16())


def test_a_corpus_is_replaced_only_when_asked_and_only_a_whole_one_appears(table, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(table, out) == 0
    before = (out / "manifest.json").read_bytes()
    assert prepare(table, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    np.save(tmp_path / "clips" / "0.npy", np.full((2, C), np.nan))
    assert prepare(table, out, "--overwrite") == 2
    assert (out / "manifest.json").read_bytes() == before and not list(tmp_path.glob(".out*"))
    np.save(tmp_path / "clips" / "0.npy", array(7))
    assert prepare(table, out, "--overwrite") == 0
    assert (out / "manifest.json").read_bytes() != before
    assert prepare(table, tmp_path, "--overwrite") == 2
    assert "table.csv, which is read: choose another folder" in capsys.readouterr().err


def test_damage_is_named_with_its_remedy(table, tmp_path, capsys):
    assert prepare(table, tmp_path / "out") == 0
    file = tmp_path / "out" / "test" / "features-00000-of-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    with pytest.raises(InputError, match="clip 0; prepare"):
        open_features(PackedCorpus(tmp_path / "out", "test"))[0]
    assert main(["prepare", "features", "--out", str(tmp_path / "out"), "--verify"]) == 1
    assert "features-00000-of-00001.safetensors is damaged: its hash" in capsys.readouterr().out


BAD = {
    "nan.npy": (lambda file: np.save(file, np.array([[1.0] * C, [np.nan] * C])), "holds NaN, infinity or"),
    "complex.npy": (lambda file: np.save(file, np.ones((2, C), complex)), "holds NaN, infinity or complex numbers"),
    "rank.npy": (
        lambda file: np.save(file, np.zeros((2, 3, C))),
        "has shape (2, 3, 5), not (N, C): reshape to (2, 15)",
    ),
    "pose.npy": (
        lambda file: np.save(file, np.zeros((9, 1, 7, 3))),
        "has 9 frames of 7 points; shoulders are to be 11 and 12: see --shoulders",
    ),
    "cut.safetensors": (lambda file: file.write_bytes(b"0"), "cannot be read: "),
    "shard.safetensors": (
        lambda file: save_file({str(n): torch.zeros(2, C) for n in range(9)}, file),
        "holds 0, 1, 2, 3, 4 and 4 more: call one array `features`",
    ),
    "vector.npy": (lambda file: np.save(file, np.zeros(C)), r"has shape (5,), not (N, C)"),
    "empty.npy": (lambda file: np.save(file, np.zeros((0, C))), r"has shape (0, 5), not (N, C)"),
    "size.npy": (lambda file: np.save(file, np.zeros((3, 4))), "has C = 4, most have 5"),
    "pickle.npy": (lambda file: np.save(file, np.array([{}])), "cannot be read: "),
    "text.npy": (lambda file: file.write_text("0.1 0.2"), "cannot be read: "),
    "none.npz": (lambda file: file.write_bytes(b""), "cannot be read: "),
    "two.npz": (lambda file: np.savez(file, a=np.zeros(3), b=np.zeros(2)), "holds a, b: call one array `features`"),
    "code.pt": (lambda file: torch.save(Path("x"), file), "holds more than tensors: save its array alone"),
    "gone.npy": (lambda file: None, "there is no file"),
    "folder.npy": (lambda file: file.mkdir(), "there is no file"),
    "clip.mp4": (
        lambda file: file.write_bytes(b"0"),
        "is not a .npy, .npz, .pt, .safetensors, .pose, .h5 or",
    ),
}


def test_all_bad_rows_are_named_at_once_or_left_out(table, tmp_path, capsys):
    text, clips = table.read_text(), tmp_path / "clips"
    for name, (make, _) in BAD.items():
        make(clips / name)
        text += f"\nclips/{name},Satz.,train,s"
    table.write_text(f"{text}\nclips/0.npy,,dev,s\n")
    assert prepare(table, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()
    for line, (name, (_, reason)) in enumerate(BAD.items(), start=7):
        assert f"line {line}: {clips / name} {reason}" in error or f"line {line}: {reason} {clips / name}" in error
    assert f"line {len(BAD) + 7}: the sentence is empty" in error
    assert f"{len(BAD) + 1} bad rows in all; `--on-error skip` goes on without them" in error
    assert main(["prepare", "features", "--root", str(table), "--check"]) == 1
    checked = capsys.readouterr()
    assert len(checked.out.splitlines()) == len(BAD) + 1 and "checked 5 good clips, C = 5" in checked.err
    assert prepare(table, tmp_path / "out", "--on-error", "skip") == 0
    assert len((tmp_path / "out" / "skipped.tsv").read_text().splitlines()) == len(BAD) + 2
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"] == len(BAD) + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--frame-stride", 0), "--frame-stride 0"),
        (
            ("--features-column", "video"),
            "only 'features', 'sentence', 'split', 'signer'",
        ),
        (("--check", "--verify"), "give one of them"),
    ],
)
def test_options_that_do_not_fit_are_refused(table, tmp_path, capsys, words, message):
    assert prepare(table, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_bad_rows_alone_is_refused(table, tmp_path, capsys):
    for file in (tmp_path / "clips").iterdir():
        file.unlink()
    assert prepare(table, tmp_path / "out", "--on-error", "skip") == 2
    assert "there are no features to store" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(1, 1, C), (C, 1, 1), (1, C, 1, 1)])
def test_a_clip_of_one_position_is_told_from_one_of_one_channel(tmp_path, shape):
    np.save(tmp_path / "one.npy", np.arange(C).reshape(shape))
    assert load_features(tmp_path / "one.npy").tolist() == [[0, 1, 2, 3, 4]]
    np.save(tmp_path / "one.npy", np.arange(C)[:, None])
    assert load_features(tmp_path / "one.npy").shape == (C, 1)


def test_a_feature_corpus_of_030_whose_shards_have_other_sizes_is_read(table, tmp_path, monkeypatch):
    """It cut a split into shards of at least eight clips by its own rule; the manifest says how many each holds."""
    monkeypatch.setattr(feature_store, "shard_ranges", lambda num_clips: [range(1), range(1, num_clips)])
    text = table.read_text().replace(",dev,", ",train,").replace(",test,", ",train,")
    table.write_text(text)
    assert prepare(table, tmp_path / "out") == 0
    monkeypatch.undo()
    corpus = PackedCorpus(tmp_path / "out", "train")
    stored = open_features(corpus)
    assert corpus.shard_clips == [1, 4] and len(stored) == 5
    for index in range(5):
        torch.testing.assert_close(stored[index], torch.tensor(array(index)), rtol=1e-3, atol=1e-3)
