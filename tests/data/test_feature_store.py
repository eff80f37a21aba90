"""The feature cache: what is stored is what the encoder gives, and never that of another encoder."""

import copy
import multiprocessing
import os
import pickle
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import training_fla.data.feature_store as feature_store
from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from training_fla.data.datasets import SignFeatureDataset, SignVideoDataset
from training_fla.data.feature_store import FeatureEncoder, FeatureStore
from training_fla.data.packed_corpus import PackedCorpus, shard_ranges
from training_fla.errors import InputError
from training_fla.folders import locked_folder

ALONE = SimpleNamespace(
    process_index=0,
    num_processes=1,
    is_main_process=True,
    is_local_main_process=False,
    device=torch.device("cpu"),
    wait_for_everyone=lambda: None,
)


def tiny_model(seed: int = 0, vocab_size: int = 50, frozen: bool = True) -> FlaForConditionalGeneration:
    torch.manual_seed(seed)
    vision = FlaVisionConfig(
        backbone_config={
            "model_type": "resnet",
            "layer_type": "basic",
            "embedding_size": 6,
            "hidden_sizes": [6, 8],
            "depths": [1, 1],
        },
        hidden_size=10,
    )
    config = FlaConfig.light_t(
        "tiny", vocab_size=vocab_size, vision_config=vision, d_model=16, encoder_ffn_dim=20, decoder_ffn_dim=20
    )
    model = FlaForConditionalGeneration(config)
    if frozen:
        model.freeze_visual_encoder()
    return model.train()


SHARD_CLIPS = 8


def store_features(model, videos, folder, state, num_workers=0, **options) -> FeatureStore:
    store = FeatureStore(folder, shard_ranges(len(videos), SHARD_CLIPS))
    store.encode_missing(FeatureEncoder(model, **options), videos, state, num_workers)
    return store


def opened(folder, num_clips=10) -> FeatureStore:
    return FeatureStore(folder, shard_ranges(num_clips, SHARD_CLIPS))


def fingerprint(model, videos, **options) -> str:
    return FeatureEncoder(model, **options).fingerprint(videos)


@pytest.fixture
def videos(packed_demo, demo_processor) -> SignVideoDataset:
    return SignVideoDataset(PackedCorpus(packed_demo, "train"), demo_processor)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_stored_features_are_what_the_encoder_gives_for_each_clip_alone(videos, tmp_path, dtype, tolerance):
    model = tiny_model()
    cache = store_features(model, videos, tmp_path / "cache", ALONE, dtype=dtype, batch_size=4)
    assert model.training, "storing features must leave the model as it was"
    assert len(cache) == len(videos)
    for index in (0, 5, 9):
        frames = videos[index]["pixel_values_videos"][None]
        now = model.get_sign_features(frames, torch.ones(frames.shape[:2], dtype=torch.long))[0]
        assert cache[index].shape == (videos.lengths[index], 10)
        torch.testing.assert_close(cache[index].float(), now, rtol=tolerance, atol=tolerance)
    dataset = SignFeatureDataset(cache, videos.targets, videos.lengths)
    assert dataset[5]["labels"] == videos[5]["labels"] and torch.equal(dataset[5]["sign_features"], cache[5])


def test_the_fingerprint_changes_with_encoder_processor_and_corpus_alone(videos, packed_demo, demo_processor):
    model = tiny_model()
    before = fingerprint(model, videos)
    torch.nn.init.zeros_(model.adapter.get_parameter(next(iter(dict(model.adapter.named_parameters())))))
    assert fingerprint(model, videos) == before, "the adapter has no part in the features"
    assert fingerprint(model, videos, dtype="bfloat16") != before
    assert fingerprint(model, videos, precision="bf16") != before
    assert fingerprint(tiny_model(seed=1), videos) != before
    assert fingerprint(model, SignVideoDataset(PackedCorpus(packed_demo, "dev"), demo_processor)) != before
    corpus, processor = PackedCorpus(packed_demo, "train"), copy.deepcopy(demo_processor)
    changes = {"frame_stride": 2, "crop_size": {"height": 24, "width": 24}, "image_mean": [0, 0, 0]}
    for name, value in (changes | {"max_source_frames": 8}).items():
        changed = copy.deepcopy(processor)
        setattr(changed.video_processor, name, value)
        assert fingerprint(model, SignVideoDataset(corpus, changed)) != before, name
    assert fingerprint(model, SignVideoDataset(corpus, processor, max_clips=9)) != before
    assert fingerprint(model, SignVideoDataset(corpus, processor)) == before
    model.config.input_features = "frame"
    assert fingerprint(model, videos) != before
    model.config.input_features = "sign"
    running = next(name for name, _ in model.visual_encoder.named_buffers() if name.endswith("running_mean"))
    model.visual_encoder.get_buffer(running).add_(1)
    assert fingerprint(model, videos) != before, "BatchNorm statistics are part of the encoder"


