"""A recipe: what a YAML file and the command line say, checked and typed before anything heavy is imported.

Every number of a run has one home: a field here, a field of transformers' `Seq2SeqTrainingArguments`, or the recipe
line that sets it. `--name value` on the command line wins over the recipe, a recipe over its `base:` recipe, that over
the defaults.
"""

import dataclasses
import difflib
import os
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_fla.files import InputError

# Fields of Seq2SeqTrainingArguments whose defaults are wrong for this task; a recipe may still change them.
TRAINING_DEFAULTS: dict[str, Any] = {
    "remove_unused_columns": False,  # the Trainer would drop the video column
    "label_smoothing_factor": 0.2,  # Paper: Sec. 5.2, both stages
    "lr_scheduler_type": "cosine",  # Paper: Sec. 5.2, both stages
    "max_grad_norm": 0.0,  # Unstated: neither the paper nor the systems it follows clip; transformers clips at 1.0
    "predict_with_generate": True,
    "generation_num_beams": 5,  # Paper: Sec. 5.2
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the last
    "load_best_model_at_end": True,
    "metric_for_best_model": "bleu4",  # Unstated: BLEU-4 on dev, as GFSLT-VLP and TwoStream choose
    "greater_is_better": True,
    "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting after --resume
    "report_to": "none",
    "logging_steps": 50,
    "logging_nan_inf_filter": False,  # a loss that is no number ends the run; the filter waits for it twice a step
    "train_sampling_strategy": "random",
}


@dataclass
class DataArguments:
    """Which corpus, and how a video becomes frames."""

    dataset: str | None = field(default=None, metadata={"help": "packed corpus folder, as `fla prepare` writes it"})
    manifest: str | None = field(
        default=None,
        metadata={"help": "own data instead of `dataset`: a CSV, TSV or JSONL table of videos and sentences"},
    )
    video_column: str = field(default="video", metadata={"help": "column of `manifest` that holds the video's path"})
    sentence_column: str = field(default="sentence", metadata={"help": "column of `manifest` that holds the sentence"})
    packed_dir: str | None = field(
        default=None, metadata={"help": "where `manifest` is packed to; default: beside `output_dir`, kept and reused"}
    )
    packed_size: int = field(default=256, metadata={"help": "side in pixels of the frames packed from `manifest`"})
    on_error: str = field(
        default="fail", metadata={"help": "at a clip of `manifest` that cannot be packed: fail, or skip and list it"}
    )
    train_split: str = field(default="train", metadata={"help": "split that is trained on"})
    dev_split: str = field(default="dev", metadata={"help": "split that chooses the model"})
    test_split: str = field(default="test", metadata={"help": "split that is reported"})
    max_train_clips: int | None = field(default=None, metadata={"help": "use only the first so many training clips"})
    max_eval_clips: int | None = field(
        default=None, metadata={"help": "use only the first so many dev and test clips"}
    )
    frame_stride: int = field(default=4, metadata={"help": "keep one frame in so many; 4 is the paper's 25 %"})
    max_source_frames: int | None = field(
        default=None, metadata={"help": "longer clips are thinned to so many source frames before `frame_stride`"}
    )
    frame_size: int = field(default=256, metadata={"help": "frames are resized to this side in pixels ..."})
    crop_size: int = field(
        default=224, metadata={"help": "... and this side is cut out: in the middle, or at random in training"}
    )
    random_frame_phase: bool | None = field(
        default=None,
        metadata={
            "help": "in training, keep a random frame of each window of `frame_stride`; default: where the visual "
            "encoder is trained"
        },
    )
    augmentation_probability: float | None = field(
        default=None,
        metadata={
            "help": "chance of each augmentation below, per clip; default: 0.5 where the visual encoder is trained, "
            "else 0; with 0 and no random phase, training sees a clip as evaluation does"
        },
    )
    rotate_degrees: float = field(default=30.0, metadata={"help": "rotate by up to so many degrees; 0 for never"})
    resize_factor: float = field(default=0.2, metadata={"help": "resize by up to this share; 0 for never"})
    translate_pixels: float = field(default=10.0, metadata={"help": "shift by up to so many pixels; 0 for never"})
    color_jitter: float = field(
        default=0.0, metadata={"help": "change brightness, contrast, colour by up to this share"}
    )
    frames_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "most sampled frames of a training batch, padding included: as many clips of similar length as "
            "fit, up to `per_device_train_batch_size`; null: always that many"
        },
    )
    score_convention: str = field(
        default="auto",
        metadata={"help": "how sentences are tokenised for BLEU and ROUGE-L; auto: by corpus, then by script"},
    )


