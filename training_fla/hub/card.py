"""The model card: `hub_card.md` filled from what a run leaves behind. A figure that no file holds is left out."""

import json
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from training_fla.data.packed_corpus import PackedCorpus
from training_fla.files import InputError, atomic_file

TASK = "video-text-to-text"  # the nearest of the Hub's own list, which knows no sign language translation
TAGS = ("sign-language-translation", "sign-language", "gloss-free", "fla_llm")
METRICS = {
    "bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "chrf": "chrF"
}  # fmt: skip
# Lines of a recipe worth reading; none can hold a path.
HYPERPARAMETERS = (
    "optimizer", "learning_rate", "adapter_learning_rate", "lr_scheduler_type", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "label_smoothing_factor", "weight_decay",
    "max_grad_norm", "freeze_vision_backbone", "freeze_temporal_module", "input_features", "max_source_frames", "seed",
)  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class KnownCorpus:
    """What is known of a corpus beyond its files.

    Args:
        title (`str`): its name in full.
        terms (`str`): its terms, in a sentence.
        url (`str`): where it is published.
        languages (`tuple[str, ...]`): ISO codes, the sign language first.
        license (`str`): for the model's metadata; `other` where the corpus's terms bind the model too.
    """

    title: str
    terms: str
    url: str = ""
    languages: tuple[str, ...] = ()
    license: str = "other"


# Checked in November 2026 against the corpora's own pages; the terms of CSL-Daily against the list of data sets at
# sign-language-processing.github.io, which links its release agreement.
CORPORA = {
    "phoenix14t": KnownCorpus(
        "RWTH-PHOENIX-Weather 2014 T: German Sign Language, interpreted weather forecasts of the TV station PHOENIX",
        "Its terms allow no commercial use.",
        "https://www-i6.informatik.rwth-aachen.de/~koller/RWTH-PHOENIX-2014-T/",
        ("gsg", "de"),
    ),
    "csl_daily": KnownCorpus(
        "CSL-Daily: Chinese Sign Language, daily life",
        "It is given out to academics under a release agreement.",
        "https://ustc-slr.github.io/datasets/2021_csl_daily/",
        ("csl", "zh"),
    ),
    "how2sign": KnownCorpus(
        "How2Sign: American Sign Language, instructions from How2's videos, recorded in studios",
        "Its terms are CC BY-NC 4.0: no commercial use.",
        "https://how2sign.github.io/",
        ("ase", "en"),
    ),
    "demo": KnownCorpus(
        "The demo corpus of `fla-llm`: a drawn figure that makes invented signs, with German weather sentences",
        "It is not a sign language: the figures below say that the code works, nothing about translating people.",
        languages=("de",),
        license="apache-2.0",
    ),
}


def training_facts(recipe, splits) -> dict[str, Any]:
    """What a run has to note down, because its corpus and its language model will not be there when a card is written.

    Args:
        recipe ([`~training_fla.recipe.Recipe`]): names the language model.
        splits ([`~training_fla.stage.Splits`]): the open corpus.

    Returns:
        `dict`: `data` (`corpus`, `language`, and by split `clips`, `frames`, `signers`), and `base_model` if it is on
            the Hub. It goes into `metrics.json`.
    """
    data: dict[str, Any] = {"corpus": splits.train.corpus, "language": splits.train.language}
    for name in ("train", "dev", "test"):
        data[name] = _split_facts(getattr(splits, name))
    # Of a language model without its weights only the architecture was taken.
    is_random = getattr(recipe.stage, "random_language_model", False)
    base_model = None if is_random else _base_model(getattr(recipe.stage, "language_model", None))
    return {"data": data} | ({"base_model": base_model} if base_model else {})


def _split_facts(corpus: PackedCorpus) -> dict[str, int]:
    signers = {signer for signer in corpus.signers if signer}
    return {"clips": len(corpus), "frames": sum(corpus.num_frames), "signers": len(signers)}


def _base_model(name: str | None) -> str | None:
    """The Hub id behind `language_model`, which may be a folder that `fla trim` made of it."""
    if name and Path(name).is_dir():
        report = _read_json(Path(name) / "trim_report.json") or {}
        name = str(report.get("model", ""))
        if Path(name).exists():
            return None
    return name if name and HUB_ID.fullmatch(name) else None


