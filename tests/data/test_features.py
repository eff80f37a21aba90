"""The feature cache: what is stored is what the encoder gives, and a changed encoder never meets it."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import training_fla.data.feature_shards as features
from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from tests.conftest import make_processor
from tests.tiny_runs import ROOT
from training_fla.data.collation import SignFeatureDataset, SignTranslationCollator, SignVideoDataset
from training_fla.data.feature_shards import FeatureCache, cut_into_shards
from training_fla.data.features import check_against_pixels, fingerprint, store_features
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.files import InputError, locked_folder

ALONE = SimpleNamespace(
    process_index=0,
    num_processes=1,
    is_main_process=True,
    is_local_main_process=False,
    device=torch.device("cpu"),
    wait_for_everyone=lambda: None,
)


def tiny_model(seed: int = 0) -> FlaForConditionalGeneration:
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
        "tiny", vocab_size=50, vision_config=vision, d_model=16, encoder_ffn_dim=20, decoder_ffn_dim=20
    )
    model = FlaForConditionalGeneration(config)
    model.freeze_visual_encoder()
    return model.train()


@pytest.fixture
def videos(packed_demo, demo_processor) -> SignVideoDataset:
    return SignVideoDataset(PackedCorpus(packed_demo, "train"), demo_processor)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_stored_features_are_what_the_encoder_gives_for_each_clip_alone(videos, tmp_path, dtype, tolerance):
    model = tiny_model()
    cache = store_features(model, videos, tmp_path / "cache", ALONE, dtype, batch_size=4)
    assert model.training, "storing features must leave the model as it was"
    assert len(cache) == len(videos)
    for index in (0, 5, 9):
        frames = videos[index]["pixel_values_videos"][None]
        now = model.get_sign_features(frames, torch.ones(frames.shape[:2], dtype=torch.long))[0]
        assert cache[index].shape == (videos.lengths[index], 10)
        torch.testing.assert_close(cache[index].float(), now, rtol=tolerance, atol=tolerance)
    dataset = SignFeatureDataset(cache, videos)
    assert dataset[5]["labels"] == videos[5]["labels"] and torch.equal(dataset[5]["sign_features"], cache[5])


def test_the_fingerprint_changes_with_encoder_processor_and_corpus_alone(videos, packed_demo, demo_processor):
    model = tiny_model()
    before = fingerprint(model, videos, "float32")
    torch.nn.init.zeros_(model.adapter.get_parameter(next(iter(dict(model.adapter.named_parameters())))))
    assert fingerprint(model, videos, "float32") == before, "the adapter has no part in the features"
    assert fingerprint(model, videos, "bfloat16") != before
    assert fingerprint(tiny_model(seed=1), videos, "float32") != before
    assert fingerprint(model, SignVideoDataset(PackedCorpus(packed_demo, "dev"), demo_processor), "float32") != before
    corpus, processor = PackedCorpus(packed_demo, "train"), copy.deepcopy(demo_processor)
    for name, value in (("frame_stride", 2), ("crop_size", {"height": 24, "width": 24}), ("image_mean", [0, 0, 0])):
        changed = copy.deepcopy(processor)
        setattr(changed.video_processor, name, value)
        assert fingerprint(model, SignVideoDataset(corpus, changed), "float32") != before, name
    assert fingerprint(model, SignVideoDataset(corpus, processor, max_source_frames=8), "float32") != before
    assert fingerprint(model, SignVideoDataset(corpus, processor, max_clips=9), "float32") != before
    assert fingerprint(model, SignVideoDataset(corpus, processor), "float32") == before
    model.config.input_features = "frame"
    assert fingerprint(model, videos, "float32") != before
    model.config.input_features = "sign"
    running = next(name for name, _ in model.visual_encoder.named_buffers() if name.endswith("running_mean"))
    model.visual_encoder.get_buffer(running).add_(1)
    assert fingerprint(model, videos, "float32") != before, "BatchNorm statistics are part of the encoder"


def test_a_killed_run_goes_on_with_the_missing_shards(videos, packed_demo, tmp_path):
    """SIGKILL once the first shard is there: it is kept, half a shard is cleared, the rest is made."""
    folder = tmp_path / "cache"
    command = [sys.executable, "-m", "tests.data.test_features", packed_demo, folder]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.arrow")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = folder / "features-00000.arrow"
    assert not (folder / "features-00001.arrow").exists(), "killed too late to show anything"
    (folder / ".features-00001.arrow.1.writing").write_bytes(b"half")
    with pytest.raises(InputError, match="no complete feature cache"):
        FeatureCache(folder)
    before = first.stat().st_mtime_ns
    resumed = store_features(tiny_model(), videos, folder, ALONE, "float32", batch_size=4)
    assert first.stat().st_mtime_ns == before
    names = ["features-00000.arrow", "features-00001.arrow", "features.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    undisturbed = store_features(tiny_model(), videos, tmp_path / "cache2" / "cache", ALONE, "float32", batch_size=4)
    assert all(torch.equal(undisturbed[i], resumed[i]) for i in range(len(videos)))


def test_processes_share_the_shards(videos, tmp_path):
    """Two of three processes, one after the other as there is no barrier: neither makes what is another's."""
    folder, model = tmp_path / "cache", tiny_model()
    second = SimpleNamespace(**vars(ALONE) | {"process_index": 1, "num_processes": 2, "is_main_process": False})
    folder.mkdir()
    with pytest.raises(InputError, match="no complete feature cache"):
        store_features(model, videos, folder, second, "float32", batch_size=4)
    assert [path.name for path in folder.iterdir()] == ["features-00001.arrow"]
    first = SimpleNamespace(**vars(ALONE) | {"num_processes": 2})
    shared = store_features(model, videos, folder, first, "float32", batch_size=4)
    alone = store_features(model, videos, tmp_path / "alone" / "cache", ALONE, "float32", batch_size=4)
    assert all(torch.equal(shared[i], alone[i]) for i in range(len(videos)))


