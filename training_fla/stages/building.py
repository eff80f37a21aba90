"""What a run is built of: splits, processor, model and trainer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.utils.data import Dataset
from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from modeling_fla import FlaForConditionalGeneration
from modeling_fla.batch_norm_fla import RealFrames, count_real_frames
from processing_fla import FlaProcessor, FlaVideoProcessor
from processing_fla.pipeline_fla import DEFAULT_GENERATION
from processing_fla.processing_fla import language_token_id
from processing_fla.tokenization_fla import set_start_tokens
from training_fla.corpora.registry import convention_of
from training_fla.corpora.row import SPLITS
from training_fla.data.collation import RoundedSizes, SignTranslationCollator
from training_fla.data.datasets import make_datasets
from training_fla.data.packed_corpus import PackedCorpus, packed_splits
from training_fla.data.packing import ensure_packed
from training_fla.data.several.corpora import SeveralCorpora, spoken_languages
from training_fla.data.several.datasets import EpochMixture, SeveralDatasets, epoch_counts
from training_fla.data.several.streams import SeveralStreams
from training_fla.data.streaming import SignVideoStream, check_streaming, local_copy
from training_fla.errors import InputError, first_line
from training_fla.hub.push import make_repository
from training_fla.recipe import Recipe, corpus_entries
from training_fla.scoring.conventions import convention_for
from training_fla.scoring.metric import SignTranslationMetric
from training_fla.training.callbacks import add_callbacks
from training_fla.training.parts import default_first, set_language, set_languages
from training_fla.training.trainer import SignTranslationTrainer


@dataclass
class Splits:
    """The three splits of a run, of one corpus or of several: trained on, choosing the model, reported."""

    train: PackedCorpus | SeveralCorpora
    dev: PackedCorpus | SeveralCorpora
    test: PackedCorpus | SeveralCorpora

    def of_corpus(self, place: int) -> "Splits":
        """The splits of one of several corpora."""
        return Splits(**{name: getattr(self, name).parts[place] for name in SPLITS})


def open_splits(recipe: Recipe) -> Splits:
    """Open the packed corpora; a table of videos is packed first."""
    data = recipe.data
    if data.streaming:
        check_streaming(recipe)
    if bool(data.dataset) == bool(data.manifest):
        raise InputError("the recipe must name one of `dataset` (a packed folder) and `manifest` (a table of videos)")
    entries = corpus_entries(data)
    if not entries:
        return open_corpus(recipe, data.dataset)
    each = [open_corpus(recipe, entry.path) for entry in entries]
    parts = {name: [getattr(splits, name) for splits in each] for name in SPLITS}
    default = recipe.text.language_code
    splits = Splits(**{name: SeveralCorpora(entries, of_split, default) for name, of_split in parts.items()})
    trained = spoken_languages(splits.train)
    unseen = [code for code in spoken_languages(splits.dev) + spoken_languages(splits.test) if code not in trained]
    if unseen:
        raise InputError(f"dev or test has clips in {unseen[0]}, train has none: train has {', '.join(trained)}")
    return splits


def open_corpus(recipe: Recipe, dataset: str | None) -> Splits:
    """Open one packed corpus, or the one that the recipe's table of videos is packed to."""
    data = recipe.data
    folder = packed_folder(recipe, dataset)
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


def packed_folder(recipe: Recipe, dataset: str | None) -> Path:
    """The folder of a packed corpus that the recipe names, or that its table of videos is packed to."""
    data = recipe.data
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
    folder = local_copy(data, recipe.output_dir.parent, dataset) if data.streaming else Path(dataset)
    if not folder.is_dir():
        is_unread_url = "://" in dataset and not data.streaming
        remedy = "add `streaming: true`" if is_unread_url else "make it with `fla prepare`"
        raise InputError(f"there is no packed corpus {dataset}; {remedy}")
    return folder


