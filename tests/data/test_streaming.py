"""A packed folder as a stream: the same examples as from disk, every clip once, and both stages train from it."""

import json
import math
import shutil
from types import SimpleNamespace

import datasets
import fsspec
import pyarrow as pa
import pytest
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from tests.data.test_packing import as_packed_by_030, without_index
from tests.tiny_runs import STAGE1, STAGE2, losses, pack_demo, run, stage1_of_one_step, weights
from training_fla.data import datasets as clips
from training_fla.data.packed_corpus import MANIFEST, PackedCorpus, manifest_digest
from training_fla.data.streaming import SignVideoStream, local_copy
from training_fla.errors import InputError
from training_fla.recipe import DataArguments

COUNT = 19


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_demo(tmp_path_factory.mktemp("stream") / "corpus", num_train=COUNT, num_dev=3, num_test=3)


@pytest.fixture(scope="module")
def remote(packed):
    """The folder in a storage that is no disk."""
    fsspec.filesystem("memory").put(f"{packed}/", "/bucket/corpus/", recursive=True)
    yield "memory://bucket/corpus"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_datasets_streams_a_packed_folder_on_several_nodes(packed):
    rows = datasets.load_dataset(str(packed), split="train", streaming=True)
    nodes = [split_dataset_by_node(rows, rank, 2) for rank in range(2)]
    ids = [[row["id"] for row in node] for node in nodes]
    assert not set(ids[0]) & set(ids[1])
    assert sorted(ids[0] + ids[1]) == sorted(PackedCorpus(packed, "train").ids)


def stream_of(packed, url, processor, rank=0, world=1, workers=0, **options):
    corpus = PackedCorpus(packed, "train", has_frames=False)
    videos = clips.SignVideoDataset(corpus, processor, random_frame_phase=True, seed=3, **options)
    args = SimpleNamespace(process_index=rank, world_size=world, dataloader_num_workers=workers)
    args.per_device_train_batch_size = 4
    return SignVideoStream(videos, DataArguments(dataset=url, streaming=True, shuffle_buffer=8), args)


def test_what_030_packed_streams_too(packed, demo_processor, tmp_path):
    folder = as_packed_by_030(packed, tmp_path / "old")
    stream = stream_of(folder, str(folder), demo_processor)
    videos = clips.SignVideoDataset(PackedCorpus(packed, "train"), demo_processor, random_frame_phase=True, seed=3)
    seen = {example["index"]: example["pixel_values_videos"] for example in stream}
    assert len(seen) == COUNT and all(seen[index].equal(videos[index]["pixel_values_videos"]) for index in seen)