@dataclass
class TextArguments:
    """The tokenizer, shared by both stages (paper Sec. 4.2)."""

    tokenizer: str | None = field(default=None, metadata={"help": "folder or Hub id of the (trimmed) tokenizer"})
    language_code: str | None = field(
        default=None,
        metadata={"help": "language token a target ends with, e.g. de_DE; default: what the tokenizer says"},
    )
    max_target_tokens: int = field(default=128, metadata={"help": "longer training targets are refused"})
    max_new_tokens: int = field(default=100, metadata={"help": "longest translation, in tokens"})


@dataclass
class VisualArguments:
    """A visual encoder that starts from scratch or from ImageNet."""

    vision_backbone: dict | None = field(
        default=None,
        metadata={"help": "config of another backbone, as a mapping with `model_type`; default: ResNet18"},
    )
    imagenet_weights: str | None = field(
        default=None,
        metadata={
            "help": "ImageNet weights of the backbone: torchvision, microsoft/resnet-18, or a file; null: random"
        },
    )
    visual_feature_size: int = field(default=512, metadata={"help": "channels C of the sign features"})
    temporal_kernel_size: int = field(
        default=5, metadata={"help": "width of the temporal convolution in sampled frames"}
    )


@dataclass
class Stage1Arguments(VisualArguments):
    """Stage 1, visual initialing: what stands around the visual encoder."""

    light_t: str = field(
        default="base", metadata={"help": "size of Light-T: tiny, small, base or large (paper Table 7)"}
    )
    light_t_overrides: dict = field(default_factory=dict, metadata={"help": "fields of Light-T's config to change"})
    adapter_hidden_size: int | None = field(
        default=None, metadata={"help": "hidden width of the VL-Adapter; default: D"}
    )
    train_tokenizer_pieces: int | None = field(
        default=None,
        metadata={"help": "instead of `tokenizer`: train one of at most so many pieces on the training sentences"},
    )


@dataclass
class Stage2Arguments(VisualArguments):
    """Stage 2, LLM fine-tuning: which visual encoder, which language model, what is frozen."""

    stage1_checkpoint: str | None = field(
        default=None, metadata={"help": "output of run_stage1.py; null: an untrained visual encoder (Tables 4 and 5)"}
    )
    language_model: str | None = field(
        default=None, metadata={"help": "folder or Hub id of the (trimmed) pre-trained language model"}
    )
    language_model_config: dict | None = field(
        default=None, metadata={"help": "instead of `language_model`: config of a randomly initialised one (Table 10)"}
    )
    language_model_dtype: str = field(
        default="float32",
        metadata={"help": "type `language_model` is loaded in: float32; bfloat16 or float16 only where it is frozen"},
    )
    random_language_model: bool = field(
        default=False, metadata={"help": "keep only the architecture of `language_model`, not its weights (Table 10)"}
    )
    language_model_overrides: dict = field(
        default_factory=dict, metadata={"help": "fields of the language model's config to change, e.g. dropout"}
    )
    peft: dict | None = field(
        default=None,
        metadata={"help": "train little beside a still language model: {type: lora, r: 8}; merged at the end"},
    )
    one_run_light_t: str | None = field(
        default=None,
        metadata={"help": "size of a Light-T that teaches the visual encoder in the same run; null: two stages"},
    )
    one_run_light_t_overrides: dict = field(
        default_factory=dict, metadata={"help": "fields of that Light-T's config to change"}
    )
    input_features: str = field(
        default="sign", metadata={"help": "what the LLM-Adapter reads: frame, sign or hidden (Table 8)"}
    )
    freeze_vision_backbone: bool = field(default=True, metadata={"help": "keep the backbone still (Table 9)"})
    freeze_temporal_module: bool = field(default=True, metadata={"help": "keep the temporal module still (Table 9)"})
    adapter_hidden_size: int | None = field(
        default=None, metadata={"help": "hidden width of the LLM-Adapter; default: D"}
    )
    input_embed_scale: float = field(
        default=1.0, metadata={"help": "factor on the sign embeddings before the language model's positions are added"}
    )
    feature_cache: str | None = field(
        default="auto",
        metadata={
            "help": "auto: where the whole encoder is frozen and nothing is augmented, run it once and train on "
            "stored features; a folder: the same, or refuse; null: never"
        },
    )
    feature_dtype: str = field(
        default="float32", metadata={"help": "type of the stored features: float32 or bfloat16"}
    )


