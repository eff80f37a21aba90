"""A recipe: what a YAML file and the command line say, checked and typed.

`--name value` on the command line wins over the recipe, a recipe over its `base:` recipe, that over the defaults.
"""

import dataclasses
import difflib
import enum
import functools
import os
import re
import typing
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers.hf_argparser import HfArg, HfArgumentParser

from training_fla.errors import InputError

# Fields of Seq2SeqTrainingArguments whose defaults are wrong for this task.
TRAINING_DEFAULTS: dict[str, Any] = {
    "label_smoothing_factor": 0.2,  # Paper: Sec. 5.2, both stages
    "lr_scheduler_type": "cosine",  # Paper: Sec. 5.2, both stages
    "max_grad_norm": 0.0,  # Unstated: neither the paper nor the systems it follows clip; transformers clips at 1.0
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the last
    "load_best_model_at_end": True,
    "metric_for_best_model": "bleu4",  # Unstated: BLEU-4 on dev, as GFSLT-VLP and TwoStream choose
    "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting after --resume
    "report_to": "none",
    "logging_steps": 50,
    "logging_nan_inf_filter": False,  # a loss that is no number ends the run; the filter waits for it twice a step
    "train_sampling_strategy": "random",
    "ddp_find_unused_parameters": False,  # every trained parameter has a gradient at every step
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "predict_with_generate": True,
    "remove_unused_columns": False,  # the Trainer would drop the video column
    "hub_strategy": "end",  # on every save transformers would upload whatever lies in the folder
}
# Fields of Seq2SeqTrainingArguments that cannot be changed, by what to do instead or why.
REFUSED = {
    name: reason
    for reason, names in {
        "give --resume": "resume_from_checkpoint",
        "a run trains, evaluates on dev and reports test": "do_train do_eval do_predict",
        "dev and test are translated clip by clip": "predict_with_generate prediction_loss_only include_for_metrics "
        "eval_do_concat_batches eval_use_gather_object eval_accumulation_steps batch_eval_metrics",
        "set `max_new_tokens`": "generation_max_length",
        "set `generation_num_beams` and `max_new_tokens`": "generation_config",
        "set `optimizer`, and `momentum` or `adam_beta1` and so on": "optim optim_args optim_target_modules",
        "every clip of every split is read": "dataloader_drop_last",
        "the collator names its columns": "remove_unused_columns label_names length_column_name",
        "set `train_sampling_strategy: group_by_length`": "sortish_sampler",
        "set `total_batch_size`, or `frames_per_batch`": "auto_find_batch_size",
        "training keeps nothing of earlier steps": "use_cache",
        "it has no kernels for these models": "use_liger_kernel liger_kernel_config",
        "the encoder reads videos, not text": "neftune_noise_alpha",
        "metrics.json counts frames and target tokens": "include_num_input_tokens_seen",
        "evaluation has the precision of training": "bf16_full_eval fp16_full_eval",
        "the model is pushed once, at the end": "hub_strategy hub_always_push",
        "it belongs to the launcher": "parallelism_config local_rank",
        "it follows `metric_for_best_model`": "greater_is_better",
    }.items()
    for name in names.split()
}
# The least value of fields that nothing else checks before an old run is removed.
LEAST = {
    name: least
    for least, names in {
        1: "frame_stride max_source_frames packed_size frame_size crop_size max_train_clips max_eval_clips "
        "shuffle_buffer frames_per_batch max_target_tokens max_new_tokens generation_num_beams train_tokenizer_pieces "
        "adapter_hidden_size visual_feature_size temporal_kernel_size early_stopping_patience norm_logging_steps "
        "total_batch_size per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps",
        0: "learning_rate adapter_learning_rate visual_learning_rate weight_decay momentum label_smoothing_factor "
        "max_grad_norm num_train_epochs dataloader_num_workers",
    }.items()
    for name in names.split()
}
# Lines that a run keeps only where they are given: they follow from other lines or from the machine.
DERIVED = (
    "dataloader_pin_memory", "dataloader_persistent_workers", "accelerator_config", "ignore_data_skip", "run_name",
    "project", "debug",
)  # fmt: skip
# Lines that say nothing of what is learnt, or are a secret.
NOT_KEPT = ("resume", "overwrite", "hub_token")
# Lines whose default is another part's; the run keeps what that part decided.
DECIDED_LATER = (
    "frame_stride", "random_frame_phase", "augmentation_probability", "rotate_degrees", "resize_factor",
    "translate_pixels", "visual_feature_size", "temporal_kernel_size", "generation_num_beams", "max_new_tokens",
)  # fmt: skip
# Lines in which a run may differ from the one that it resumes: clips a step are compared in place of the first two.
FREE_TO_CHANGE = ("output_dir", "total_batch_size", "per_device_train_batch_size", "ddp_backend", "ddp_timeout")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
# Two ways to say one thing: of lines given at different places the later counts, and no place gives both.
BATCH_LINES = ("total_batch_size", "per_device_train_batch_size")
DEVICE_BATCH_SIZE = 8  # transformers' own
NO_VALUE = ("", "~", "null")  # what YAML writes for nothing
LightTSize = Literal["tiny", "small", "base", "large"]