def build_parts(recipe: Recipe, args, splits: Splits, build_processor: Callable, build_model: Callable) -> tuple:
    """The processor and the model of a recipe; the random seed is set before the model."""
    try:
        processor = build_processor(recipe, splits)
        set_languages(processor.tokenizer, spoken_languages(splits.train), recipe.text.language_code)
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
    if recipe.text.language_code is not None and not isinstance(data.dataset, list):  # else see `set_languages`
        set_language(tokenizer, recipe.text.language_code, "language_code")
    video_processor = FlaVideoProcessor(
        target_fps=data.target_fps,
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
    datasets = build_datasets(recipe, args, splits, processor, model)
    real_frames, sizes = shapes_of_a_run(args, model, recipe.optimization.freeze_batch_norm_statistics)
    generation = generation_of(recipe, model, processor.tokenizer, spoken_languages(splits.train))
    if args.push_to_hub and args.process_index == 0:
        make_repository(args)
    trainer = SignTranslationTrainer(
        model=model,
        args=args,
        optimization=recipe.optimization,
        metric=metric_of(recipe, splits),
        generation=generation,
        frames_per_batch=recipe.data.frames_per_batch,
        real_frames=real_frames,
        train_dataset=datasets["train"],
        eval_dataset=datasets["dev"],
        data_collator=SignTranslationCollator(sizes=sizes),
        processing_class=processor,
    )
    add_callbacks(trainer, recipe)
    trainer.test_dataset = datasets["test"]
    return trainer


def build_datasets(
    recipe: Recipe, args, splits: Splits, processor: FlaProcessor, model: FlaForConditionalGeneration
) -> dict[str, Dataset]:
    """The splits as examples; those of several corpora are one after the other, `train` as the recipe mixes them."""
    entries, data = corpus_entries(recipe.data), recipe.data
    if not entries:
        datasets = make_datasets(recipe, args, splits, processor, model)
        if data.streaming:
            datasets["train"] = SignVideoStream(datasets["train"], data, args)
        return datasets
    has_languages = len(spoken_languages(splits.train)) > 1
    each, conventions = [], []
    for place, entry in enumerate(entries):
        corpus = splits.of_corpus(place)
        languages = {name: getattr(splits, name).languages[place] if has_languages else None for name in SPLITS}
        try:
            each.append(make_datasets(recipe, args, corpus, processor, model, languages))
        except InputError as error:
            raise InputError(f"{entry.name}: {error}") from error
        conventions.append(entry.convention or score_convention(recipe, corpus.dev))
    datasets = {name: SeveralDatasets([part[name] for part in each], entries, conventions) for name in SPLITS}
    train = datasets["train"]
    counts, weights = [len(part.clips) for part in train.parts], [entry.weight for entry in entries]
    drawn = epoch_counts(counts, weights, data.sampling_temperature)
    seed = args.seed if args.data_seed is None else args.data_seed
    if data.streaming:
        streams = [SignVideoStream(part["train"], data, args, e.path) for part, e in zip(each, entries, strict=True)]
        datasets["train"] = SeveralStreams(streams, train, drawn, seed)
    elif drawn != counts:
        train.mixture = EpochMixture([part.clips for part in train.parts], drawn, seed)
    return datasets


def shapes_of_a_run(
    args, model: FlaForConditionalGeneration, fixes_statistics: bool
) -> tuple[RealFrames | None, RoundedSizes | None]:
    """How sizes of batches are rounded up, for a GPU and for a compiled model, and what trained norms then count.

    On a processor rounding up would cost more than it gives.
    """
    sizes = None
    if args.device.type == "cuda" or args.torch_compile:
        sizes = RoundedSizes(model.max_sign_positions, model.max_target_positions)
    if model.visual_encoder_is_frozen or fixes_statistics or (sizes is None and args.world_size == 1):
        return None, sizes
    real_frames = RealFrames(args.world_size)
    try:
        count_real_frames(model.visual_encoder, real_frames)
    except ValueError as error:
        if args.world_size > 1:
            raise InputError(f"vision_backbone: {error}: set freeze_batch_norm_statistics: true") from None
        return None, None
    return real_frames, sizes


def metric_of(recipe: Recipe, splits: Splits) -> SignTranslationMetric | None:
    """The metric of one corpus; of several each has its own, see [`~training_fla.scoring.metric.score_dataset`]."""
    if isinstance(splits.dev, SeveralCorpora):
        return None
    return SignTranslationMetric(score_convention(recipe, splits.dev))


def score_convention(recipe: Recipe, dev: PackedCorpus) -> str:
    """How sentences are scored: as the recipe says, else as is usual for the corpus, else by the script."""
    if recipe.data.score_convention != "auto":
        return recipe.data.score_convention
    return convention_for(convention_of(dev.corpus), dev.sentences)


def generation_of(
    recipe: Recipe,
    model: FlaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    languages: Sequence[str] = (),
) -> GenerationConfig:
    """Beams and length of the recipe, else of the pipeline; a length beyond the decoder's positions is refused."""
    beams = recipe.training.get("generation_num_beams") or DEFAULT_GENERATION.num_beams
    length = recipe.text.max_new_tokens or DEFAULT_GENERATION.max_new_tokens
    limit = model.max_target_positions
    if limit is not None and length > limit:
        raise InputError(f"max_new_tokens {length} is more than the language model's {limit} positions: lower it")
    return clean_generation_config(
        model, tokenizer, beams, length, default_first(languages, recipe.text.language_code)
    )


def clean_generation_config(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    num_beams: int,
    max_new_tokens: int,
    languages: Sequence[str] = (),
) -> GenerationConfig:
    """Beams, length, special tokens and nothing else; a translation begins as the training targets do.

    Of several languages the first is the one to begin with where none is asked for.
    """
    several = len(languages) > 1
    set_start_tokens(model, tokenizer, languages[0] if several else None)
    names = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id")
    ids = {name: getattr(model.generation_config, name, None) for name in names}
    if several:
        ids["language_token_ids"] = {code: language_token_id(tokenizer, code) for code in languages}
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
