import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ConvNextConfig, Dinov2Config, ResNetConfig

from modeling_fla import FlaVisionConfig, FlaVisualEncoder

from .conftest import C, T, tiny_model, tiny_vision_config


@pytest.fixture
def encoder():
    return FlaVisualEncoder(tiny_vision_config()).eval()


def backbone_batch_norms(encoder):
    return [m for m in encoder.vision_backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_padding_frames_of_nan_change_nothing(encoder, normalized, mask):
    clean = encoder(normalized, mask)
    normalized[~mask.bool()] = float("nan")
    dirty = encoder(normalized, mask)
    assert torch.equal(clean.last_hidden_state, dirty.last_hidden_state)
    assert torch.equal(clean.frame_features, dirty.frame_features)


def test_features_are_zero_at_padding(encoder, video, mask):
    output = encoder(video, mask)
    assert output.last_hidden_state.shape == (2, T, C)
    assert (output.last_hidden_state[1, 4:] == 0).all() and (output.frame_features[1, 4:] == 0).all()
    assert (output.frame_features[1, :4] != 0).any(dim=1).all()


def test_a_clip_alone_and_in_a_padded_batch_agree(encoder, video, mask):
    together = encoder(video, mask).last_hidden_state
    alone = encoder(video[1:, :4]).last_hidden_state
    torch.testing.assert_close(together[1:, :4], alone, atol=1e-5, rtol=0)


def test_raw_and_normalized_pixels_agree(encoder, video, normalized, mask):
    raw = encoder(video, mask).last_hidden_state
    torch.testing.assert_close(raw, encoder(normalized, mask).last_hidden_state, atol=1e-5, rtol=0)


class TensorsOfNumbers(TorchDispatchMode):
    """Counts tensors that are made of Python numbers, which a GPU must be sent."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ == "lift_fresh"
        return function(*args, **kwargs or {})


def test_a_forward_pass_sends_no_numbers_to_the_device(encoder, video, mask):
    """Mean and deviation of the pixels lie where the weights lie."""
    positions = mask.flatten().nonzero().squeeze(1)
    with TensorsOfNumbers() as sent:
        encoder.train()(video, mask, positions)
        assert sent.count == 0
        torch.tensor([0.5])
        assert sent.count == 1, "what is counted is seen"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mean_and_deviation_of_the_pixels_come_through_saving_loading_and_casting(video, tmp_path, dtype):
    """They are no part of the weights: a checkpoint of 0.1.0 has none, and loading begins on `meta`."""
    statistics = {"image_mean": [0.1, 0.2, 0.4], "image_std": 0.3}
    encoder = FlaVisualEncoder(tiny_vision_config(**statistics))
    assert not [name for name in encoder.state_dict() if not name.startswith(("vision_backbone.", "temporal_module."))]
    encoder.save_pretrained(tmp_path)
    mean = torch.tensor(statistics["image_mean"]).view(3, 1, 1)
    expected = ((video[0] / 255 - mean) / 0.3).to(dtype)
    loaded = FlaVisualEncoder.from_pretrained(tmp_path, dtype=dtype)
    for network in (
        loaded,
        copy.deepcopy(loaded),
        encoder.to(dtype),
        FlaVisualEncoder.from_pretrained(tmp_path).to(dtype),
    ):
        normalized = network._normalized(video[0])
        assert normalized.dtype == dtype
        torch.testing.assert_close(normalized, expected, atol=1e-6, rtol=0 if dtype == torch.float32 else 2**-8)


def test_evaluation_runs_few_frames_at_once_and_training_all(encoder, video, mask):
    expected = encoder(video, mask)
    seen = []
    encoder.vision_backbone.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    encoder.frames_at_once = 4
    output = encoder(video, mask)
    assert seen == [4, 4, 3]
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(output.frame_features, expected.frame_features)
    seen.clear()
    encoder.train()(video, mask)
    encoder.freeze(temporal_module=False)
    encoder(video, mask)
    assert seen == [11, 4, 4, 3]


def test_the_mask_may_be_of_any_dtype_and_have_padding_anywhere(encoder, video, mask):
    expected = encoder(video, mask).last_hidden_state
    for dtype in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(encoder(video, mask.to(dtype)).last_hidden_state, expected)
    left = torch.cat([video[1:, 4:], video[1:, :4]], dim=1)
    padded_left = encoder(left, mask[1:].flip(1)).last_hidden_state
    torch.testing.assert_close(padded_left[:, 3:], expected[1:, :4], atol=1e-5, rtol=0)


def test_each_frame_sees_its_neighbours_under_the_kernel_and_no_others(encoder, normalized):
    reach = encoder.config.temporal_kernel_size // 2
    changed = normalized.clone()
    changed[:, 3] += 1
    moved = (encoder(normalized).last_hidden_state != encoder(changed).last_hidden_state).any(dim=-1).any(dim=0)
    assert not moved[: 3 - reach].any() and not moved[3 + reach + 1 :].any() and moved[3]


def test_batch_norm_counts_real_frames_only(encoder, normalized, mask):
    padded, alone = encoder.train(), copy.deepcopy(encoder)
    normalized[~mask.bool()] = 1e3
    padded(normalized, mask)
    alone(torch.cat([normalized[0], normalized[1, :4]]).unsqueeze(0))  # the same eleven frames, no padding
    for ours, theirs in zip(backbone_batch_norms(padded), backbone_batch_norms(alone), strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize(("width", "memory_format"), [(16, torch.channels_last), (8, torch.contiguous_format)])
def test_the_backbone_gets_real_frames_only_in_channels_last_where_that_is_safe(
    normalized, mask, width, memory_format
):
    """In channels_last the narrow one's backward pass would write out of bounds on several threads."""
    backbone = ResNetConfig(layer_type="basic", embedding_size=width, hidden_sizes=[width, 20], depths=[1, 1])
    encoder = FlaVisualEncoder(tiny_vision_config(backbone_config=backbone))
    seen = []
    encoder.vision_backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for _ in range(5):
        encoder(normalized, mask).last_hidden_state.sum().backward()
    assert seen[0].shape == (11, 3, 40, 32)
    assert seen[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("parts", [(True, False), (False, True), (True, True)])
def test_frozen_parts_stay_still_in_parameters_and_statistics(encoder, video, mask, parts):
    encoder.freeze(*parts)
    before = copy.deepcopy(encoder.state_dict())
    encoder.train()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, weight_decay=0.1)
    loss = encoder(video, mask).last_hidden_state.sum()
    if not all(parts):
        loss.backward()
        optimizer.step()
    moved = {
        name.split(".")[0] for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])
    }
    frozen = dict(zip(("vision_backbone", "temporal_module"), parts, strict=True))
    assert moved == {part for part, is_frozen in frozen.items() if not is_frozen}