def fill_card(folder: Path, repo_id: str | None = None, license: str | None = None) -> ModelCard:
    """Fill `hub_card.md` from a run's folder.

    Args:
        folder (`Path`): with `config.json`; `metrics.json`, `recipe.yaml`, `generation_config.json`,
            `processor_config.json` and `predictions_SPLIT.tsv` are read where they are there.
        repo_id (`str`, *optional*): where the model will lie on the Hub; the folder's own path when absent.
        license (`str`, *optional*): the Hub's name of the model's licence; what the corpus's terms say when absent.

    Returns:
        [`~huggingface_hub.ModelCard`]: parsed by `huggingface_hub` from the filled text.

    Raises:
        InputError: the folder holds no model, or a file in it cannot be read.
    """
    config = _read_json(folder / "config.json")
    if config is None:
        raise InputError(f"{folder} is not the folder of a trained model: it holds no config.json")
    metrics = _read_json(folder / "metrics.json") or {}
    recipe = _read_yaml(folder / "recipe.yaml")
    data = metrics.get("data", {})
    known = CORPORA.get(data.get("corpus", ""))
    model_name = repo_id.split("/")[-1] if repo_id else "-".join(folder.absolute().parts[-2:])
    metadata = ModelCardData(
        license=license or (known.license if known else None),
        **_license_details(license, known),
        language=_languages(known, data, recipe) or None,
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=metrics.get("base_model"),
        datasets=[data["corpus"]] if known else None,
        metrics=["bleu", "rouge", "chrf"] if "test" in metrics else None,
        tags=list(TAGS),
        model_name=model_name,
        eval_results=eval_results(metrics, known, recipe) or None,
    )
    try:
        return ModelCard.from_template(
            metadata,
            template_path=str(find_template()),
            model_name=model_name,
            repo_id=repo_id or str(folder),
            base_model=metrics.get("base_model"),
            corpus=bool(data),
            **_corpus_part(data, known, recipe),
            **_model_part(folder, config),
            **_result_part(metrics),
            hyperparameters=[(name, recipe[name]) for name in HYPERPARAMETERS if recipe.get(name) is not None],
            costs=_costs(folder, metrics, recipe, config),
        )
    except ValueError as error:
        raise InputError(f"no card can be made of {folder}: {error}") from error


def find_template() -> Path:
    """Where `hub_card.md` lies: at the top of the repository, or where the installed package's data is.

    Returns:
        `Path`: the file.

    Raises:
        InputError: it is in neither place.
    """
    installed = Path(sysconfig.get_path("data")) / "share" / "fla-llm"
    for place in (Path(__file__).resolve().parents[2], installed):
        if (place / "hub_card.md").is_file():
            return place / "hub_card.md"
    raise InputError("hub_card.md, the template of the model card, is not installed")


def write_card(folder: Path, repo_id: str | None = None) -> Path:
    """Fill the card and put it into the run's folder as `README.md`.

    Args:
        folder (`Path`): of the run.
        repo_id (`str`, *optional*): where the model will lie on the Hub.

    Returns:
        `Path`: the card.

    Raises:
        InputError: as [`fill_card`] and [`check_card`].
    """
    card = fill_card(folder, repo_id)
    check_card(str(card))
    with atomic_file(folder / "README.md", overwrite=True) as file:
        file.write_text(str(card), encoding="utf-8")
    return folder / "README.md"


def check_card(text: str) -> ModelCard:
    """Have `huggingface_hub` parse a card, as it does before it uploads one.

    Args:
        text (`str`): a model card.

    Returns:
        [`~huggingface_hub.ModelCard`]: parsed.

    Raises:
        InputError: no metadata, metadata or results that do not fit the Hub's format, or a place left unfilled.
    """
    try:
        card = ModelCard(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"the model card does not pass the Hub's check: {' '.join(str(error).split())}") from error
    for name in ("library_name", "pipeline_tag", "tags"):
        if not card.data.get(name):
            raise InputError(f"the model card does not pass the Hub's check: its metadata lacks `{name}`")
    if "{{" in text or "{%" in text:
        raise InputError("the model card has a place that was not filled in")
    return card


def eval_results(metrics: dict, known: KnownCorpus | None, recipe: dict) -> list[EvalResult]:
    """The figures of `metrics.json` in the form of the Hub's `model-index`.

    Args:
        metrics (`dict`): of the run.
        known ([`KnownCorpus`], *optional*): the corpus, if it is one of `CORPORA`.
        recipe (`dict`): its `test_split` and `dev_split` name the splits.

    Returns:
        `list[EvalResult]`: of test and dev, with the metric's signature; empty without a corpus's name.
    """
    corpus = metrics.get("data", {}).get("corpus")
    results = []
    for split in ("test", "dev") if corpus else ():
        scores = metrics.get(split, {})
        for name, title in METRICS.items():
            if name not in scores:
                continue
            arguments = {"max_order": int(name[-1])} if name.startswith("bleu") else {}
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="Sign language translation",
                    dataset_type=corpus,
                    dataset_name=known.title.split(":")[0] if known else corpus,
                    dataset_split=recipe.get(f"{split}_split", split),
                    metric_type=name.rstrip("1234").removesuffix("_l"),
                    metric_name=title,
                    metric_value=scores[name],
                    metric_args={**arguments, "signature": scores.get("signature")},
                )
            )
    return results


