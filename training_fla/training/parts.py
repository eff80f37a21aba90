"""Where the parts of a model come from: tokenizer, language model, stage 1's visual encoder, an untrained one."""

import dataclasses
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig, load_imagenet_weights
from processing_fla import FlaProcessor, FlaVideoProcessor
from processing_fla.processing_fla import language_token_id
from processing_fla.tokenization_fla import set_start_tokens, unknown_words, words_of
from training_fla.console import counted, note
from training_fla.data.packed_corpus import MANIFEST, read_packed_manifest
from training_fla.errors import InputError
from training_fla.loading import loading
from training_fla.recipe import Recipe, Stage2Arguments, VisualArguments, dataset_places

from .adapters import check_installed

# Lines of a recipe about frames and about the visual encoder.
OF_FRAMES = {field.name for field in dataclasses.fields(VisualArguments)}
OF_FRAMES |= {"stage1_checkpoint", "one_run_light_t", "freeze_vision_backbone", "freeze_temporal_module"}
OF_FRAMES |= {"input_features", "feature_cache", "feature_dtype", "streaming", "frame_stride", "max_source_frames"}
OF_FRAMES |= {"frame_size", "crop_size", "random_frame_phase", "augmentation_probability", "rotate_degrees"}
OF_FRAMES |= {"resize_factor", "translate_pixels", "visual_learning_rate", "visual_optimizer", "norm_logging_steps"}
OF_FRAMES |= {"target_fps"}

MOST_UNKNOWN = 0.01  # of the words of the training sentences

# Gemma's tokenizers are made for decoders: targets would begin with <bos>, as the model lets them anyway, and not end.
TARGETS_END = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}


def load_tokenizer(source: str | None) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the Hub."""
    if source is None:
        raise InputError("the recipe names no `tokenizer`; make one with `fla trim`, or set `train_tokenizer_pieces`")
    with loading(source, "a tokenizer"):
        if (Path(source) / "processor_config.json").is_file():
            return FlaProcessor.from_pretrained(source).tokenizer
        for options in ({}, TARGETS_END):
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            if tokenizer.eos_token_id in tokenizer(text_target="a")["input_ids"]:
                return tokenizer
    raise InputError(f"tokenizer {source}: targets do not end with its eos_token, so that no translation would end")


def check_targets(
    tokenizer: PreTrainedTokenizerBase, source: str | None, sentences: Sequence[str], stage1: str | None = None
) -> None:
    """Refuse a tokenizer that leaves words of the training sentences unknown which that of stage 1 knows.

    What no tokenizer at hand knows, and a few words in a hundred, are a note: a released vocabulary has its limits.
    """
    unknown = unknown_words(tokenizer, sentences)
    if not unknown:
        return
    known_before: set[str] = set()
    if stage1 and stage1 != source:
        known_before = unknown.keys() - unknown_words(load_tokenizer(stage1), list(unknown)).keys()
    number = sum(len(known_before & set(words_of(sentence))) for sentence in sentences)
    shown = ", ".join(list(unknown)[:5])
    if number > MOST_UNKNOWN * sum(len(words_of(sentence)) for sentence in sentences):
        raise InputError(
            f"the tokenizer {source} does not know {counted(len(known_before), 'word')} of the training sentences "
            f"({shown}) that "
            f"the tokenizer of stage1_checkpoint {stage1} knows: leave the line `tokenizer` out, or trim the language "
            "model to these sentences with `fla trim`"
        )
    if PartialState().is_main_process:
        note(
            f"note: unknown to the tokenizer, of the training sentences: {counted(unknown.total(), 'token')}: {shown}"
        )


def set_language(tokenizer: PreTrainedTokenizerBase, code: str, name: str) -> None:
    """Make a language the tokenizer's source and target; `name` is the recipe line or option that gives it."""
    if not hasattr(tokenizer, "tgt_lang"):
        raise InputError(f"{name} {code}: {type(tokenizer).__name__} has no languages")
    if code not in getattr(tokenizer, "lang_code_to_token", tokenizer.get_vocab()):
        raise InputError(f"{name} {code} is no language of the tokenizer")
    tokenizer.src_lang = tokenizer.tgt_lang = code