def test_shards_are_the_same_for_any_number_of_processes_and_fit_the_split():
    for clips, shards, longest in ((3, 1, 3), (10, 2, 8), (519, 65, 8), (7096, 65, 110), (31164, 244, 128)):
        cut = cut_into_shards(clips)
        assert [place for shard in cut for place in shard] == list(range(clips))
        assert (len(cut), max(map(len, cut))) == (shards, longest)


@pytest.fixture
def cache(videos, tmp_path) -> FeatureCache:
    return store_features(tiny_model(), videos, tmp_path / "cache", ALONE, "float32", batch_size=4)


def test_a_flipped_bit_is_an_error_or_changes_nothing(cache):
    whole = [cache[index] for index in range(len(cache))]
    file = cache.folder / "features-00001.arrow"
    before, errors = file.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(before), 80).tolist():
        file.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
        try:
            damaged = FeatureCache(cache.folder)
            assert all(torch.equal(whole[index], damaged[index]) for index in range(len(whole)))
        except InputError as error:
            errors += 1
            assert "features-00001.arrow is " in str(error) and "the next run makes it anew" in str(error)
    assert errors > 40, "most bytes of a shard are features"


def test_a_shard_that_is_cut_off_exchanged_or_gone_is_named(cache, videos):
    file, other = cache.folder / "features-00001.arrow", cache.folder / "features-00000.arrow"
    before = file.read_bytes()
    for length in (0, 9, len(before) // 2, len(before) - 1):
        file.write_bytes(before[:length])
        with pytest.raises(InputError, match=r"features-00001.arrow is damaged: .*delete it"):
            FeatureCache(cache.folder)
    file.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match="features-00001.arrow is of another cache or place"):
        FeatureCache(cache.folder)
    header = cache.folder / "features.json"
    written = header.read_text()
    for text in (written[:-3], written.replace('"num_clips": 10', '"num_clips": 11'), "7", "{}"):
        header.write_text(text)
        with pytest.raises(InputError, match="features.json is damaged: .*delete it"):
            FeatureCache(cache.folder)
    header.write_text(written)
    file.unlink()
    with pytest.raises(InputError, match="features-00001.arrow is missing"):
        FeatureCache(cache.folder)
    store_features(tiny_model(), videos, cache.folder, ALONE, "float32", batch_size=4)
    assert file.read_bytes() == before, "the remedy that the message names"