def option(default: Any, text: str) -> Any:
    """A line of a recipe: its default, and what `--help` says of it."""
    return HfArg(default=default, help=text)


@dataclass
class DataArguments:
    """Which corpus, and how a video becomes frames."""

    _argument_group_name = "data"

    dataset: str | None = option(None, "packed corpus folder, as `fla prepare` writes it")
    manifest: str | None = option(None, "instead of `dataset`: a table (CSV, TSV, JSONL) of videos and sentences")
    streaming: bool = option(False, "read training clips as they come: `dataset` is a folder, fsspec URL or Hub id")
    shuffle_buffer: int = option(128, "of a stream: clips that a worker shuffles, about 2 MB each")
    video_column: str = option("video", "column of `manifest` that holds the video's path")
    sentence_column: str = option("sentence", "column of `manifest` that holds the sentence")
    follow_links: bool = option(False, "trust symbolic links that lead out of the folder of `manifest`")
    no_times: bool = option(False, "leave start and end of `manifest` unread: clips are cut already")
    packed_dir: str | None = option(None, "where `manifest` is packed to; default: beside `output_dir`")
    packed_size: int = option(256, "side in pixels of the frames packed from `manifest`")
    on_error: Literal["fail", "skip"] = option("fail", "at a clip of `manifest` that cannot be packed")
    train_split: str = option("train", "split that is trained on")
    dev_split: str = option("dev", "split that chooses the model")
    test_split: str = option("test", "split that is reported")
    max_train_clips: int | None = option(None, "use only the first so many training clips")
    max_eval_clips: int | None = option(None, "use only the first so many dev and test clips")
    frame_stride: int | None = option(None, "keep one frame in so many; default: the paper's")
    max_source_frames: int | None = option(None, "longer clips are first thinned to so many source frames")
    frame_size: int = option(256, "frames are resized to this side in pixels ...")
    crop_size: int = option(224, "... and this side is cut out: in the middle, or at random in training")
    random_frame_phase: bool | None = option(None, "random frame of a stride; default: where the encoder is trained")
    augmentation_probability: float | None = option(
        None, "of the next three, each; default: 0.5 for a trained encoder"
    )
    rotate_degrees: float | None = option(None, "rotate by up to so many degrees; default: GFSLT-VLP's")
    translate_pixels: float | None = option(None, "shift by up to so many source pixels; default: GFSLT-VLP's")
    resize_factor: float | None = option(None, "zoom by up to this share; default: not at all")
    frames_per_batch: int | None = option(None, "most frames of a training batch, with padding; null: count clips")
    score_convention: str = option("auto", "how sentences are scored; auto: by corpus, then by script")


