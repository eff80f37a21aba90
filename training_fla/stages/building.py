"""What a run is built of: splits, processor, model and trainer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor, FlaVideoProcessor, SignTranslationPipeline
from processing_fla.tokenization_fla import set_start_tokens
from training_fla.corpora.registry import convention_of
from training_fla.data.collation import SignTranslationCollator
from training_fla.data.datasets import make_datasets
from training_fla.data.packed_corpus import PackedCorpus, packed_splits
from training_fla.data.packing import ensure_packed
from training_fla.data.streaming import SignVideoStream, check_streaming, local_copy
from training_fla.errors import InputError, first_line
from training_fla.hub.push import make_repository
from training_fla.recipe import Recipe
from training_fla.scoring.conventions import convention_for
from training_fla.scoring.metric import SignTranslationMetric
from training_fla.training.callbacks import add_callbacks
from training_fla.training.parts import set_language
from training_fla.training.trainer import SignTranslationTrainer


@dataclass
class Splits:
    """The three splits of a run: trained on, choosing the model, reported."""

    train: PackedCorpus
    dev: PackedCorpus
    test: PackedCorpus


def open_splits(recipe: Recipe) -> Splits:
    """Open the packed corpus; a table of videos is packed first."""
    data = recipe.data
    folder = packed_folder(recipe)
    present = packed_splits(folder)
    for field in ("train_split", "dev_split", "test_split"):
        split = getattr(data, field)
        if split not in present:
            names = ", ".join(present) or "none"
            raise InputError(f"{folder} has no split `{split}`; it has {names}: name one with --{field}")
    return Splits(
        train=PackedCorpus(folder, data.train_split, has_frames=not data.streaming),
        dev=PackedCorpus(folder, data.dev_split),
        test=PackedCorpus(folder, data.test_split),
    )


def packed_folder(recipe: Recipe) -> Path:
    """The folder of the packed corpus that the recipe names, or that its table of videos is packed to."""
    data = recipe.data
    if data.streaming:
        check_streaming(recipe)
    if bool(data.dataset) == bool(data.manifest):
        raise InputError("the recipe must name one of `dataset` (a packed folder) and `manifest` (a table of videos)")
    if data.manifest:
        return ensure_packed(
            data.manifest,
            data.packed_dir or recipe.output_dir.parent / f"packed-{data.packed_size}",
            size=data.packed_size,
            on_error=data.on_error,
            video_column=data.video_column,
            sentence_column=data.sentence_column,
            no_times=data.no_times,
            follow_links=data.follow_links,
            only_look=recipe.run.check,
        )
    folder = local_copy(data, recipe.output_dir.parent) if data.streaming else Path(data.dataset)
    if not folder.is_dir():
        is_unread_url = "://" in data.dataset and not data.streaming
        remedy = "add `streaming: true`" if is_unread_url else "make it with `fla prepare`"
        raise InputError(f"there is no packed corpus {data.dataset}; {remedy}")
    return folder


def build_parts(recipe: Recipe, args, splits: Splits, build_processor: Callable, build_model: Callable) -> tuple:
    """The processor and the model of a recipe; the random seed is set before the model."""
    try:
        processor = build_processor(recipe, splits)
        processor.video_processor.packed_size = splits.train.size_before(processor.video_processor)
        set_seed(args.seed)
        model = build_model(recipe, processor)
    except InputError:
        raise
    except (ValueError, StrictDataclassError, OSError) as error:
        raise InputError(f"the recipe's model cannot be built: {error}") from error
    rows = model.get_output_embeddings().weight.shape[0]
    tokens = len(processor.tokenizer)
    # T5 and MT5 pad their embedding to a round number, so a few spare rows are fine; another vocabulary is not.
    if tokens > rows or rows - tokens > 256:
        raise InputError(f"tokenizer and language model do not belong together: {tokens} tokens, {rows} embeddings")
    return processor, model


def make_processor(recipe: Recipe, tokenizer) -> FlaProcessor:
    """A video processor of the recipe's numbers beside a tokenizer of the recipe's language."""
    data = recipe.data
    if recipe.text.language_code is not None:
        set_language(tokenizer, recipe.text.language_code, "language_code")
    video_processor = FlaVideoProcessor(
        frame_stride=data.frame_stride or FlaVideoProcessor.frame_stride,
        max_source_frames=data.max_source_frames,
        size={"height": data.frame_size, "width": data.frame_size},
        crop_size={"height": data.crop_size, "width": data.crop_size},
    )
    return FlaProcessor(video_processor=video_processor, tokenizer=tokenizer)


def make_trainer(
    recipe: Recipe, args, splits: Splits, processor: FlaProcessor, model: FlaForConditionalGeneration
) -> SignTranslationTrainer:
    """Model, data, metric and optimizer together; it has `test_dataset` beside transformers' two."""
    datasets = make_datasets(recipe, args, splits, processor, model)
    if recipe.data.streaming:
        datasets["train"] = SignVideoStream(datasets["train"], recipe.data, args)
    if args.world_size > 1 and args.device.type == "cuda" and not model.visual_encoder_is_frozen:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    generation = generation_of(recipe, model, processor.tokenizer)
    if args.push_to_hub and args.process_index == 0:
        make_repository(args)
    trainer = SignTranslationTrainer(
        model=model,
        args=args,
        optimization=recipe.optimization,
        metric=SignTranslationMetric(score_convention(recipe, splits)),
        generation=generation,
        frames_per_batch=recipe.data.frames_per_batch,
        train_dataset=datasets["train"],
        eval_dataset=datasets["dev"],
        data_collator=SignTranslationCollator(),
        processing_class=processor,
    )
    add_callbacks(trainer, recipe)
    trainer.test_dataset = datasets["test"]
    return trainer


def score_convention(recipe: Recipe, splits: Splits) -> str:
    """How sentences are scored: as the recipe says, else as is usual for the corpus, else by the script."""
    if recipe.data.score_convention != "auto":
        return recipe.data.score_convention
    return convention_for(convention_of(splits.dev.corpus), splits.dev.sentences)


def generation_of(
    recipe: Recipe, model: FlaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Beams and length of the recipe, else of the pipeline; a length beyond the decoder's positions is refused."""
    default = SignTranslationPipeline._default_generation_config
    beams = recipe.training.get("generation_num_beams") or default.num_beams
    length = recipe.text.max_new_tokens or default.max_new_tokens
    limit = model.max_target_positions
    if limit is not None and length > limit:
        raise InputError(f"max_new_tokens {length} is more than the language model's {limit} positions: lower it")
    return clean_generation_config(model, tokenizer, beams, length)


def clean_generation_config(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, num_beams: int, max_new_tokens: int
) -> GenerationConfig:
    """Beams, length, special tokens and nothing else; a translation begins as the training targets do."""
    set_start_tokens(model, tokenizer)
    names = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id")
    ids = {name: getattr(model.generation_config, name, None) for name in names}
    return GenerationConfig(**ids, num_beams=num_beams, max_new_tokens=max_new_tokens)


def check_training(trainer: SignTranslationTrainer) -> None:
    """Make once what training makes first, so that what does not fit is refused before anything is removed."""
    try:
        trainer.get_train_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=100)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"the recipe's training fields do not fit together: {first_line(error)}") from error
    trainer.optimizer = trainer.lr_scheduler = None
