"""Batches of few sizes, whose padding no norm, loss or gradient counts; the same on one process and on two."""

import copy
import pickle
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import ResNetConfig

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig, FlaVisualEncoder
from modeling_fla.batch_norm_fla import NormalizeByKernels, RealFrames, count_real_frames
from tests.training.test_trainer import Waits
from training_fla.data.augmentation import ClipAugmentation, take_places
from training_fla.data.batching import ClipBatchSampler
from training_fla.data.collation import RoundedSizes, SignTranslationCollator, rounded
from training_fla.data.feature_store import batches_by_frames
from training_fla.training.acceleration import ShortWalks, compile_visual_encoder, keep_channels_last
from training_fla.training.trainer import token_loss

BACKBONE = ResNetConfig(layer_type="basic", embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
C = 6


def examples(lengths, seed=0):
    """Clips of random frames, and sentences of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    for index, length in enumerate(lengths):
        frames = torch.randint(0, 256, (length, 3, 20, 16), dtype=torch.uint8, generator=generator)
        yield {"index": index, "pixel_values_videos": frames, "labels": [7 + index] * (3 + 2 * index) + [2]}


def tiny_model():
    torch.manual_seed(0)
    vision = FlaVisionConfig(backbone_config=BACKBONE, hidden_size=16)
    sizes = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "dropout": 0.0}
    return FlaForConditionalGeneration(FlaConfig.light_t("tiny", vocab_size=40, vision_config=vision, **sizes)).train()


def test_phoenix14t_has_40_convolution_sizes_and_20_attention_shapes_at_most():
    """75 epochs of batches of 8: its mean length and deviation, and 23 tokens a sentence. It was 266 and 900."""
    chance = np.random.default_rng(0)
    frames = np.clip(chance.gamma((116.6 / 50) ** 2, 50**2 / 116.6, 7096), 27, 300).astype(int)
    clips, tokens = -(-frames // 4), np.clip(chance.gamma(8.16, 2.82, 7096), 6, 70).astype(int)
    sampler = ClipBatchSampler(types.SimpleNamespace(lengths=clips), 8, 0)
    sizes, convolutions, attentions = RoundedSizes(1024, 1024), set(), set()
    for epoch in range(75):
        sampler.set_epoch(epoch)
        for batch in sampler:
            N, L = sizes.positions(int(clips[batch].max())), sizes.tokens(int(tokens[batch].max()))
            convolutions.add(rounded(int(clips[batch].sum())))
            attentions |= {(len(batch), *shape) for shape in ((N, N), (L, L), (L, N))}
    # Dev: 512 frames at a time, and what is left of each batch of 64.
    order = np.sort(chance.choice(clips, 519))
    convolutions |= {512} | {rounded(int(part.sum())) % 512 for part in np.split(order, range(64, 519, 64))}
    assert len(convolutions) <= 40 and len(attentions) <= 20, (len(convolutions), len(attentions))


def test_rounded_batches_hold_the_same_clips_and_sentences_and_no_size_outgrows_the_position_tables():
    plain = SignTranslationCollator()(list(examples((7, 4))))
    batch = SignTranslationCollator(sizes=RoundedSizes())(list(examples((7, 4))))
    assert batch["pixel_values_videos"].shape == (16, 3, 20, 16) and batch["attention_mask"].shape == (2, 16)
    assert batch["labels"].shape == (2, 16) and batch["labels"][:, :6].equal(plain["labels"])
    assert (batch["labels"][:, 6:] == -100).all() and batch["attention_mask"].sum(1).tolist() == [7, 4]
    assert batch["positions"].tolist() == [*range(7), *range(16, 20), *[32] * 5]
    real = plain["pixel_values_videos"].flatten(0, 1)[plain["positions"]]
    assert batch["pixel_values_videos"][:11].equal(real) and not batch["pixel_values_videos"][11:].any()
    few = SignTranslationCollator(sizes=RoundedSizes(9, 5))(list(examples((7, 4))))
    assert few["attention_mask"].shape == (2, 9) and few["labels"].shape == (2, 6), "the model says what is too long"
    assert len(pickle.dumps(SignTranslationCollator(sizes=RoundedSizes()))) < 500, "workers get no model with it"


def test_losses_gradients_and_statistics_are_those_without_padding():
    plain, ours, frames = tiny_model(), tiny_model(), RealFrames()
    count_real_frames(ours.visual_encoder, frames)
    for seed, lengths in enumerate([(7, 4), (20, 13), (16, 16)]):
        for model, sizes in ((plain, None), (ours, RoundedSizes())):
            batch = SignTranslationCollator(model.prepare_decoder_input_ids_from_labels, sizes)(
                list(examples(lengths, seed))
            )
            labels = batch.pop("labels")
            batch.pop("indices")
            frames.set(sum(lengths), len(batch["positions"]), torch.device("cpu"))
            model.loss = token_loss(model(**batch).logits, labels, None, 0.2)
            model.loss.backward()
        torch.testing.assert_close(ours.loss, plain.loss, atol=1e-6, rtol=1e-6)
    for name, value in plain.visual_encoder.named_buffers():
        torch.testing.assert_close(ours.visual_encoder.get_buffer(name), value, atol=1e-6, rtol=1e-6)
    for name, parameter in ours.named_parameters():
        true = plain.get_parameter(name).grad
        assert (parameter.grad - true).norm() <= 1e-5 * true.norm() + 1e-6, name


@pytest.mark.parametrize("source_size", [None, (26, 21)])
def test_a_gpu_crops_and_turns_to_the_same_bits_as_workers_do(source_size):
    """Odd sizes, rotations, shifts that leave black edges, and the middle of the frame alone."""
    clips = [torch.randint(1, 256, (length, 24, 31, 3), dtype=torch.uint8).permute(0, 3, 1, 2) for length in (3, 5)]
    collate = SignTranslationCollator(sizes=RoundedSizes())
    for seed, (crop, probability) in enumerate([(19, 1.0), (20, 0.5), (23, 1.0), (17, 0.0), (24, 0.5)] * 6):
        vary = ClipAugmentation(crop_size=crop, probability=probability, rotate_degrees=30 * (seed % 2))
        rows = []
        for index, frames in enumerate(clips):
            places = vary.places((24, 31), np.random.default_rng([seed, index]), source_size)
            rows.append({"index": index, "pixel_values_videos": frames, "places": places, "labels": [7]})
        batch = collate(rows)
        of_clip = (batch["positions"] // batch["attention_mask"].shape[1]).clamp(max=1)
        varied = take_places(batch["pixel_values_videos"], batch["places"], of_clip)
        assert varied.is_contiguous(memory_format=torch.channels_last) and not varied[8:].any()
        true = [vary(c, np.random.default_rng([seed, i]), source_size) for i, c in enumerate(clips)]
        assert varied[:8].equal(torch.cat(true))


def test_both_masks_are_of_the_type_that_attention_computes_in():
    """Of another type autocast would cast them in every layer."""
    model, seen = tiny_model(), []
    collate = SignTranslationCollator(model.prepare_decoder_input_ids_from_labels, RoundedSizes())
    batch = collate(list(examples((7, 4))))
    for name in ("labels", "indices"):
        del batch[name]
    model.language_model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    model.eval()
    model.training = True  # the frames' norms need not count
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model(**batch)
    for name in ("attention_mask", "decoder_attention_mask"):
        assert [kwargs[name].dtype for kwargs in seen] == [torch.bfloat16, torch.float32]


def test_what_workers_have_ready_while_features_are_stored_fits_dev_shm():
    """Fourteen workers, two batches each, of a shard of PHOENIX14T, whose batches held 110 clips: 33 GB."""
    lengths = np.clip(np.random.default_rng(0).gamma(5.4, 5.4, 110), 7, 75).astype(int)
    batches = batches_by_frames(range(110), lengths, most_clips=128)
    assert sorted(sum(batches, [])) == list(range(110))
    frames = [len(batch) * int(lengths[batch].max()) for batch in batches]
    assert 14 * 2 * max(frames) * 224 * 224 * 3 < 3e9 and sum(frames) < 1.15 * lengths.sum()
    assert batches_by_frames([0, 1, 2], [600, 3, 3], most_clips=1) == [[1], [2], [0]]


def test_in_evaluation_frames_alone_give_the_features_of_padded_videos():
    encoder = FlaVisualEncoder(FlaVisionConfig(backbone_config=BACKBONE, hidden_size=16)).eval()
    encoder.frames_at_once = 16
    plain = SignTranslationCollator()(list(examples((17, 4))))
    batch = SignTranslationCollator(sizes=RoundedSizes())(list(examples((17, 4))))
    names = ("pixel_values_videos", "attention_mask", "positions")
    true, found = (encoder(**{name: rows[name] for name in names}) for rows in (plain, batch))
    torch.testing.assert_close(found.last_hidden_state[:, :17], true.last_hidden_state)
    assert not found.last_hidden_state[:, 17:].any() and not found.frame_features[1, 4:].any()


def emulated_kernels(monkeypatch):
    """What CUDA's kernels compute."""

    def dims(x):
        return (0, *range(2, x.ndim))

    def shaped(vector, x):
        return vector.view(1, -1, *[1] * (x.ndim - 2))

    def stats(x, eps):
        return x.mean(dims(x)), (x.var(dims(x), correction=0) + eps).rsqrt()

    def elemt(x, weight, bias, mean, inverse, eps):
        return (x - shaped(mean, x)) * shaped(inverse * weight, x) + shaped(bias, x)

    def reduce(dy, x, mean, inverse, weight, *_):
        sum_dy_xmu = (dy * (x - shaped(mean, x))).sum(dims(x))
        return dy.sum(dims(x)), sum_dy_xmu, sum_dy_xmu * inverse, dy.sum(dims(x))

    def backward(dy, x, mean, inverse, weight, sum_dy, sum_dy_xmu, count):
        assert count.dtype == torch.int32
        part = (x - shaped(mean, x)) * shaped(inverse**2 * sum_dy_xmu / count.sum(), x)
        return (dy - shaped(sum_dy / count.sum(), x) - part) * shaped(inverse * weight, x)

    kernels = {"stats": stats, "elemt": elemt, "backward_reduce": reduce, "backward_elemt": backward}
    for name, kernel in kernels.items():
        monkeypatch.setattr(torch, f"batch_norm_{name}", kernel)


@pytest.mark.parametrize("shape", [(11, C), (11, C, 5, 7)])
def test_a_gpus_kernels_leave_out_the_padding_as_plain_arithmetic_does(monkeypatch, shape):
    torch.manual_seed(0)
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(C)
    norm.weight.data.uniform_(0.5, 2)
    by_arithmetic, frames, outcomes = copy.deepcopy(norm), RealFrames(), []
    count_real_frames(by_arithmetic, frames)
    frames.set(11, 16, torch.device("cpu"))
    emulated_kernels(monkeypatch)
    real, padding, gradient = 2 * torch.randn(shape) + 3, 100 * torch.randn(5, *shape[1:]), torch.randn(shape)

    def by_kernels(x):
        return NormalizeByKernels.apply(x, norm.weight, norm.bias, norm.running_mean, norm.eps, 11, False)[0]

    for forward, owner in ((by_kernels, norm), (by_arithmetic, by_arithmetic)):
        x = torch.cat([real, padding]).requires_grad_()
        y = forward(x)
        (y[:11] * gradient).sum().backward()
        assert not x.grad[11:].any()
        outcomes.append([y[:11], x.grad, owner.weight.grad, owner.bias.grad])
    torch.testing.assert_close(*outcomes, atol=1e-5, rtol=1e-5)


SHARES = ((7, 3), (9, 5, 12), ())  # lengths of the clips of three processes; the third has no clip of its own


def fresh_encoder():
    torch.manual_seed(0)
    return FlaVisualEncoder(FlaVisionConfig(backbone_config=BACKBONE, hidden_size=16)).train()


def learned(encoder, num_processes=1, rank=None, compiles=False):
    """Features, gradients and statistics of an encoder after two batches; `rank` None: of all clips."""
    frames = RealFrames(num_processes)
    count_real_frames(encoder, frames)
    counter = CompileCounterWithBackend("aot_eager")
    if compiles:
        compile_visual_encoder(types.SimpleNamespace(visual_encoder=encoder), False, backend=counter, fullgraph=True)
    for seed in range(2):
        shares = [list(examples(lengths, 10 * seed + place)) for place, lengths in enumerate(SHARES)]
        own = sum(shares, []) if rank is None else shares[rank]
        batch = SignTranslationCollator(sizes=RoundedSizes())(own or shares[0][:1])
        names = ("pixel_values_videos", "attention_mask", "positions")
        number = sum(len(clip["pixel_values_videos"]) for clip in own)
        frames.set(number, len(batch["positions"]), torch.device("cpu"))
        features = encoder(**{name: batch[name] for name in names}).last_hidden_state
        features = features.flatten(0, 1)[batch["positions"][:number]]
        (features * torch.linspace(-1, 1, 16)).square().sum().backward()
    assert counter.frame_count == (2 if compiles else 0), "a graph of the backbone and one of the temporal module"
    gradients = torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()])
    statistics = torch.cat([b.flatten().float() for name, b in encoder.named_buffers() if "running" in name])
    return features.detach(), gradients, statistics