@dataclass
class TextArguments:
    """The tokenizer, shared by both stages (paper Sec. 4.2)."""

    _argument_group_name = "text"

    tokenizer: str | None = option(None, "folder or Hub id of the (trimmed) tokenizer")
    language_code: str | None = option(None, "token a target ends with, e.g. de_DE; default: the tokenizer's")
    max_target_tokens: int = option(128, "longer training targets are refused")
    max_new_tokens: int | None = option(None, "longest translation, in tokens; default: the pipeline's")


@dataclass
class VisualArguments:
    """A visual encoder: another model's, or one that starts from scratch or from ImageNet."""

    _argument_group_name = "model"

    stage1_checkpoint: str | None = option(None, "folder or Hub id whose visual encoder is taken; null: a new one")
    vision_backbone: dict | None = option(None, "config of a backbone, with `model_type`; default: ResNet18")
    imagenet_weights: str | None = option(None, "torchvision, microsoft/resnet-18, or a file; null: random weights")
    visual_feature_size: int | None = option(None, "channels C of the sign features; default: 512")
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
    train_tokenizer_pieces: int | None = option(None, "instead of `tokenizer`: train one of at most so many pieces")


@dataclass
class Stage2Arguments(VisualArguments):
    """Stage 2, LLM fine-tuning: which visual encoder, which language model, what is frozen."""

    language_model: str | None = option(None, "folder or Hub id of the pre-trained language model")
    language_model_config: dict | None = option(None, "instead of `language_model`: config of a random one (Table 10)")
    language_model_dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "others where it is frozen")
    language_model_quantization: dict | None = option(
        None, "beside `peft`, of BitsAndBytesConfig: {load_in_4bit: true}"
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
    feature_cache: str | None = option("auto", "store features; auto: where they stay the same; a folder; null: never")
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
        None, "clips of an optimizer step on all processes together, instead of `per_device_train_batch_size`"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "the paper's are sgd in stage 1 and adam in stage 2")
    momentum: float = option(0.9, "of SGD")
    nesterov: bool = option(False, "of SGD")
    adapter_learning_rate: float | None = option(None, "of the adapter; default: `learning_rate`")
    visual_learning_rate: float | None = option(None, "of visual encoder and Light-T; default: `learning_rate`")
    freeze_batch_norm_statistics: bool = option(False, "train with BatchNorm's running statistics, not the batch's")
    norm_logging_steps: int | None = option(None, "every so many steps, norms of the last layers (Figure 2)")
    early_stopping_patience: int | None = option(None, "stop after so many evaluations without a better score")


@dataclass
class RunArguments:
    """How a run treats its output folder."""

    _argument_group_name = "output folder"

    resume: bool = option(False, "go on from the last whole checkpoint in `output_dir`")
    overwrite: bool = option(False, "remove the run in `output_dir` and start anew")


STAGES = {"stage1": Stage1Arguments, "stage2": Stage2Arguments}
PAPERS_CLIPS_A_STEP = {"stage1": 8, "stage2": 16}  # Paper: Sec. 5.2
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


