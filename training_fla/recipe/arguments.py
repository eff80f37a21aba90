"""The lines of a recipe, by topic: what each is called, its type, its default and what it does."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers.hf_argparser import HfArg

from training_fla.errors import InputError


def option(default: Any, text: str) -> Any:
    """A line of a recipe: its default, and what `--help` says of it."""
    return HfArg(default=default, help=text)


LightTSize = Literal["tiny", "small", "base", "large"]


@dataclass
class DataArguments:
    """Which corpus, and how a video becomes frames."""

    _argument_group_name = "data"

    # `str` after `list`: the parser of transformers takes the second of several types for text.
    dataset: list | str | None = option(
        None,
        "folder of a packed corpus, as `fla prepare` writes it; or a list, of each corpus a folder or a mapping with "
        "path, name, weight, language, convention",
    )
    sampling_temperature: float = option(
        1.0, "of several corpora: draw each in proportion to weight times clips to the power of 1 by this number"
    )
    manifest: str | None = option(None, "instead of `dataset`: a table (CSV, TSV, JSONL) of videos and sentences")
    streaming: bool = option(False, "read training clips as they come: `dataset` is a folder, fsspec URL or Hub id")
    shuffle_buffer: int = option(128, "number of clips of a stream that each worker shuffles, about 2 MB each")
    video_column: str = option("video", "column of `manifest` that holds the video's path")
    sentence_column: str = option("sentence", "column of `manifest` that holds the sentence")
    follow_links: bool = option(False, "trust symbolic links that lead out of the folder of `manifest`")
    no_times: bool = option(False, "do not read start and end of `manifest`, because the clips are cut already")
    packed_dir: str | None = option(
        None, "folder that `manifest` is packed into; default: a folder beside `output_dir`"
    )
    packed_size: int = option(256, "side in pixels of the frames packed from `manifest`")
    on_error: Literal["fail", "skip"] = option("fail", "what to do with a clip of `manifest` that cannot be packed")
    train_split: str = option("train", "split that is trained on")
    dev_split: str = option("dev", "split that chooses the model")
    test_split: str = option("test", "split that is reported")
    max_train_clips: int | None = option(
        None, "use only this number of training clips, from the first, of each corpus"
    )
    max_eval_clips: int | None = option(
        None, "use only this number of dev clips and of test clips, from the first, of each corpus"
    )
    target_fps: float | None = option(
        None, "thin faster clips to this number of frames a second first; null: whatever their rate, as in the paper"
    )
    frame_stride: int | None = option(None, "keep one frame of this number of frames; default: the paper's")
    max_source_frames: int | None = option(None, "thin longer clips to this number of source frames first")
    frame_size: int = option(256, "resize frames to a square with this side, in pixels")
    crop_size: int = option(224, "cut out a square with this side: in the middle, or at random in training")
    random_frame_phase: bool | None = option(
        None, "keep a random frame of each stride; default: only if the encoder is trained"
    )
    augmentation_probability: float | None = option(
        None, "probability of each of rotation, shift and zoom; default: 0.5 if the encoder is trained"
    )
    rotate_degrees: float | None = option(None, "rotate by at most this number of degrees; default: GFSLT-VLP's")
    translate_pixels: float | None = option(
        None, "shift by at most this number of source pixels; default: GFSLT-VLP's"
    )
    resize_factor: float | None = option(None, "zoom by at most this share; default: no zoom")
    frames_per_batch: int | None = option(None, "most frames of a training batch, with padding; null: count clips")
    score_convention: str = option("auto", "how sentences are scored; auto: by corpus, then by script")


@dataclass
class TextArguments:
    """The tokenizer, shared by both stages (paper Sec. 4.2)."""

    _argument_group_name = "text"

    tokenizer: str | None = option(None, "folder or Hub id of the (trimmed) tokenizer")
    language_code: str | None = option(
        None, "language token of the targets, e.g. de_DE; default: the tokenizer's. Of several corpora: the default"
    )
    max_target_tokens: int = option(128, "refuse training targets with more tokens than this")
    max_new_tokens: int | None = option(None, "longest translation, in tokens; default: the pipeline's")


@dataclass
class VisualArguments:
    """A visual encoder: another model's, or one that starts from scratch or from ImageNet."""

    _argument_group_name = "model"

    stage1_checkpoint: str | None = option(None, "folder or Hub id whose visual encoder is taken; null: a new one")
    vision_backbone: dict | None = option(None, "config of a backbone, with `model_type`; default: ResNet18")
    imagenet_weights: str | None = option(None, "torchvision, microsoft/resnet-18, or a file; null: random weights")
    visual_feature_size: int | None = option(None, "number of channels C of the sign features; default: 512")
    temporal_kernel_size: int | None = option(None, "width of the temporal convolution in sampled frames; default: 5")

    def __post_init__(self):
        given = [f.name for f in dataclasses.fields(VisualArguments)[1:] if getattr(self, f.name) is not None]
        if self.stage1_checkpoint and given:
            raise InputError(f"`{given[0]}` would have no effect; the visual encoder is that of `stage1_checkpoint`")