def store_slowly(videos, folder):
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    real = SignVideoDataset.__getitem__
    SignVideoDataset.__getitem__ = lambda self, index: time.sleep(0.1) or real(self, index)
    store_features(tiny_model(), videos, folder, ALONE, batch_size=4)


def test_a_killed_run_goes_on_with_the_missing_shards(videos, tmp_path):
    """SIGKILL once the first shard is there: it is kept, half a shard is cleared, the rest is made."""
    folder = tmp_path / "cache"
    process = multiprocessing.get_context("fork").Process(target=store_slowly, args=(videos, folder))
    process.start()
    while not list(folder.glob("*.safetensors")):
        assert process.is_alive(), "it ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.join()
    first = folder / "features-00000-of-00002.safetensors"
    assert not (folder / "features-00001-of-00002.safetensors").exists(), "killed too late to show anything"
    (folder / ".features-00001-of-00002.safetensors.1.writing").write_bytes(b"half")
    with pytest.raises(InputError, match="features-00001-of-00002.safetensors is missing"):
        opened(folder)[9]
    before = first.stat().st_mtime_ns
    resumed = store_features(tiny_model(), videos, folder, ALONE, batch_size=4)
    assert first.stat().st_mtime_ns == before
    names = [".fla-llm.json", "features-00000-of-00002.safetensors", "features-00001-of-00002.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    undisturbed = store_features(tiny_model(), videos, tmp_path / "cache2" / "cache", ALONE, batch_size=4)
    assert all(torch.equal(undisturbed[i], resumed[i]) for i in range(len(videos)))


def test_processes_share_the_shards(videos, tmp_path):
    """Two of three processes, one after the other as there is no barrier: neither makes what is another's."""
    folder, model = tmp_path / "cache", tiny_model()
    second = SimpleNamespace(**vars(ALONE) | {"process_index": 1, "num_processes": 2, "is_main_process": False})
    folder.mkdir()
    with pytest.raises(InputError, match="features-00000-of-00002.safetensors is missing"):
        store_features(model, videos, folder, second, batch_size=4)
    assert [path.name for path in folder.iterdir()] == ["features-00001-of-00002.safetensors"]
    first = SimpleNamespace(**vars(ALONE) | {"num_processes": 2})
    shared = store_features(model, videos, folder, first, batch_size=4)
    alone = store_features(model, videos, tmp_path / "alone" / "cache", ALONE, batch_size=4)
    assert all(torch.equal(shared[i], alone[i]) for i in range(len(videos)))


def test_shards_are_the_same_for_any_number_of_processes_and_fit_the_split():
    for clips, shards, longest in ((3, 2, 2), (10, 5, 2), (519, 17, 32), (7096, 56, 128), (31164, 244, 128)):
        cut = shard_ranges(clips)
        assert [place for shard in cut for place in shard] == list(range(clips))
        assert (len(cut), max(map(len, cut))) == (shards, longest)


@pytest.fixture
def cache(videos, tmp_path) -> FeatureStore:
    return store_features(tiny_model(), videos, tmp_path / "cache", ALONE, batch_size=4)


def test_a_flipped_bit_is_an_error_or_changes_nothing(cache):
    whole = [cache[index] for index in range(len(cache))]
    file = cache.file(1)
    before, errors = file.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(before), 80).tolist():
        file.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
        try:
            damaged = opened(cache.folder)
            assert all(torch.equal(whole[index], damaged[index]) for index in range(len(whole)))
        except InputError as error:
            errors += 1
            assert f"{file.name} is " in str(error) and "the next run makes it again" in str(error)
    assert errors > 40, "most bytes of a shard are features"


def test_a_shard_that_is_cut_off_exchanged_or_gone_is_named_and_made_again(cache, videos):
    file, whole = cache.file(1), cache[9].clone()
    before = file.read_bytes()
    for length in (0, 9, len(before) // 2, len(before) - 1):
        file.write_bytes(before[:length])
        with pytest.raises(InputError, match=r"features-00001-of-00002.safetensors is damaged .*delete it"):
            opened(cache.folder)[9]
    file.write_bytes(cache.file(0).read_bytes())
    with pytest.raises(InputError, match="features-00001-of-00002.safetensors is of another cache or place"):
        opened(cache.folder)[9]
    assert torch.equal(store_features(tiny_model(), videos, cache.folder, ALONE, batch_size=4)[9], whole)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("os error 28")])
