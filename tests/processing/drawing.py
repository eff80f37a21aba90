"""Videos, tokenizers and models small enough to be drawn or drawn at random in a test."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from transformers import MBartTokenizer

from modeling_fla import FlaConfig, FlaForConditionalGeneration
from processing_fla import FlaProcessor, FlaVideoProcessor
from processing_fla.video_reading_fla import open_video

RED, GREEN, BLUE = (200, 40, 40), (30, 200, 40), (30, 60, 210)
GREY_STEP = 8
WORDS = ["am", "tag", "regen", "im", "norden", "schnee", "lower", "newer", "upper", "older", "longer", "string"]


def marked_frame(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Red to the left, blue to the right, a green square top left, and the frame's number as the grey of a square."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:, : width // 2], frame[:, width // 2 :] = RED, BLUE
    frame[: height // 4, : width // 4] = GREEN
    frame[height // 2 :, width // 4 : 3 * width // 4] = 16 + GREY_STEP * number
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that `marked_frame` wrote, read from the middle of its grey square."""
    height, width = frame.shape[:2]
    middle = frame[3 * height // 4 - 2 : 3 * height // 4 + 2, width // 2 - 2 : width // 2 + 2]
    return round((float(middle.mean()) - 16) / GREY_STEP)


def write_video(
    path, frames, codec="libx264", format=None, pix_fmt="yuv420p", rate=25, times=None, options=None, **context
):
    """Encode frames with PyAV. `times` are presentation times in ticks of 1/1000 s; `context` goes to the encoder."""
    import av

    container_options = context.pop("container_options", {})
    with av.open(str(path), "w", format=format, options=container_options) as container:
        stream = container.add_stream(codec, rate=rate if times is None else 1000)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = options if options is not None else {"crf": "4", "preset": "ultrafast", "g": "10"}
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(
                format=pix_fmt,
                dst_colorspace={1: 1, 9: 9}.get(context.get("colorspace"), 5),
                dst_color_range=context.get("color_range", 1),
            )
            if times is not None:
                picture.time_base, picture.pts = stream.codec_context.time_base, times[number]
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return Path(path)


def timed_frames(path, start_seconds=None, end_seconds=None, **options):
    """The frames of a video file and the seconds at which they are shown."""
    with open_video(path) as video:
        yield from video.rgb_frames(start_seconds, end_seconds, **options)


def late_video(path, num_frames: int = 20, fps: int = 10, start: float = 2.0) -> Path:
    """An MP4 whose picture starts after its sound: numbered frames from `start` seconds on."""
    import av

    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=fps), container.add_stream("aac", rate=16000)
        video.height, video.width, video.pix_fmt, video.options = 64, 96, "yuv420p", {"crf": "4", "bf": "2"}
        video.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for number in range(num_frames):
            picture = av.VideoFrame.from_ndarray(marked_frame(number), "rgb24")
            picture.time_base, picture.pts = Fraction(1, 1000), round(1000 * (start + number / fps))
            packets += video.encode(picture)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 5 * 16000), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 16000, 0
        packets += video.encode() + sound.encode(silence) + sound.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return Path(path)


def hidden_frame_webm(path, num_frames: int = 12) -> Path:
    """A WebM in VP9, one frame every 40 ms, whose first frame is hidden and shown by a packet of its own."""
    import av

    plain = write_video(
        Path(path).with_suffix(".plain.webm"),
        [marked_frame(number) for number in range(num_frames)],
        codec="libvpx-vp9",
        options={"deadline": "realtime", "g": "999"},
    )
    with av.open(str(plain)) as container:
        first, *packets = (bytes(packet) for packet in container.demux(video=0) if packet.size)
    packets = [bytes([first[0] & ~2]) + first[1:], b"\x88", *packets]  # show_frame off; then: show frame 0

    def element(name: str, *parts: bytes | int) -> bytes:
        content = b"".join(part.to_bytes(4, "big") if isinstance(part, int) else part for part in parts)
        return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content

    track = element("ae", element("d7", 1), element("73c5", 1), element("83", 1), element("86", b"V_VP9"))[9:]
    track = element("ae", track, element("e0", element("b0", 96), element("ba", 64)))
    times = [0, *(1 + 40 * number for number in range(num_frames))]
    keys = [b"\x80", *[b"\0"] * num_frames]
    blocks = [
        element("a3", b"\x81" + time.to_bytes(2, "big") + key + packet)
        for time, key, packet in zip(times, keys, packets, strict=True)
    ]
    head = element("1a45dfa3", element("4286", 1), element("4282", b"webm"), element("4287", 2), element("4285", 2))
    segment = [element("1549a966", element("2ad7b1", 1_000_000)), element("1654ae6b", track)]
    cluster = element("1f43b675", element("e7", 0), *blocks)
    Path(path).write_bytes(head + element("18538067", *segment, cluster))
    return Path(path)


def tiny_tokenizer() -> MBartTokenizer:
    """Whole words, their letters, digits, and a language code."""
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [("▁" + word, -2.0) for word in WORDS]
    characters = [("▁", -3.0), *((character, -5.0) for character in "abcdefghijklmnopqrstuvwxyzäöüß0123456789.,")]
    return MBartTokenizer(vocab=specials + words + characters, src_lang="de_DE", tgt_lang="de_DE")


def tiny_processor(size: int = 40, crop_size: int = 32, **options) -> FlaProcessor:
    video_processor = FlaVideoProcessor(
        size={"height": size, "width": size}, crop_size={"height": crop_size, "width": crop_size}, **options
    )
    return FlaProcessor(video_processor, tiny_tokenizer())


def tiny_model(tokenizer: MBartTokenizer, seed: int = 0) -> FlaForConditionalGeneration:
    """Random weights; the backbone is a ResNet of two narrow stages."""
    torch.manual_seed(seed)
    backbone = {
        "model_type": "resnet", "layer_type": "basic", "depths": [1, 1], "hidden_sizes": [8, 12], "embedding_size": 8
    }  # fmt: skip
    config = FlaConfig.light_t(
        "tiny",
        vocab_size=len(tokenizer),
        vision_config={"backbone_config": backbone, "hidden_size": 20},
        d_model=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("de_DE"),
        init_std=0.7,  # random sentences then differ from video to video
    )
    return FlaForConditionalGeneration(config).eval()