def test_unfreezing_makes_a_part_trainable_again(encoder):
    encoder.freeze(vision_backbone=True, temporal_module=True)
    encoder.freeze(vision_backbone=False, temporal_module=True)
    assert all(parameter.requires_grad for parameter in encoder.vision_backbone.parameters())
    assert not any(parameter.requires_grad for parameter in encoder.temporal_module.parameters())


@pytest.mark.parametrize(
    "backbone_config",
    [
        ResNetConfig(layer_type="basic", embedding_size=8, hidden_sizes=[8, 8, 8, 12], depths=[3, 4, 6, 3]),
        ResNetConfig(layer_type="bottleneck", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2]),
        ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
        Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14),
    ],
    ids=["resnet-34", "resnet-50", "convnext", "dinov2"],
)
def test_other_backbones_work_by_changing_the_configuration(backbone_config, mask):
    encoder = FlaVisualEncoder(FlaVisionConfig(backbone_config=backbone_config, hidden_size=C))
    output = encoder(torch.randint(0, 256, (2, T, 3, 64, 48), dtype=torch.uint8), mask)
    assert output.frame_features.shape == (2, T, encoder.config.frame_feature_size)
    output.last_hidden_state.sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]


def test_checkpointing_saves_memory_and_changes_neither_gradients_nor_statistics(encoder, video, mask):
    def saved_bytes_and_gradients(encoder):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel() * t.element_size()) or t, lambda t: t
        ):
            loss = encoder(video, mask).last_hidden_state.square().sum()
        loss.backward()
        return sum(sizes), [parameter.grad for parameter in encoder.parameters()]

    plain, checkpointed = encoder.train(), copy.deepcopy(encoder)
    checkpointed.activation_checkpointing_enable()
    plain_bytes, plain_gradients = saved_bytes_and_gradients(plain)
    checkpointed_bytes, checkpointed_gradients = saved_bytes_and_gradients(checkpointed)
    assert checkpointed_bytes < 0.5 * plain_bytes
    torch.testing.assert_close(checkpointed_gradients, plain_gradients)
    for ours, theirs in zip(backbone_batch_norms(checkpointed), backbone_batch_norms(plain), strict=True):
        assert torch.equal(ours.running_mean, theirs.running_mean) and torch.equal(
            ours.running_var, theirs.running_var
        )
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 1 and ours.momentum == theirs.momentum