def test_a_full_disk_leaves_what_is_done_and_goes_on(videos, tmp_path, monkeypatch, error):
    folder, save = tmp_path / "cache", feature_store.save_file

    def failing(tensors, path, metadata):
        if "00001-of" in path.name:
            path.write_bytes(b"half")
            raise error
        save(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "save_file", failing)
        with pytest.raises(InputError, match=r"cannot write .*features-00001-of-00002.safetensors: .*make room"):
            store_features(tiny_model(), videos, folder, ALONE, batch_size=4)
    assert [path.name for path in folder.glob("*feat*")] == ["features-00000-of-00002.safetensors"]
    assert len(store_features(tiny_model(), videos, folder, ALONE, batch_size=4)) == len(videos)


def test_another_run_that_writes_the_same_cache_is_noticed(videos, tmp_path):
    folder = tmp_path / "cache"
    with locked_folder(folder, folder), pytest.raises(InputError, match="cache .*another run"):
        store_features(tiny_model(), videos, folder, ALONE, batch_size=4)


class LongVideos:
    """Six hundred clips whose features, 240 MB, come from a few bytes of pixels each."""

    ids, lengths, sentences = [f"clip-{i}" for i in range(600)], [100] * 600, [""] * 600
    corpus = SimpleNamespace(split="train")

    def __init__(self):
        self.resident_mib = []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        frames = torch.full((100, 3, 2, 2), index % 256, dtype=torch.uint8)
        return {"index": index, "pixel_values_videos": frames, "labels": [1]}


class WideEncoder(torch.nn.Module):
    """One channel in, a thousand out."""

    def __init__(self):
        super().__init__()
        self.visual_encoder = torch.nn.Linear(1, 1000)

    def get_sign_features(self, frames, mask, positions):
        return self.visual_encoder(frames[:, :, :1, 0, 0].float())


def test_memory_stays_flat_while_a_big_corpus_is_stored(tmp_path):
    if not Path("/proc/self/statm").exists():
        pytest.skip("the resident memory of a process is read from /proc")
    videos = LongVideos()
    cache = store_features(WideEncoder(), videos, tmp_path / "cache", ALONE, batch_size=8)
    assert len(cache) == 600 and cache[599].shape == (100, 1000)
    assert max(videos.resident_mib) - videos.resident_mib[20] < 40


def test_the_progress_bar_counts_clips_and_says_how_long_it_takes(videos, tmp_path, monkeypatch, capsys):
    main = SimpleNamespace(**vars(ALONE) | {"is_local_main_process": True})
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    store_features(tiny_model(), videos, tmp_path / "cache", main, batch_size=4)
    bar = capsys.readouterr().err
    assert "sign features of train" in bar and "10/10" in bar and "clip/s" in bar


def compare(model, videos, store, **options) -> None:
    FeatureEncoder(model, batch_size=4, **options).check(store, videos, torch.device("cpu"))


def test_a_cache_of_another_encoder_is_found_out(videos, cache):
    compare(tiny_model(), videos, cache)
    with pytest.raises(InputError, match=r"clip train-0000\d; delete it"):
        compare(tiny_model(seed=1), videos, cache)


def test_a_clip_in_the_place_of_another_is_found_out(videos, cache, monkeypatch):
    real = FeatureStore.__getitem__
    length = len(real(cache, 7))
    other = next(index for index in range(10) if index != 7 and len(real(cache, index)) >= length)
    monkeypatch.setattr(
        FeatureStore, "__getitem__", lambda self, index: real(self, other if index == 7 else index)[:length]
    )
    with pytest.raises(InputError, match="clip train-00007"):
        compare(tiny_model(), videos, cache)


def test_not_a_number_in_the_place_of_features_is_found_out(videos, cache, monkeypatch):
    real = FeatureStore.__getitem__
    monkeypatch.setattr(FeatureStore, "__getitem__", lambda self, index: real(self, index) * np.nan)
    with pytest.raises(InputError, match="clip train-0000"):
        compare(tiny_model(), videos, cache)


def test_the_check_allows_for_other_precisions_and_batch_shapes(videos, tmp_path):
    """Kernels differ by the shape of the batch: by eleven bits in TF32, by eight in bfloat16."""
    for name, options in {"half": {"precision": "bf16"}, "small": {"dtype": "bfloat16"}}.items():
        store = store_features(tiny_model(), videos, tmp_path / name, ALONE, batch_size=3, **options)
        compare(tiny_model(), videos, store, **options)
        with pytest.raises(InputError, match="does not match the visual encoder"):
            compare(tiny_model(seed=1), videos, store, **options)


def test_a_cache_is_read_in_other_processes_without_being_sent_there(cache):
    pickled = pickle.dumps(cache)
    assert len(pickled) < 2000 and torch.equal(pickle.loads(pickled)[3], cache[3])