class RecipeHelp(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the description as it is written."""


class RecipeLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, and reads `1e-3` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As in YAML, of which the last of equal keys would be kept in silence."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise InputError(f"{mark.name}, line {mark.line + 1}: key `{key}` is given twice")
        return super().construct_mapping(node, deep)


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_recipe(stage_class: type, argv: list[str], usage: str) -> Recipe:
    """Read `RECIPE.yaml --name value ...` into a recipe of [`Stage1Arguments`] or [`Stage2Arguments`]."""
    classes = (stage_class, *COMMON)
    if not argv or {"-h", "--help"} & set(argv):
        print_help(classes, usage)
        raise SystemExit(0 if argv else 2)
    files = [] if argv[0].startswith("--") else [argv[0]]
    lines = read_recipe(Path(files[0])) if files else {}
    values = convert(stage_class, override(lines, read_overrides(argv[len(files) :]), "the command line"))
    if not values.get("output_dir"):
        raise InputError("the recipe names no `output_dir`; add the line or give --output_dir FOLDER")
    own = {f.name for cls in classes for f in dataclasses.fields(cls)}
    training = {name: value for name, value in values.items() if name not in own}
    resolved = effective_lines(stage_class, values)
    objects = HfArgumentParser(classes).parse_dict(values, allow_extra_keys=True)
    return Recipe(*objects, training=TRAINING_DEFAULTS | training, resolved=resolved, given=frozenset(values))


@functools.cache
def default_lines(stage_class: type) -> dict[str, Any]:
    """The default of every line that a run keeps; do not change it."""
    from transformers import Seq2SeqTrainingArguments

    lines = {}
    for cls in (stage_class, *COMMON, Seq2SeqTrainingArguments):
        for field in dataclasses.fields(cls):
            made = field.default_factory() if field.default is dataclasses.MISSING else field.default
            default = TRAINING_DEFAULTS.get(field.name, made)
            lines[field.name] = default.value if isinstance(default, enum.Enum) else default
    for name in (*REFUSED, *DERIVED, *NOT_KEPT, "output_dir"):
        lines.pop(name, None)
    return lines


def effective_lines(stage_class: type, values: dict[str, Any]) -> dict[str, Any]:
    """All lines of a recipe, those that were given first; no secret, and a path as it was given."""
    defaults = dict(default_lines(stage_class))
    if values.get("total_batch_size") is not None:
        del defaults["per_device_train_batch_size"]
    lines = {name: value for name, value in values.items() if name not in NOT_KEPT}
    lines |= {name: value for name, value in defaults.items() if name not in lines}
    return {name: CREDENTIALS.sub("", value) if isinstance(value, str) else value for name, value in lines.items()}


def stage_of(lines: Mapping[str, Any]) -> str:
    """Of which stage kept lines are, by what only one of them has; up to 0.3.0 a run kept what was given."""
    if {"light_t", "light_t_overrides", "train_tokenizer_pieces"} & lines.keys():
        return "stage1"
    return "stage2" if {"stage1_checkpoint", "language_model", "language_model_config"} & lines.keys() else "stage1"


def print_help(classes: tuple[type, ...], usage: str) -> None:
    """Print every field of ours with its default; transformers' own need torch."""
    defaults = ", ".join(f"{name} {default}" for name, default in TRAINING_DEFAULTS.items() if name not in REFUSED)
    HfArgumentParser(
        classes,
        usage="run_stageN.py RECIPE.yaml [--name value ...]",
        description=usage,
        epilog=f"Every field of transformers' Seq2SeqTrainingArguments, too. Other defaults here: {defaults}",
        formatter_class=RecipeHelp,
    ).print_help()


def read_recipe(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The lines of a recipe and its `base:` recipes: plain values as they are written, mappings and lists as YAML."""
    if file.resolve() in seen:
        raise InputError(f"{file}: its `base:` lines lead back to itself")
    try:
        with open(file, encoding="utf-8-sig") as opened:
            loader = RecipeLoader(opened)
            node = loader.get_single_node()
            if node is None:
                return {}
            if not isinstance(node, yaml.MappingNode):
                raise InputError(f"{file} is not a recipe: it holds no `key: value` lines")
            values = loader.construct_mapping(node, deep=True)
    except FileNotFoundError:
        raise InputError(f"there is no recipe {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read recipe {file}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {error}") from None
    # The type of the field decides what `no` or `0123` is, not YAML.
    plain = {key.value: value.value for key, value in node.value if isinstance(value, yaml.ScalarNode)}
    lines = {key: expand_variables(plain[key], file) if key in plain else value for key, value in values.items()}
    base = lines.pop("base", None)
    earlier = {} if base is None else read_recipe(file.parent / base, (*seen, file.resolve()))
    return override(earlier, lines, str(file))


def override(lines: dict[str, Any], later: dict[str, Any], place: str) -> dict[str, Any]:
    """Lines with later ones, given at `place`, over them; either line of the batch's size replaces the other."""
    given = [name for name in BATCH_LINES if later.get(name) not in (None, *NO_VALUE)]
    if len(given) == 2:
        raise InputError(f"{place} gives both `{given[0]}` and `{given[1]}`: give one of the two")
    replaced = set(BATCH_LINES) if given else set()
    return {name: value for name, value in lines.items() if name not in replaced} | later


def clips_a_process(total_batch_size: int, num_processes: int, accumulation: int = 1) -> int:
    """The clips of one batch of one process; a batch that cannot be shared out equally is refused."""
    clips, rest = divmod(total_batch_size, num_processes * accumulation)
    if rest:  # also where there are fewer clips than processes
        times = "" if accumulation == 1 else f" with gradient_accumulation_steps {accumulation}"
        fitting = [str(n) for n in range(1, total_batch_size + 1) if total_batch_size % (n * accumulation) == 0]
        remedy = f"launch {', '.join(fitting)}" if fitting else "choose another gradient_accumulation_steps"
        raise InputError(
            f"total_batch_size {total_batch_size} cannot be shared out to {num_processes} process(es){times}: "
            f"{remedy}, or give another total_batch_size"
        )
    return clips


def clips_a_step(lines: Mapping[str, Any], num_processes: int = 1) -> int:
    """The clips of one optimizer step of a recipe's typed lines, on all processes together.

    With `frames_per_batch` it is the most that a step may have.
    """
    accumulation = lines.get("gradient_accumulation_steps") or 1
    total = lines.get("total_batch_size")
    if total is not None:
        return clips_a_process(total, num_processes, accumulation) * num_processes * accumulation
    return lines.get("per_device_train_batch_size", DEVICE_BATCH_SIZE) * num_processes * accumulation


def expand_variables(text: str, file: Path) -> str:
    """Fill `${NAME}` and `${NAME:-default}` from the environment."""

    def fill(match: re.Match) -> str:
        name, default = match["name"], match["default"]
        if name not in os.environ and default is None:
            raise InputError(f"{file} uses ${{{name}}}, which is not set in the environment")
        return os.environ.get(name, default)

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", fill, text)


def read_overrides(arguments: list[str]) -> dict[str, str]:
    """The values of `--name value`, `--name=value` and bare `--flag` (true), by name."""
    lines: dict[str, str] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"expected --name value, got `{word}`")
        name, equals, text = word[2:].partition("=")
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else "true"
        if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text):
            text = text[1:-1]
        lines[name.replace("-", "_")] = text
    return lines