@dataclass
class Stage1Arguments(VisualArguments):
    """Stage 1, visual initialing: what stands around the visual encoder."""

    light_t: LightTSize = option("base", "size of Light-T (Table 7)")
    light_t_overrides: dict = HfArg(default_factory=dict, help="fields of Light-T's config to change")
    adapter_hidden_size: int | None = option(None, "hidden width of the VL-Adapter; default: D")
    train_tokenizer_pieces: int | None = option(
        None, "instead of `tokenizer`: train one with at most this number of pieces"
    )


@dataclass
class Stage2Arguments(VisualArguments):
    """Stage 2, LLM fine-tuning: which visual encoder, which language model, what is frozen."""

    language_model: str | None = option(None, "folder or Hub id of the pre-trained language model")
    language_model_config: dict | None = option(None, "instead of `language_model`: config of a random one (Table 10)")
    language_model_dtype: Literal["float32", "bfloat16", "float16"] = option(
        "float32", "type of the weights; use another than float32 only for a frozen language model"
    )
    language_model_quantization: dict | None = option(
        None, "with `peft`: fields of BitsAndBytesConfig, e.g. {load_in_4bit: true}"
    )
    random_language_model: bool = option(False, "take only the architecture of `language_model` (Table 10)")
    language_model_overrides: dict = HfArg(default_factory=dict, help="fields of its config to change, e.g. dropout")
    peft: dict | None = option(None, "freeze the language model and adapt it: {type: lora, r: 8}; merged at the end")
    one_run_light_t: LightTSize | None = option(None, "size of a Light-T that teaches the encoder in the same run")
    one_run_light_t_overrides: dict = HfArg(default_factory=dict, help="fields of that Light-T's config to change")
    input_features: Literal["frame", "sign", "hidden"] = option("sign", "what the LLM-Adapter reads (Table 8)")
    freeze_vision_backbone: bool = option(True, "freeze the backbone (Table 9)")
    freeze_temporal_module: bool = option(True, "freeze the temporal module (Table 9)")
    adapter_hidden_size: int | None = option(None, "hidden width of the LLM-Adapter; default: D")
    input_embed_scale: float = option(1.0, "factor on the sign embeddings")
    feature_cache: str | None = option(
        "auto", "folder for stored features; auto: store them if they stay the same; null: never"
    )
    feature_dtype: Literal["float32", "bfloat16"] = option("float32", "type of the stored features")

    def __post_init__(self):
        super().__post_init__()
        if self.language_model_quantization and not (self.peft and self.language_model):
            raise InputError("language_model_quantization is for a `language_model` beside `peft`: set both")


@dataclass
class OptimizationArguments:
    """The optimizers of the paper, beside what `Seq2SeqTrainingArguments` already names."""

    _argument_group_name = "optimization"

    total_batch_size: int | None = option(
        None, "clips of a step on all processes together; replaces `per_device_train_batch_size`"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "the paper's are sgd in stage 1 and adam in stage 2")
    visual_optimizer: Literal["sgd", "adam", "adamw"] | None = option(
        None, "optimizer of the visual encoder alone; default: `optimizer`"
    )
    momentum: float = option(0.9, "momentum of SGD")
    nesterov: bool = option(False, "use Nesterov momentum in SGD")
    adapter_learning_rate: float | None = option(None, "learning rate of the adapter; default: `learning_rate`")
    visual_learning_rate: float | None = option(
        None, "learning rate of visual encoder and Light-T; default: `learning_rate`"
    )
    freeze_batch_norm_statistics: bool = option(
        False, "freeze BatchNorm's running statistics, and train with them instead of the batch's"
    )
    norm_logging_steps: int | None = option(
        None, "write norms of the last layers after every this number of steps (Figure 2)"
    )
    early_stopping_patience: int | None = option(None, "stop after this number of evaluations without a better score")


@dataclass
class RunArguments:
    """How a run treats its output folder."""

    _argument_group_name = "output folder"

    resume: bool = option(False, "go on from the last whole checkpoint in `output_dir`")
    overwrite: bool = option(False, "remove the run in `output_dir` and start anew")
    check: bool = option(False, "only print what the run would need, from a few timed steps; nothing is written")


STAGES = {"stage1": Stage1Arguments, "stage2": Stage2Arguments}
COMMON = (DataArguments, TextArguments, OptimizationArguments, RunArguments)


@dataclass
class Recipe:
    """A parsed recipe: one object a topic, fields for `Seq2SeqTrainingArguments`, and all lines, defaults included."""

    model: Stage1Arguments | Stage2Arguments
    data: DataArguments
    text: TextArguments
    optimization: OptimizationArguments
    run: RunArguments
    training: dict[str, Any]
    resolved: dict[str, Any]
    given: frozenset[str] = frozenset()  # of the resolved lines, those of the file and the command line
    start: dict[str, str] = dataclasses.field(default_factory=dict)  # of `stage1_checkpoint`: what was taken

    @property
    def output_dir(self) -> Path:
        """The run's folder."""
        return Path(self.training["output_dir"])