def check(outcomes, true):
    """What processes have learnt is what one has."""
    features, gradients, statistics = zip(*outcomes, strict=True)
    torch.testing.assert_close(torch.cat(features), true[0], atol=4e-5, rtol=4e-5)
    assert (sum(gradients) - true[1]).norm() <= 4e-5 * true[1].norm()
    for own in statistics:
        torch.testing.assert_close(own, true[2], atol=4e-5, rtol=4e-5)


def test_processes_together_learn_what_one_learns(monkeypatch):
    """Five clips on one; two, three and none on three, as at the end of an epoch. Threads stand in for processes."""
    encoder, meeting, vectors = fresh_encoder(), threading.Barrier(3), {}

    def all_reduce(vector):
        vectors[threading.current_thread().name] = vector.clone()
        meeting.wait(60)
        total = sum(vectors[name] for name in sorted(vectors))
        meeting.wait(60)
        vector.copy_(total)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda rank: learned(copy.deepcopy(encoder), 3, rank), range(3)))
    check(outcomes, learned(encoder))


def test_compiled_there_is_no_break_and_the_same_gradient_on_one_process_and_on_several(tmp_path):
    """`fullgraph` raises at a break. A graph that changed what its backward pass reads would say nothing."""
    true = learned(fresh_encoder())
    torch._dynamo.reset()
    check([learned(fresh_encoder(), compiles=True)], true)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        check([learned(fresh_encoder(), num_processes=2, compiles=True)], true)  # it asks the group, of one
    finally:
        dist.destroy_process_group()