@dataclass
class OptimizationArguments:
    """The optimizers of the paper, beside what `Seq2SeqTrainingArguments` already names."""

    optimizer: str = field(default="sgd", metadata={"help": "sgd, adam or adamw"})
    momentum: float = field(default=0.9, metadata={"help": "of SGD"})
    nesterov: bool = field(default=False, metadata={"help": "of SGD"})
    adapter_learning_rate: float | None = field(
        default=None, metadata={"help": "of the adapter; default: `learning_rate`"}
    )
    visual_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "of the visual encoder where it is trained, and of a Light-T beside it; default: `learning_rate`"
        },
    )
    freeze_batch_norm_statistics: bool = field(
        default=False,
        metadata={"help": "normalise with BatchNorm's running statistics in training too: no clip sees its batch"},
    )
    norm_logging_steps: int | None = field(
        default=None,
        metadata={"help": "every so many steps, norms of the last layers go to norms.tsv and norms.png (Figure 2)"},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after so many evaluations without a better dev score"}
    )


@dataclass
class RunArguments:
    """How a run treats its output folder."""

    resume: bool = field(default=False, metadata={"help": "go on from the last whole checkpoint in `output_dir`"})
    overwrite: bool = field(default=False, metadata={"help": "delete what `output_dir` holds and start anew"})


@dataclass
class Recipe:
    """A parsed recipe: one object a topic, and the plain mapping it was made from.

    Args:
        stage ([`Stage1Arguments`] or [`Stage2Arguments`]): the model.
        data ([`DataArguments`]): the corpus.
        text ([`TextArguments`]): the tokenizer.
        optimization ([`OptimizationArguments`]): the optimizer.
        run ([`RunArguments`]): resume or overwrite.
        training (`dict`): fields for `Seq2SeqTrainingArguments`, house defaults filled in.
        resolved (`dict`): every line that was given, after `base:` and the command line; written beside the results.
    """

    stage: Any
    data: DataArguments
    text: TextArguments
    optimization: OptimizationArguments
    run: RunArguments
    training: dict[str, Any]
    resolved: dict[str, Any]

    @property
    def output_dir(self) -> Path:
        """`Path`: the run's folder."""
        return Path(self.training["output_dir"])