def test_compiling_does_not_start_again_for_new_lengths(encoder, normalized):
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(encoder, backend=counter)
    counts = []
    for lengths in [(7, 4), (6, 5), (7, 2), (5, 5), (4, 3), (6, 1)]:
        longest = max(lengths)
        mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
        expected = encoder(normalized[:, :longest], mask).last_hidden_state
        torch.testing.assert_close(compiled(normalized[:, :longest], mask).last_hidden_state, expected)
        counts.append(counter.frame_count)
    assert counts[2:] == [counts[2]] * 4, counts


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, T, 4, 40, 32), r"must be \(B, T, 3, H, W\), got \(2, 7, 4, 40, 32\)"),
        ((T, 3, 40, 32), r"must be \(B, T, 3, H, W\), got \(7, 3, 40, 32\)"),
    ],
)
def test_pixels_of_the_wrong_shape_are_refused(encoder, shape, message):
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(shape))


def test_pixels_of_another_integer_dtype_are_refused(encoder, video):
    with pytest.raises(ValueError, match=r"uint8 .*torch\.int64"):
        encoder(video.long())


def test_a_mask_of_the_wrong_shape_is_refused(encoder, video, mask):
    with pytest.raises(ValueError, match=r"`attention_mask` must be \(B, T\) = \(2, 7\), got \(2, 6\)"):
        encoder(video, mask[:, :6])


def test_a_video_without_a_real_frame_is_refused(encoder, video, mask):
    mask[1] = 0
    with pytest.raises(ValueError, match=r"real frame.*\[1\]"):
        encoder(video, mask)


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_encoder_gives_the_same_numbers(video, normalized, mask, dynamic):
    encoder = tiny_model().visual_encoder
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} if dynamic else None
    program = torch.export.export(encoder, (normalized, mask), dynamic_shapes=dynamic and (sizes, sizes) or None)
    inputs = [(normalized, mask), (normalized.flip(0), mask.flip(0))]
    inputs += [(normalized[[0, 1, 1], :5], mask[[0, 1, 1], :5])] if dynamic else []
    for pixels, real in inputs:
        pixels = pixels.masked_fill(~real.bool()[..., None, None, None], float("nan"))
        exported, expected = program.module()(pixels, real), encoder(pixels, real)
        for name in ("last_hidden_state", "frame_features"):
            torch.testing.assert_close(exported[name], expected[name], atol=1e-5, rtol=1e-5)


def test_raw_pixels_are_exported_without_a_cast_of_bits_which_onnx_has_not(encoder, video):
    program = torch.export.export(encoder, (video,))
    assert torch.ops.aten.view.dtype not in {node.target for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(video)["last_hidden_state"], encoder(video).last_hidden_state)