def set_languages(tokenizer: PreTrainedTokenizerBase, codes: Sequence[str], default: str | None) -> None:
    """Check that a tokenizer has the languages of several corpora, and make one of them its own.

    One language that the tokenizer has no token for is no matter: there is nothing to tell apart.
    """
    has_own = hasattr(tokenizer, "tgt_lang")
    for code in codes if has_own or len(codes) > 1 else ():
        if language_token_id(tokenizer, code) is None:
            kind = type(tokenizer).__name__
            remedy = "give `language` in `dataset` as this tokenizer writes it"
            if not has_own:
                remedy = f"trim it with `fla trim --language {' '.join(codes)}`, which adds tokens of them"
            raise InputError(f"{code} is no language of the tokenizer ({kind}): {remedy}")
    if codes and has_own:
        set_language(tokenizer, default_first(codes, default)[0], "language_code")


def default_first(codes: Sequence[str], default: str | None) -> list[str]:
    """Languages, that of the recipe first; where it names none, that of the first corpus."""
    return sorted(codes, key=lambda code: code != default)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The token ids a language model's config must agree on with its tokenizer; models begin sentences differently."""
    languages = getattr(tokenizer, "tgt_lang", None) is not None
    start = tokenizer(text_target="")["input_ids"][-1] if languages else tokenizer.pad_token_id
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {name: value for name, value in ids.items() if value is not None} | {"decoder_start_token_id": start}