def test_a_full_disk_leaves_what_is_done_and_goes_on(videos, tmp_path, monkeypatch):
    folder, real = tmp_path / "cache", features.pa.OSFile

    def failing(path, mode):
        if "00001" in path:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return real(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(features.pa, "OSFile", failing)
        with pytest.raises(InputError, match=r"cannot write .*features-00001.arrow: .*No space left.*make room"):
            store_features(tiny_model(), videos, folder, ALONE, "float32", batch_size=4)
    assert [path.name for path in folder.iterdir()] == ["features-00000.arrow"]
    assert len(store_features(tiny_model(), videos, folder, ALONE, "float32", batch_size=4)) == len(videos)


def test_another_run_that_writes_the_same_cache_is_noticed(videos, tmp_path):
    folder = tmp_path / "cache"
    with locked_folder(folder, folder), pytest.raises(InputError, match="cache is being written by another run"):
        store_features(tiny_model(), videos, folder, ALONE, "float32", batch_size=4)


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

    def get_sign_features(self, frames, mask):
        return self.visual_encoder(frames[:, :, :1, 0, 0].float())


def test_memory_stays_flat_while_a_big_corpus_is_stored(tmp_path):
    if not Path("/proc/self/statm").exists():
        pytest.skip("the resident memory of a process is read from /proc")
    videos = LongVideos()
    cache = store_features(WideEncoder(), videos, tmp_path / "cache", ALONE, "float32", batch_size=8)
    assert len(cache) == 600 and cache[599].shape == (100, 1000)
    assert max(videos.resident_mib) - videos.resident_mib[20] < 40


def test_the_progress_bar_counts_clips_and_says_how_long_it_takes(videos, tmp_path, capsys):
    main = SimpleNamespace(**vars(ALONE) | {"is_local_main_process": True})
    store_features(tiny_model(), videos, tmp_path / "cache", main, "float32", batch_size=4)
    bar = capsys.readouterr().err
    assert "sign features of train" in bar and "10/10" in bar and "clip/s" in bar


def compare(model, videos, cache, batches=((0, 3), (1, 2))) -> None:
    collate = SignTranslationCollator(lambda labels: labels)
    check_against_pixels(model, videos, SignFeatureDataset(cache, videos), batches, collate, "cpu")


def test_a_cache_of_another_encoder_is_found_out(videos, cache):
    compare(tiny_model(), videos, cache)
    with pytest.raises(InputError, match=r"does not match the visual encoder at clip train-00001; delete it"):
        compare(tiny_model(seed=1), videos, cache, batches=((1, 3),))


def test_a_clip_in_the_place_of_another_is_found_out(videos, cache, monkeypatch):
    """Only the third clip of the second batch is wrong, by less than a hundredth of its largest feature."""
    real = FeatureCache.__getitem__
    monkeypatch.setattr(FeatureCache, "__getitem__", lambda self, i: real(self, i) + (i == 7) * 0.005)
    with pytest.raises(InputError, match="does not match the visual encoder at clip train-00007"):
        compare(tiny_model(), videos, cache, batches=((0, 3), (1, 2, 7)))


def test_targets_are_compared_too(videos, cache):
    other = SignFeatureDataset(cache, videos)
    other.targets = [[9]] * len(videos)
    collate = SignTranslationCollator(lambda labels: labels)
    with pytest.raises(InputError, match="the feature cache gives other labels than the frames of train-00004"):
        check_against_pixels(tiny_model(), videos, other, [[4, 5]], collate, "cpu")


def test_a_cache_is_read_in_other_processes_without_being_sent_there(cache):
    pickled = pickle.dumps(cache)
    assert len(pickled) < 2000 and torch.equal(pickle.loads(pickled)[3], cache[3])


def test_another_type_is_refused(videos, tmp_path):
    with pytest.raises(InputError, match="feature_dtype must be one of float32, bfloat16, got 'int8'"):
        store_features(tiny_model(), videos, tmp_path / "cache", ALONE, "int8", batch_size=4)


class SlowVideos(SignVideoDataset):
    """Takes its time, so that there is a moment to be killed in."""

    def __getitem__(self, index: int) -> dict:
        time.sleep(0.1)
        return super().__getitem__(index)


if __name__ == "__main__":  # the process that is killed
    corpus, folder = map(Path, sys.argv[1:])
    slow = SlowVideos(PackedCorpus(corpus, "train"), make_processor(corpus))
    store_features(tiny_model(), slow, folder, ALONE, "float32", batch_size=4)
