"""A packed folder that a stranger wrote, hashes and all, ends in one error that names the file, or is read rightly."""

import copy
import shutil
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.corpora.corpus_trees import drawn_rows
from tests.data.test_packing import write_manifest
from training_fla.corpora.feature_files import load_features
from training_fla.data.packed_corpus import (
    PackedCorpus,
    file_sha256,
    packed_splits,
    read_index,
    read_packed_manifest,
    verify_packed,
)
from training_fla.data.packing import pack
from training_fla.errors import InputError

ODD_VALUES = [None, "x", "", -1, 0, 2**70, 1.5, True, [], {}, ["x"], {"x": 1}, "../../x", "/etc/passwd"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack(drawn_rows(3, 1, 1), tmp_path_factory.mktemp("packed") / "out", size=16, shard_clips=2, num_workers=0)


@pytest.fixture(params=["with index", "without"])
def folder(packed, tmp_path, request):
    """A copy, with indexes or as 0.1.0 wrote it."""
    folder = shutil.copytree(packed, tmp_path / "copy")
    if request.param == "without":
        manifest = read_packed_manifest(folder)
        for split in manifest["splits"].values():
            (folder / split.pop("index")["file"]).unlink()
        write_manifest(folder, manifest)
    return folder


def read(folder):
    """Everything that training reads, and the hashes of it."""
    content = []
    for split in packed_splits(folder):
        corpus = PackedCorpus(folder, split)
        frames = [corpus.read_frames(index, range(corpus.num_frames[index])) for index in range(len(corpus))]
        sizes = [corpus.source_size(index) for index in range(len(corpus))]
        pixels = [clip.numpy().tolist() for clip in frames]
        content.append((split, list(corpus.ids), list(corpus.sentences), sizes, pixels))
    verify_packed(folder)
    return content


def places(value, path=()):
    """The paths of all keys and elements of a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(value, holder, key):
    holder[key] = value


def changed(manifest, path, change):
    manifest = copy.deepcopy(manifest)
    holder = manifest
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return manifest


def outcome(folder, name, truth=None):
    """Reads, and rightly where the truth is given, or one error of one line that names a file of the folder."""
    try:
        content = read(folder)
        assert truth is None or all(part in truth for part in content)  # without a split the others are whole
    except InputError as error:
        assert name in str(error) and "\n" not in str(error)
        return str(error)


def test_a_manifest_without_a_key_or_with_an_odd_value_is_one_error(folder):
    manifest, truth = read_packed_manifest(folder), read(folder)
    errors = {}
    for path in places(manifest):
        write_manifest(folder, changed(manifest, path, lambda holder, key: holder.pop(key)))
        errors[path] = outcome(folder, "manifest.json", truth)
        for value in ODD_VALUES:
            write_manifest(folder, changed(manifest, path, partial(put, value)))
            outcome(folder, str(folder))
    dev = [("splits", "dev", key) for key in ("fingerprint", "clips", "shards")]
    for path in [("splits",), ("parameters",), ("corpus",), *dev]:
        assert f"`{'.'.join(path)}` is missing" in errors[path]


@pytest.mark.parametrize("name", ["../../x", "/etc", "", "a/b", "a\\b", ".hidden", "a\nb"])
def test_a_split_is_a_plain_name(packed, tmp_path, name):
    folder = shutil.copytree(packed, tmp_path / "copy")
    manifest = read_packed_manifest(folder)
    manifest["splits"][name] = manifest["splits"].pop("dev")
    write_manifest(folder, manifest)
    with pytest.raises(InputError, match="manifest.json: `splits` holds .* not a plain name"):
        packed_splits(folder)


def write_index(folder, index):
    """Put another index in the place of train's, and its hash into the manifest."""
    manifest = read_packed_manifest(folder)
    entry = manifest["splits"]["train"]["index"]
    file = folder / entry["file"]
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, index.schema) as writer:
        writer.write_table(index)
    entry |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    write_manifest(folder, manifest)


def test_an_index_of_other_columns_or_impossible_numbers_is_one_error(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "copy")
    index = read_index(packed / "train.index.arrow")
    errors = {}
    for place, name in enumerate(index.column_names):
        column = index.column(name)
        write_index(folder, index.drop_columns([name]))
        errors[name] = outcome(folder, str(folder))
        others = [pa.array([None] * 3, column.type), pa.array([[1]] * 3), pa.array(["x"] * 3)]
        if pa.types.is_integer(column.type):
            limit = 2 ** (column.type.bit_width - 1)
            for value in (-limit, -1, 0, 1, 3, 65_535, limit - 1):
                others.append(pa.array([value, *column.to_pylist()[1:]], column.type))
        for other in others:
            write_index(folder, index.set_column(place, name, other))
            outcome(folder, str(folder))
    for name in ("num_frames", "height", "offset", "id"):
        assert f"train.index.arrow: the column `{name}` is missing" in errors[name]
    large = index.set_column(index.column_names.index("height"), "height", pa.array([2**31 - 1] * 3, pa.int32()))
    write_index(folder, large)
    with pytest.raises(InputError, match="train.index.arrow: `height` of a clip is 2147483647, not 1 to 65535"):
        PackedCorpus(folder, "train")
    write_index(folder, index.slice(0, 2))
    with pytest.raises(InputError, match="train.index.arrow has 2 clips instead of 3"):
        PackedCorpus(folder, "train")


def test_bytes_that_are_no_index_are_one_error(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "copy")
    whole = (folder / "train.index.arrow").read_bytes()
    generator = np.random.default_rng(0)
    for number in range(40):
        data = bytearray(whole)
        place = int(generator.integers(len(data)))
        data[place : place + int(generator.integers(1, 9))] = generator.bytes(int(generator.integers(0, 9)))
        (folder / "train.index.arrow").write_bytes(data)
        manifest = read_packed_manifest(folder)
        manifest["splits"]["train"]["index"] |= {
            "bytes": len(data), "sha256": file_sha256(folder / "train.index.arrow"),
        }  # fmt: skip
        write_manifest(folder, manifest)
        try:
            read(folder)
        except InputError as error:
            assert str(folder) in str(error) and "\n" not in str(error), number


def test_a_features_file_without_numbers_is_one_error(tmp_path):
    torch.save(torch.empty(4, 8, device="meta"), tmp_path / "meta.pt")
    with pytest.raises(InputError, match="meta.pt holds no numbers"):
        load_features(tmp_path / "meta.pt")
