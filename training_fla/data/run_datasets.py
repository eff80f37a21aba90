"""What a run reads: its three splits as frames, augmented where the visual encoder learns, or as stored features."""

import sys
from pathlib import Path

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor
from training_fla.data.augmentation import ClipAugmentation
from training_fla.data.collation import SignFeatureDataset, SignVideoDataset
from training_fla.data.features import check_against_pixels, fingerprint, store_features
from training_fla.files import InputError
from training_fla.recipe import DataArguments, Recipe
from training_fla.training.trainer import SignTranslationTrainer


def clip_augmentation(data: DataArguments, learns: bool) -> tuple[ClipAugmentation | None, bool]:
    """What varies a training clip from epoch to epoch.

    Args:
        data ([`~training_fla.recipe.DataArguments`]): the recipe's lines.
        learns (`bool`): whether the visual encoder is trained; a frozen one is shown clips as they are, unless the
            recipe says otherwise.

    Returns:
        `tuple`: a [`ClipAugmentation`] or `None`, and whether frames have a random phase.
    """
    phase = learns if data.random_frame_phase is None else data.random_frame_phase
    probability = data.augmentation_probability
    if probability is None:
        probability = ClipAugmentation.probability if learns else 0.0
    augmentation = ClipAugmentation(
        crop_size=data.crop_size,
        frame_size=data.frame_size,
        rotate_degrees=data.rotate_degrees,
        resize_factor=data.resize_factor,
        translate_pixels=data.translate_pixels,
        color=data.color_jitter,
        probability=probability,
    )
    return augmentation if probability or phase else None, phase


def make_datasets(
    recipe: Recipe, args, splits, processor: FlaProcessor, learns: bool = True
) -> dict[str, SignVideoDataset]:
    """Make the three splits' datasets of frames.

    Args:
        recipe ([`~training_fla.recipe.Recipe`]): augmentation and limits.
        args ([`~transformers.Seq2SeqTrainingArguments`]): the seed.
        splits ([`~training_fla.stage.Splits`]): packed clips.
        processor ([`~processing_fla.FlaProcessor`]): frames and targets.
        learns (`bool`): whether the visual encoder is trained.

    Returns:
        `dict`: `train` (as [`clip_augmentation`] says), `dev` and `test`.

    Raises:
        InputError: a split without a clip.
    """
    data = recipe.data
    common = {"max_target_tokens": recipe.text.max_target_tokens, "max_source_frames": data.max_source_frames}
    common |= {"processor": processor, "seed": args.seed}
    augmentation, phase = clip_augmentation(data, learns)
    train = {"corpus": splits.train, "max_clips": data.max_train_clips}
    # A long reference is scored all the same; only training refuses it.
    score = {"max_clips": data.max_eval_clips, "max_target_tokens": sys.maxsize}
    datasets = {
        "train": SignVideoDataset(**common, **train, augmentation=augmentation, random_frame_phase=phase),
        "dev": SignVideoDataset(**{**common, **score}, corpus=splits.dev),
        "test": SignVideoDataset(**{**common, **score}, corpus=splits.test),
    }
    for name, dataset in datasets.items():
        if not len(dataset):
            raise InputError(f"the {name} split holds no clip")
    return datasets


def use_feature_cache(recipe: Recipe, model: FlaForConditionalGeneration) -> bool:
    """Whether stage 2 may read stored features.

    Args:
        recipe ([`~training_fla.recipe.Recipe`]): its `feature_cache`; stage 1 has none.
        model ([`~modeling_fla.FlaForConditionalGeneration`]): must be wholly frozen visually.

    Returns:
        `bool`: true when asked for (`auto` or a folder) and possible: nothing visual is trained or augmented.

    Raises:
        InputError: a folder is named although the encoder is trained or its clips are augmented.
    """
    wish = getattr(recipe.stage, "feature_cache", None)
    augmentation, _ = clip_augmentation(recipe.data, learns=False)
    if wish not in (None, "auto"):
        if not model.visual_encoder_is_frozen:
            raise InputError(
                f"feature_cache {wish}: features can be stored only where the whole visual encoder is frozen"
            )
        if augmentation is not None:
            raise InputError(
                f"feature_cache {wish}: features are stored once, so clips cannot vary; drop `random_frame_phase` and "
                "`augmentation_probability`, or set feature_cache: null"
            )
    return wish is not None and model.visual_encoder_is_frozen and augmentation is None


def cached(recipe: Recipe, trainer: SignTranslationTrainer, datasets: dict) -> dict:
    """Replace the datasets of frames by datasets of stored features.

    Args:
        recipe ([`~training_fla.recipe.Recipe`]): where and in which type.
        trainer ([`SignTranslationTrainer`]): its model and accelerator; reads the new datasets
            from now on.
        datasets (`dict`): as [`make_datasets`] returns it.

    Returns:
        `dict`: `train`, `dev`, `test`.

    Raises:
        InputError: a cache is damaged, cannot be written, or is not what the encoder gives.
    """
    stage, args = recipe.stage, trainer.args
    root = recipe.output_dir.parent / "features" if stage.feature_cache == "auto" else Path(stage.feature_cache)
    model, device, stored = trainer.model, trainer.accelerator.device, {}
    for name, videos in datasets.items():
        folder = root / fingerprint(model, videos, stage.feature_dtype)
        features = store_features(
            model, videos, folder, trainer.accelerator, stage.feature_dtype,
            batch_size=args.per_device_eval_batch_size, num_workers=args.dataloader_num_workers,
        )  # fmt: skip
        stored[name] = SignFeatureDataset(features, videos)
    trainer.train_dataset, trainer.eval_dataset = stored["train"], stored["dev"]
    # The first ten batches of all processes together, as they will be trained; of the others the first clips.
    batches = {name: [list(range(min(10, len(stored[name]))))] for name in ("dev", "test")}
    batches["train"] = trainer.first_batches(-(-10 // args.world_size))
    for name, videos in datasets.items():
        check_against_pixels(model, videos, stored[name], batches[name], trainer.data_collator, device)
    return stored