def _license_details(license: str | None, known: KnownCorpus | None) -> dict[str, str]:
    if license or known is None or known.license != "other":
        return {}
    return {"license_name": "terms-of-the-training-data", "license_link": known.url}


def _languages(known: KnownCorpus | None, data: dict, recipe: dict) -> list[str]:
    if known:
        return list(known.languages)
    code = str(recipe.get("language_code") or data.get("language") or "").split("_")[0].lower()
    return [code] if re.fullmatch("[a-z]{2,3}", code) else []


def _corpus_part(data: dict, known: KnownCorpus | None, recipe: dict) -> dict[str, Any]:
    splits = []
    for name in ("train", "dev", "test"):
        facts = data.get(name, {})
        label = recipe.get(f"{name}_split", name)
        splits.append({"name": name if label == name else f"{name} ({label})", **facts})
    title = known.title if known else f"The owner's own corpus, `{data.get('corpus', '')}`"
    if data.get("corpus") == "manifest":
        title = "The owner's own clips"
    codes = {"de": "German", "zh": "Chinese", "en": "English"}
    return {
        "corpus_title": title,
        "corpus_url": known.url if known else "",
        "corpus_terms": known.terms if known else "",
        "splits": splits,
        "train_signers": data.get("train", {}).get("signers"),
        "sentence_language": codes.get((_languages(known, data, recipe) or [""])[-1], ""),
    }


def _model_part(folder: Path, config: dict) -> dict[str, Any]:
    text = config.get("text_config", {})
    generation = _read_json(folder / "generation_config.json") or {}
    video = (_read_json(folder / "processor_config.json") or {}).get("video_processor", {})
    stride, crop = video.get("frame_stride"), video.get("crop_size", {})
    sampling = f"one frame in {stride}" if stride else "the frames it is told to"
    if crop.get("height"):
        sampling += f" at {crop['height']} x {crop['width']} pixels"
    vocabulary = f" with a vocabulary of {text['vocab_size']} pieces" if "vocab_size" in text else ""
    return {
        "language_model": f"`{text.get('model_type', 'unknown')}`{vocabulary}",
        "sampling": sampling,
        "max_frames": text.get("max_position_embeddings"),
        "num_beams": generation.get("num_beams"),
        "max_new_tokens": generation.get("max_new_tokens"),
    }


def _result_part(metrics: dict) -> dict[str, Any]:
    """The table of scores, one column a split."""
    results = [{"split": split, **metrics[split]} for split in ("dev", "test") if "bleu4" in metrics.get(split, {})]
    intervals = [row.get("confidence_intervals", {}) for row in results]
    lines = []
    for name, title in METRICS.items():
        cells = []
        for row, interval in zip(results, intervals, strict=True):
            cell = f"{row[name]:.2f}" if name in row else ""
            cells.append(cell + (" [{:.2f}, {:.2f}]".format(*interval[name]) if cell and name in interval else ""))
        lines.append({"name": title, "cells": cells})
    lines.append({"name": "sentences", "cells": [row.get("num_sentences", "") for row in results]})
    return {
        "results": results,
        "result_lines": lines,
        "has_intervals": any(intervals),
        "signature": results[-1].get("signature", "") if results else "",
    }


def _costs(folder: Path, metrics: dict, recipe: dict, config: dict) -> Sequence[tuple[str, str]]:
    """Rows of the table of size and speed, as far as the run has noted them."""
    rows = []
    if "parameters" in metrics:
        rows.append(("parameters", f"{metrics['parameters']:,}, of them trained {metrics['trained_parameters']:,}"))
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if weights:
        rows.append(("weights", f"{weights / 1e6:,.1f} MB"))
    test = metrics.get("test", {})
    if test.get("seconds") and test.get("num_sentences"):
        # The recipe in the run's folder leaves out what is at its default, and `feature_cache` is on by default.
        frozen = config.get("freeze_vision_backbone") and config.get("freeze_temporal_module")
        cached = "stage1_checkpoint" in recipe and frozen and recipe.get("feature_cache", "auto")
        start = "stored sign features" if cached else "packed frames"
        rows.append(
            ("translating the test split", f"{test['num_sentences'] / test['seconds']:.1f} clips/s from {start}")
        )
    if "seconds" in metrics:
        rows.append(
            ("the whole run", f"{metrics['seconds'] / 60:.1f} minutes, {metrics.get('processes', 1)} process(es)")
        )
    for name, title in (("peak_memory_mib", "peak memory"), ("peak_gpu_memory_mib", "peak GPU memory")):
        if name in metrics:
            rows.append((title, f"{metrics[name]:,} MiB"))
    if "versions" in metrics:
        rows.append(("made with", ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())))
    return rows


def _read_json(file: Path) -> Any:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _read_yaml(file: Path) -> dict:
    if not file.is_file():
        return {}
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