def test_a_stream_gives_the_examples_of_the_folder_in_another_order_every_epoch(packed, remote, demo_processor):
    stream = stream_of(packed, remote, demo_processor)
    videos = clips.SignVideoDataset(PackedCorpus(packed, "train"), demo_processor, random_frame_phase=True, seed=3)
    orders = []
    for epoch in (0, 1, 1):
        stream.set_epoch(epoch)
        videos.set_epoch(epoch)
        orders.append([])
        for example in stream:
            from_disk = videos[example["index"]]
            assert example["labels"] == from_disk["labels"]
            assert example["pixel_values_videos"].equal(from_disk["pixel_values_videos"])
            orders[-1].append(example["index"])
        assert sorted(orders[-1]) == list(range(COUNT))
    assert orders[0] != orders[1] == orders[2] != sorted(orders[1])
    frames = next(iter(stream.rows)).schema.field("frames").type
    assert frames.value_type.field("bytes").type == pa.large_binary()  # a buffer may hold more than 2 GiB


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_clips_of_the_processes_are_disjoint_and_complete(packed, remote, demo_processor, world, workers):
    """Ten shards: two processes read five each, three read all and take every third clip."""
    seen, announced = [], set()
    for rank in range(world):
        stream = stream_of(packed, remote, demo_processor, rank, world, workers)
        loader = DataLoader(stream, batch_size=4, num_workers=workers, collate_fn=list)
        batches = [[example["index"] for example in batch] for batch in loader]
        announced.add(len(loader))
        assert 0 < len(batches) <= len(loader)
        seen += sum(batches, [])
    assert sorted(seen) == list(range(COUNT))
    assert len(announced) == 1 and (world * max(1, workers) > 1 or announced == {-(-COUNT // 4)})


def recipe_of(folder, stage, dataset, line=""):
    recipe = folder / "recipe.yaml"
    recipe.write_text("\n".join([f"dataset: {dataset}", stage, "streaming: true", line]))
    return recipe


def test_stage1_trains_from_a_storage_and_goes_on_after_an_epoch(packed, remote, tmp_path, capsys):
    recipe = recipe_of(tmp_path, STAGE1, remote)
    lines = ("--num_train_epochs", 2, "--eval_steps", 5, "--save_steps", 5)
    assert run("run_stage1", recipe, "--output_dir", tmp_path / "whole", *lines) == 0
    assert all(map(math.isfinite, losses(tmp_path / "whole", 10))) and len(losses(tmp_path / "whole", 10)) == 5
    (copy,) = tmp_path.glob("streamed-*")
    assert {file.name.split("-")[0] for file in copy.glob("*-of-*.arrow")} == {"dev", "test"}
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-10")
    assert run("run_stage1", recipe, "--output_dir", tmp_path / "again", *lines, "--resume") == 0
    assert "begins anew with its first clips" in capsys.readouterr().err
    whole, again = weights(tmp_path / "whole"), weights(tmp_path / "again")
    assert all(whole[name].equal(again[name]) for name in whole)


def test_stage2_encodes_what_streams_and_stores_no_features(packed, tmp_path):
    stage1 = stage1_of_one_step(tmp_path, packed)
    recipe = recipe_of(tmp_path, STAGE2, packed)
    lines = ("--stage1_checkpoint", stage1, "--tokenizer", stage1, "--dataloader_num_workers", 2)
    assert run("run_stage2", recipe, "--output_dir", tmp_path / "stage2", *lines) == 0
    assert len(losses(tmp_path / "stage2", 4)) == 2 and not (tmp_path / "features").exists()


def test_a_local_folder_is_not_copied_and_unreachable_ones_are_one_line(packed, tmp_path):
    data = DataArguments(dataset=str(packed), streaming=True)
    assert local_copy(data, tmp_path) == packed and not any(tmp_path.iterdir())
    for dataset, reason in (("memory://nowhere", "nowhere/manifest.json"), ("nosuch://x", "nosuch")):
        with pytest.raises(InputError, match=f"cannot load a packed corpus from {dataset}: .*{reason}"):
            local_copy(DataArguments(dataset=dataset, streaming=True), tmp_path)
    fsspec.filesystem("memory").put(f"{without_index(packed, tmp_path / 'old')}/", "/old/", recursive=True)
    with pytest.raises(InputError, match="memory://old .*0.1.0: pack it again"):
        local_copy(DataArguments(dataset="memory://old", dev_split="dev", streaming=True), tmp_path)


def test_a_manifest_that_names_a_file_outside_the_corpus_writes_nothing(packed, tmp_path):
    """Whoever made a corpus on the Hub must not reach the files of whoever streams it."""
    folder = shutil.copytree(packed, tmp_path / "made" / "corpus")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["splits"]["dev"]["shards"][0]["file"] = "../stolen.arrow"
    manifest.pop("sha256")
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": manifest_digest(manifest)}))
    (folder.parent / "stolen.arrow").write_bytes(b"theirs")
    fsspec.filesystem("memory").put(f"{folder.parent}/", "/made/", recursive=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "stolen.arrow").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"manifest.json: `splits.dev.shards.0.file` .*'\.\./stolen.arrow'"):
        local_copy(DataArguments(dataset="memory://made/corpus", streaming=True), tmp_path / "here")
    assert (tmp_path / "here" / "stolen.arrow").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_sampling_strategy: group_by_length", "set it to random"),
        ("frames_per_batch: 60", "set it to null"),
        ("max_train_clips: 3", "set it to null"),
        ("manifest: table.tsv", "set it to null"),
    ],
)
def test_what_needs_the_whole_corpus_is_refused(packed, tmp_path, capsys, line, message):
    assert run("run_stage1", recipe_of(tmp_path, STAGE1, packed, line), "--output_dir", tmp_path / "run") == 2
    said = f"`{line}` needs all clips, which a stream does not have: {message}"
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
