"""The feature cache: what is stored is what the encoder gives, and a changed encoder never meets it."""

from types import SimpleNamespace

import pytest
import torch

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from training_fla.collation import SignFeatureDataset, SignVideoDataset
from training_fla.errors import InputError
from training_fla.features import FeatureCache, check_against_pixels, fingerprint, store_features
from training_fla.packed_corpus import PackedCorpus

ALONE = SimpleNamespace(
    process_index=0, num_processes=1, is_main_process=True, is_local_main_process=False, wait_for_everyone=lambda: None
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
    running = next(name for name, _ in model.visual_encoder.named_buffers() if name.endswith("running_mean"))
    model.visual_encoder.get_buffer(running).add_(1)
    assert fingerprint(model, videos, "float32") != before, "BatchNorm statistics are part of the encoder"


def test_a_killed_run_goes_on_with_the_missing_shards(videos, tmp_path, monkeypatch):
    import training_fla.features as features

    monkeypatch.setattr(features, "SHARD_CLIPS", 4)
    model, folder = tiny_model(), tmp_path / "cache"
    whole = store_features(model, videos, folder, ALONE, "float32", batch_size=4)
    kept = (folder / "features-00000.arrow").stat().st_mtime_ns
    (folder / "features.json").unlink()
    (folder / "features-00001.arrow").unlink()
    with pytest.raises(InputError, match="no complete feature cache"):
        FeatureCache(folder)
    again = store_features(model, videos, folder, ALONE, "float32", batch_size=4)
    assert (folder / "features-00000.arrow").stat().st_mtime_ns == kept
    assert all(torch.equal(whole[i], again[i]) for i in range(len(videos)))


def test_a_cache_of_another_encoder_is_found_out(videos, tmp_path):
    cache = store_features(tiny_model(), videos, tmp_path / "cache", ALONE, "float32", batch_size=4)
    check_against_pixels(tiny_model(), videos, cache)
    with pytest.raises(InputError, match="does not match the visual encoder at clip train-00000"):
        check_against_pixels(tiny_model(seed=1), videos, cache)


def test_another_type_is_refused(videos, tmp_path):
    with pytest.raises(InputError, match="feature_dtype must be one of float32, bfloat16, got 'int8'"):
        store_features(tiny_model(), videos, tmp_path / "cache", ALONE, "int8", batch_size=4)