class RecipeParser(HfArgumentParser):
    """Raises where argparse would print its usage and exit."""

    def error(self, message: str):
        """`message` is argparse's, of a value that does not fit its field."""
        raise InputError(re.sub(r"^argument --(\w+)\S*?: ", r"`\1`: ", message))


@functools.cache
def recipe_parser(stage_class: type) -> tuple[RecipeParser, dict[str, Any], dict[str, Any]]:
    """The parser of all fields, their types, and the defaults of transformers' fields."""
    from transformers import Seq2SeqTrainingArguments

    classes = [stage_class, *COMMON, Seq2SeqTrainingArguments]
    types = {name: kind for cls in classes for name, kind in typing.get_type_hints(cls).items()}
    names = [f.name for cls in classes for f in dataclasses.fields(cls)]
    defaults = {f.name: f.default for f in dataclasses.fields(Seq2SeqTrainingArguments)}
    return RecipeParser(classes, allow_abbrev=False), {name: types[name] for name in names}, defaults


def convert(stage_class: type, lines: dict[str, Any]) -> dict[str, Any]:
    """Give every line the type of its field; refuse unknown keys, other types, and lines without effect."""
    parser, types, defaults = recipe_parser(stage_class)
    values: dict[str, Any] = {}
    for name, value in lines.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1, cutoff=0.75)  # below, names are alike by chance
            raise InputError(f"unknown recipe key `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        options = typing.get_args(types[name]) if type(None) in typing.get_args(types[name]) else (types[name],)
        kinds = [typing.get_origin(option) or option for option in options]
        if value in NO_VALUE:
            if type(None) not in kinds:
                raise InputError(f"`{name}` needs a value, got none")
            value = None
        elif name in ("fsdp", "debug") or (isinstance(value, str) and value[:1] in "{[" and {dict, list} & set(kinds)):
            try:
                value = yaml.load(value, RecipeLoader)
            except yaml.YAMLError as error:
                raise InputError(f"`{name}` is not YAML: {error}") from None
        elif isinstance(value, str):
            value = getattr(parser.parse_args([f"--{name}={value}"]), name)
        elif type(value) not in kinds:
            raise InputError(f"`{name}` must not be a {'mapping' if isinstance(value, dict) else 'list'}, got {value}")
        if name in REFUSED and value != TRAINING_DEFAULTS.get(name, defaults[name]):
            raise InputError(f"`{name}: {value}` would have no effect; {REFUSED[name]}")
        if value is not None and name in LEAST and not value >= LEAST[name]:
            raise InputError(f"`{name}` must be at least {LEAST[name]}, got {value}")
        if name == "label_smoothing_factor" and value > 1:
            raise InputError(f"`{name}` must be at most 1, got {value}")
        values[name] = value
    return values


def read_lines(stage_class: type, file: Path) -> dict[str, Any]:
    """The lines of a recipe, each with the type of its field."""
    return convert(stage_class, read_recipe(file))


def read_kept_lines(stage_class: type, file: Path) -> dict[str, Any]:
    """The lines that a run has kept; those of another version that this one does not know are left out."""
    known = recipe_parser(stage_class)[1]
    return convert(stage_class, {name: value for name, value in read_recipe(file).items() if name in known})


# Lines that stage 2 shares with its stage 1.
SHARED = (
    "dataset", "manifest", "streaming", "video_column", "sentence_column", "follow_links", "no_times", "packed_dir",
    "packed_size", "on_error", "train_split", "dev_split", "test_split", "frame_stride", "max_source_frames",
    "frame_size", "crop_size", "score_convention", "language_code",
)  # fmt: skip
OWN_CLIPS = Path("recipes/own_clips/stage2.yaml")


def stage2_words(recipe: Recipe, file: str) -> list[str]:
    """What goes behind `run_stage2.py` after a stage 1 of the recipe `file`: a recipe and the lines it lacks.

    The recipe of stage 2 is the one beside that of stage 1, else the one for clips of one's own.
    """
    first = Path(file)
    beside = (first.with_name(first.name.replace("stage1", "stage2")), first.with_name("stage2.yaml"))
    second = next((path for path in beside if path != first and path.is_file()), OWN_CLIPS)
    lines = read_lines(Stage2Arguments, second) if second.is_file() else {}
    defaults = {
        field.name: field.default for part in (DataArguments, TextArguments) for field in dataclasses.fields(part)
    }
    run = recipe.output_dir
    words = {name: recipe.resolved.get(name, defaults[name]) for name in SHARED}
    words = {name: value for name, value in words.items() if value != lines.get(name, defaults[name])}
    source = "manifest" if recipe.data.manifest else "dataset"
    words = {source: recipe.resolved[source]} | words | {"stage1_checkpoint": run}
    if lines.get("tokenizer") not in (None, recipe.text.tokenizer) and not lines.get("language_model"):
        words["tokenizer"] = run
    if _is_language_model(recipe.text.tokenizer) and lines.get("language_model") != recipe.text.tokenizer:
        words["language_model"] = recipe.text.tokenizer  # stage 1 has its tokenizer
        words |= {"language_model_config": None} if "language_model_config" in lines else {}
    if Path(lines.get("output_dir", run)).parent != run.parent:
        name = run.name.replace("stage1", "stage2")
        words["output_dir"] = run.with_name(name if name != run.name else f"{run.name}-stage2")
    texts = {None: "null", True: "true", False: "false"}
    given = ((f"--{name}", texts.get(value, str(value))) for name, value in words.items())
    return [str(second), *(word for pair in given for word in pair)]


def _is_language_model(folder: str | None) -> bool:
    """Whether a folder holds a language model with its tokenizer, and no run."""
    names = ("config.json", "processor_config.json")
    return [(Path(folder) / name).is_file() for name in names] == [True, False] if folder else False