def test_norms_of_several_processes_wait_for_nothing(monkeypatch):
    """SyncBatchNorm waited 3 times in each norm, for which of the processes have frames."""
    monkeypatch.setattr(dist, "all_reduce", lambda vector: None)
    frames, norm = RealFrames(2), nn.BatchNorm2d(C)
    count_real_frames(norm, frames)
    with Waits() as waits:
        frames.set(11, 16, torch.device("cpu"))
        norm(torch.randn(16, C, 5, 7, requires_grad=True)).sum().backward()
    assert not waits.seen


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    torch.save(learned(fresh_encoder(), 3, rank, compiles=True), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_compiled_processes_together_learn_what_one_learns(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=3)
    check([torch.load(tmp_path / f"{rank}.pt") for rank in range(3)], learned(fresh_encoder()))


def test_weights_in_channels_last_are_saved_as_any(tmp_path):
    encoder = fresh_encoder()
    encoder.save_pretrained(tmp_path / "plain")
    keep_channels_last(encoder)
    weight = encoder.vision_backbone.encoder.stages[0].layers[0].layer[0].convolution.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    encoder.save_pretrained(tmp_path / "last")
    plain, last = (tmp_path / name / "model.safetensors" for name in ("plain", "last"))
    assert plain.read_bytes() == last.read_bytes()


def test_a_norm_of_another_class_is_refused():
    class Other(nn.BatchNorm2d):
        """It might leave nothing out."""

    network = nn.Sequential(nn.BatchNorm2d(3), Other(3))
    with pytest.raises(ValueError, match="^Other cannot count the frames of several processes$"):
        count_real_frames(network, RealFrames())
    assert type(network[0]) is nn.BatchNorm2d


def test_a_step_walks_no_modules_and_does_what_a_walk_does(monkeypatch):
    model = tiny_model()
    model.freeze_visual_encoder(temporal_module=False)
    walks = ShortWalks(model)
    modes = [module.training for module in model.modules()]
    assert True in modes and False in modes
    monkeypatch.setattr(type(model), "train", None)  # a walk would call it
    assert model.train() is model
    monkeypatch.undo()
    model.language_model.model.eval()
    model.train()
    assert [module.training for module in model.modules()] == modes
    assert not model.eval().language_model.training
    model.train()
    assert [module.training for module in model.modules()] == modes
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    walks.end()
    assert not {"train", "zero_grad"} & model.__dict__.keys()