def load_language_model(arguments: Stage2Arguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Load the pre-trained language model, or make a random one (Table 10)."""
    if bool(arguments.language_model) == bool(arguments.language_model_config):
        raise InputError("stage 2 needs one of `language_model` (pre-trained) and `language_model_config` (random)")
    if arguments.language_model_config:
        fields = {"vocab_size": len(tokenizer), **special_token_ids(tokenizer)}
        fields |= arguments.language_model_config | arguments.language_model_overrides
        with loading(str(arguments.language_model_config), "a language model"):
            check_fields(fields, "language_model_config")
            model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**fields))
        set_start_tokens(model, tokenizer)
        return model
    with loading(arguments.language_model, "a language model"):
        config = AutoConfig.from_pretrained(arguments.language_model)
        whole = config if isinstance(config, FlaConfig) else None  # of a run: its language model is taken
        if whole:
            config = whole.text_config
        check_fields(
            {"model_type": config.model_type} | arguments.language_model_overrides, "language_model_overrides"
        )
        # Made anew: T5Gemma hands a dropout on to its halves only while it is made.
        config = type(config).from_dict(config.to_dict() | arguments.language_model_overrides)
        # Without it the checkpoint's is taken: Adam's small steps vanish in bfloat16.
        options = {"dtype": getattr(torch, arguments.language_model_dtype)}
        if arguments.language_model_quantization:
            if whole:
                raise InputError("language_model_quantization is for a pre-trained `language_model`, not for a run's")
            options["quantization_config"] = quantization(arguments.language_model_quantization)
        if arguments.random_language_model:
            model = AutoModelForSeq2SeqLM.from_config(config)
        elif whole:
            whole.text_config = config
            model = FlaForConditionalGeneration.from_pretrained(arguments.language_model, config=whole, **options)
            model = model.language_model
        else:
            model = AutoModelForSeq2SeqLM.from_pretrained(arguments.language_model, config=config, **options)
    set_start_tokens(model, tokenizer)  # released MBart names none and would begin with <s>
    return model


def continue_from(model: FlaForConditionalGeneration, start: FlaForConditionalGeneration, recipe: Recipe) -> None:
    """Take the adapter, too, where visual encoder and language model are those of one run and it fits."""
    taken, new = "visual encoder and language model", "LLM-Adapter (of another kind)"
    if adapter_shape(model) == adapter_shape(start):
        model.adapter.load_state_dict(start.adapter.state_dict())
        taken, new = "visual encoder, LLM-Adapter and language model", "nothing"
    recipe.start |= {"model": recipe.model.language_model, "taken": taken, "new": new}


def adapter_shape(model: FlaForConditionalGeneration) -> tuple:
    """What two models must have in common for one to go on with the adapter of the other."""
    shapes = [(name, tensor.shape) for name, tensor in model.adapter.state_dict().items()]
    return model.config.input_features, model.config.input_embed_scale, shapes


def quantization(fields: dict) -> BitsAndBytesConfig:
    """What transformers needs to store the language model's frozen weights in 4 or 8 bits."""
    check_installed("bitsandbytes", "language_model_quantization")
    unknown = [name for name in fields if name not in signature(BitsAndBytesConfig).parameters]
    if unknown:
        raise InputError(f"language_model_quantization: BitsAndBytesConfig has no field {unknown[0]}")
    return BitsAndBytesConfig(**fields)


def check_fields(fields: dict, line: str) -> None:
    """Refuse a name that a configuration does not know: transformers would keep it without effect."""
    config = AutoConfig.for_model(fields["model_type"])
    unknown = [name for name in fields if not hasattr(config, name)]
    if unknown:
        raise InputError(f"{line}: {type(config).__name__} has no field {unknown[0]}")
    for name, value in fields.items():  # torch looks at it in the first step
        if "dropout" in name and isinstance(value, int | float) and not 0 <= value <= 1:
            raise InputError(f"{line}: {name} must be 0 to 1, not {value}")


def vision_config(arguments: VisualArguments) -> FlaVisionConfig:
    """The visual encoder a recipe describes; ResNet18 unless it says otherwise."""
    fields = {"hidden_size": arguments.visual_feature_size, "temporal_kernel_size": arguments.temporal_kernel_size}
    fields = {name: value for name, value in fields.items() if value is not None}
    if arguments.vision_backbone is not None:
        with loading(str(arguments.vision_backbone), "a vision_backbone"):
            check_fields(arguments.vision_backbone, "vision_backbone")
            fields["backbone_config"] = AutoConfig.for_model(**arguments.vision_backbone)
    return FlaVisionConfig(**fields)


def load_stage1(folder: str) -> FlaForConditionalGeneration:
    """Load the whole model that a stage begins with."""
    with loading(folder, "stage1_checkpoint"):
        model = FlaForConditionalGeneration.from_pretrained(folder)
    if model.visual_encoder is None:
        raise InputError(f"stage1_checkpoint {folder} has no visual encoder: it was trained on features")
    return model


def check_same_frames(folder: str, processor: FlaProcessor) -> None:
    """Refuse a recipe under which a frozen visual encoder would see videos in another way than it was trained to."""
    with loading(folder, "stage1_checkpoint"):
        before = FlaVideoProcessor.from_pretrained(folder)
    for name in ("frame_stride", "target_fps", "size", "crop_size"):
        old, new = getattr(before, name), getattr(processor.video_processor, name)
        if old != new:
            raise InputError(f"stage1_checkpoint {folder} was trained with {name} {old}, this recipe says {new}")


def start_from(
    model: FlaForConditionalGeneration, start: FlaForConditionalGeneration, folder: str, processor: FlaProcessor
) -> dict[str, str]:
    """Give a new model of stage 1 the weights that fit it; what was taken and what is new, in words."""
    model.visual_encoder.load_state_dict(start.visual_encoder.state_dict())
    old, new = (
        (part.config.text_config.model_type, part.config.input_features, part.config.num_attention_heads)
        + tuple((name, tensor.shape) for name, tensor in part.state_dict().items() if not name.startswith("visual_"))
        for part in (start, model)
    )
    has_same_tokens = load_tokenizer(folder).get_vocab() == processor.tokenizer.get_vocab()
    if not has_same_tokens or old != new:
        why = "of other sizes" if has_same_tokens else "of another tokenizer"
        return {"model": folder, "taken": "visual encoder", "new": f"VL-Adapter and Light-T ({why})"}
    model.load_state_dict(start.state_dict())
    return {"model": folder, "taken": "visual encoder, VL-Adapter and Light-T", "new": "nothing"}


def sign_feature_fields(recipe: Recipe) -> dict:
    """Of a dataset of features, what the model's configuration says of them; a line about frames is refused."""
    folder = Path(next(iter(dataset_places(recipe.data)), ""))  # of several corpora all are alike
    parameters = read_packed_manifest(folder)["parameters"] if (folder / MANIFEST).is_file() else {}
    if "feature_size" not in parameters:
        return {}
    for part in (recipe.model, recipe.data, recipe.optimization):
        for field in dataclasses.fields(part):
            if field.name in OF_FRAMES and getattr(part, field.name) != field.default:
                raise InputError(f"`{field.name}` would have no effect: {folder} holds features, no frames")
    return {"sign_feature_size": parameters["feature_size"], "sign_feature_extractor": parameters["extractor"]}


def untrained_visual_model(arguments: Stage2Arguments) -> FlaForConditionalGeneration:
    """A visual encoder that was not trained on signs (the first rows of Tables 4 and 5)."""
    model = FlaForConditionalGeneration(
        FlaConfig.light_t("tiny", vocab_size=8, vision_config=vision_config(arguments))
    )
    if arguments.imagenet_weights:
        with loading(arguments.imagenet_weights, "ImageNet weights"):
            load_imagenet_weights(model, arguments.imagenet_weights)
    return model