def parse_recipe(stage_class: type, argv: list[str], usage: str) -> Recipe:
    """Read a recipe and the command line.

    Args:
        stage_class (`type`): [`Stage1Arguments`] or [`Stage2Arguments`].
        argv (`list[str]`): the command line without the program: `RECIPE.yaml --name value ...`.
        usage (`str`): printed above the list of fields by `--help`.

    Returns:
        [`Recipe`]: typed and checked.

    Raises:
        InputError: an unknown key (with the nearest right one), a value of the wrong type, a missing recipe.
        SystemExit: after `--help`.
    """
    groups = {
        "stage": stage_class, "data": DataArguments, "text": TextArguments,
        "optimization": OptimizationArguments, "run": RunArguments,
    }  # fmt: skip
    if not argv or {"-h", "--help"} & set(argv):
        print_help(groups, usage)
        raise SystemExit(0 if argv else 2)

    files = [argument for position, argument in enumerate(argv) if not argument.startswith("--") and position == 0]
    lines = read_recipe(Path(files[0])) if files else {}
    lines |= read_overrides(argv[len(files) :])

    from transformers import Seq2SeqTrainingArguments

    training_fields = {f.name: f.type for f in dataclasses.fields(Seq2SeqTrainingArguments)}
    own_fields = {
        name: (group, hint) for group, cls in groups.items() for name, hint in typing.get_type_hints(cls).items()
    }
    values: dict[str, dict[str, Any]] = {group: {} for group in (*groups, "training")}
    for name, value in lines.items():
        if name in own_fields:
            group, hint = own_fields[name]
        elif name in training_fields:
            group, hint = "training", training_fields[name]
        else:
            near = difflib.get_close_matches(name, [*own_fields, *training_fields], n=1)
            raise InputError(f"unknown recipe key `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        values[group][name] = convert(name, value, hint)
    if not values["training"].get("output_dir"):
        raise InputError("the recipe names no `output_dir`; add the line or give --output_dir FOLDER")
    return Recipe(
        **{group: cls(**values[group]) for group, cls in groups.items()},
        training=TRAINING_DEFAULTS | values["training"],
        resolved=lines,
    )


def read_recipe(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read one YAML recipe, its `base:` recipe first.

    Args:
        file (`Path`): the recipe.
        seen (`tuple[Path, ...]`): the recipes that led here, to find a circle.

    Returns:
        `dict`: key to value, in the order of the files.

    Raises:
        InputError: not there, not YAML, not a mapping, a key written twice, or a circle of `base:` lines.
    """
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """Refuses a key written twice, of which YAML would silently keep the last."""

    def construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                line = node.value[place][0].start_mark.line + 1
                raise InputError(f"{file}, line {line}: key `{key}` is given twice")
        return {
            key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)
        }

    UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct_mapping)
    if file.resolve() in seen:
        raise InputError(f"{file}: its `base:` lines lead back to itself")
    try:
        lines = yaml.load(file.read_text(encoding="utf-8"), UniqueKeyLoader) or {}
    except FileNotFoundError:
        raise InputError(f"there is no recipe {file}") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read recipe {file}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {error}") from None
    if not isinstance(lines, dict):
        raise InputError(f"{file} is not a recipe: it holds a {type(lines).__name__}, not `key: value` lines")
    lines = {name: expand_variables(value, file) for name, value in lines.items()}
    base = lines.pop("base", None)
    if base is not None:
        lines = read_recipe(file.parent / str(base), (*seen, file.resolve())) | lines
    return lines


def expand_variables(value: Any, file: Path) -> Any:
    """Fill `${NAME}` and `${NAME:-default}` in a line of text from the environment.

    Args:
        value (`Any`): of a recipe line; only text is changed.
        file (`Path`): the recipe, for the message.

    Returns:
        `Any`: the value with its variables filled in.

    Raises:
        InputError: a variable without a default is not set.
    """
    if not isinstance(value, str):
        return value

    def fill(match: re.Match) -> str:
        name, default = match["name"], match["default"]
        if name not in os.environ and default is None:
            raise InputError(f"{file} uses ${{{name}}}, which is not set in the environment")
        return os.environ.get(name, default)

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", fill, value)


def read_overrides(arguments: list[str]) -> dict[str, Any]:
    """Read `--name value`, `--name=value` and bare `--flag` (true) from the command line.

    Args:
        arguments (`list[str]`): what follows the recipe.

    Returns:
        `dict`: name to value, values parsed as YAML.

    Raises:
        InputError: a word that is neither an option nor an option's value.
    """
    import yaml

    lines: dict[str, Any] = {}
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"expected --name value, got `{word}`")
        name, equals, text = word[2:].partition("=")
        if not equals:
            has_value = position < len(arguments) and not arguments[position].startswith("--")
            text = arguments[position] if has_value else "true"
            position += has_value
        try:
            lines[name.replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:
            lines[name.replace("-", "_")] = text
    return lines


def convert(name: str, value: Any, hint: Any) -> Any:
    """Turn a YAML value into the type a field asks for.

    Args:
        name (`str`): the field, for the message.
        value (`Any`): what YAML read; note that YAML reads `1e-3` as text.
        hint (`Any`): the field's annotation.

    Returns:
        `Any`: the value, of that type where the annotation is one of the plain ones.

    Raises:
        InputError: the value cannot be that.
    """
    options = (
        list(typing.get_args(hint))
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else [hint]
    )
    plain = [typing.get_origin(option) or option for option in options]
    if value is None:
        if type(None) in plain or not set(plain) <= {int, float, str, bool, dict, list}:
            return None
        raise InputError(f"`{name}` needs a value, got none")
    if name == "fsdp" and isinstance(value, bool):
        return value  # transformers annotates text, and wants true
    if isinstance(value, bool) and bool not in plain and set(plain) <= {int, float, type(None)}:
        raise InputError(f"`{name}` must be a number, got {value!r}")
    for kind in (bool, dict, list, int, float):
        if kind in plain and type(value) is kind:
            return value
    number = value.replace("_", "") if isinstance(value, str) else value
    for kind in (int, float):
        if kind in plain and isinstance(number, int | float | str):
            try:
                if kind is int and isinstance(number, float) and not number.is_integer():
                    raise ValueError
                return kind(number)
            except (ValueError, OverflowError):
                continue
    if str in plain:
        return str(value)
    if set(plain) <= {int, float, bool, dict, list, type(None)}:
        wanted = " or ".join(kind.__name__ for kind in plain if kind is not type(None))
        raise InputError(f"`{name}` must be of type {wanted}, got {value!r}")
    return value


def print_help(groups: dict[str, type], usage: str) -> None:
    """Print the usage and every field of ours with its default, without importing torch.

    Args:
        groups (`dict[str, type]`): topic to dataclass.
        usage (`str`): the text above the list.
    """
    print(usage.strip())
    for cls in groups.values():
        print(f"\n{cls.__doc__.splitlines()[0]}")
        for f in dataclasses.fields(cls):
            default = f.default if f.default is not dataclasses.MISSING else "{}"
            print(f"  --{f.name:<26} {f.metadata['help']} [{default}]")
    print("\nTraining: every field of transformers' Seq2SeqTrainingArguments; these have other defaults here.")
    for name, default in TRAINING_DEFAULTS.items():
        print(f"  --{name:<26} [{default}]")
