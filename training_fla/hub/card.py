"""The model card: `hub_card.md` filled from what a run leaves behind; a figure that no file holds is left out."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from training_fla.clone import shipped_file
from training_fla.corpora.registry import CORPORA, Corpus
from training_fla.corpora.row import SPLITS
from training_fla.errors import InputError, one_line
from training_fla.folders import write_text
from training_fla.recipe import PAPERS_CLIPS_A_STEP, clips_a_step, stage_of

TASK = "video-text-to-text"  # the nearest task in the Hub's list
TAGS = ["sign-language-translation", "sign-language", "gloss-free", "fla_llm"]
TITLES = {
    "bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "chrf": "chrF"
}  # fmt: skip
# Lines of a recipe worth reading; none can hold a path.
HYPERPARAMETERS = (
    "optimizer", "learning_rate", "adapter_learning_rate", "lr_scheduler_type", "num_train_epochs", "max_steps",
    "gradient_accumulation_steps", "label_smoothing_factor", "weight_decay",
    "max_grad_norm", "freeze_vision_backbone", "freeze_temporal_module", "input_features", "max_source_frames", "seed",
)  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SENTENCE_LANGUAGES = {"de": "German", "zh": "Chinese", "en": "English"}


def training_facts(recipe, splits) -> dict[str, Any]:
    """What `metrics.json` keeps for the card: corpus, language, counts, models that training began with."""
    entries = getattr(splits.train, "entries", ())  # of several corpora
    if entries:
        each = {entry.name: corpus_facts(splits.of_corpus(place)) for place, entry in enumerate(entries)}
        for place, entry in enumerate(entries):
            each[entry.name] |= {
                "weight": entry.weight,
                "languages": sorted(set(splits.train.languages[place]) - {""}),
            }
        data: dict[str, Any] = {"corpora": each}
        for name in SPLITS:
            kinds = ("clips", "frames", "signers")
            data[name] = {kind: sum(facts[name][kind] for facts in each.values()) for kind in kinds}
    else:
        data = corpus_facts(splits)
    # A random language model takes only the architecture.
    is_random = getattr(recipe.model, "random_language_model", False)
    base_model = None if is_random else _base_model(getattr(recipe.model, "language_model", None))
    earlier = getattr(recipe.model, "stage1_checkpoint", None)
    start = recipe.start or (read_facts(Path(earlier) / "metrics.json").get("start") if earlier else None)
    facts = {"data": data, "base_model": base_model, "start": start}
    return {name: value for name, value in facts.items() if value}


def corpus_facts(splits) -> dict[str, Any]:
    """Of one corpus: its name, language, and the counts of its splits."""
    data: dict[str, Any] = {"corpus": splits.train.corpus, "language": splits.train.language}
    for name in SPLITS:
        corpus = getattr(splits, name)
        signers = {signer for signer in corpus.signers if signer}
        data[name] = {"clips": len(corpus), "frames": sum(corpus.num_frames), "signers": len(signers)}
    return data


def _base_model(name: str | None) -> str | None:
    """The Hub id behind `language_model`, which may be a folder that `fla trim` made of it."""
    if name and Path(name).is_dir():
        name = str(read_facts(Path(name) / "trim_report.json").get("model", ""))
        if Path(name).exists():
            return None
    return name if name and HUB_ID.fullmatch(name) else None


def public_name(name: str) -> str:
    """A Hub id as it is; of a folder its last two parts, since its place is nobody's business."""
    return "-".join(Path(name).absolute().parts[-2:]) if Path(name).is_absolute() or Path(name).is_dir() else name


def fill_card(folder: Path, repo_id: str | None = None, license: str | None = None) -> ModelCard:
    """Fill `hub_card.md` from a run's folder; the licence is that of the corpus's terms unless one is given."""
    config, metrics, recipe = (read_facts(folder / name) for name in ("config.json", "metrics.json", "recipe.yaml"))
    if not config:
        raise InputError(f"{folder} is not the folder of a trained model: it holds no config.json")
    data = metrics.get("data", {})
    corpora = described(data)
    scored = [split for split in ("dev", "test") if "bleu4" in metrics.get(split, {})]
    named = {split: recipe.get(f"{split}_split", split) for split in SPLITS}  # what the run took as each split
    labels = {split: split if split == name else f"{split} ({name})" for split, name in named.items()}
    metadata = _metadata(metrics, recipe, corpora, license)
    metadata.model_name = repo_id.split("/")[-1] if repo_id else public_name(str(folder))
    metadata.eval_results = [result for corpus in corpora for result in eval_results(metrics, corpus, named)] or None
    try:
        return ModelCard.from_template(
            metadata,
            template_path=str(find_template()),
            model_name=metadata.model_name,
            repo_id=repo_id or str(folder),
            metrics=metrics,
            start=public_name(metrics["start"]["model"]) if "start" in metrics else None,
            corpora=corpora,
            several=len(corpora) > 1,
            splits={split: {"label": labels[split], **data.get(split, {})} for split in SPLITS},
            scored=scored,
            results=results_of(metrics, corpora),
            signatures=signatures_of(metrics, corpora, scored),
            on_training_clips=[labels[split] for split in scored if named[split] == named["train"]],
            titles=TITLES,
            text=config.get("text_config", {}),
            feature_size=config.get("sign_feature_size"),
            extractor=config.get("sign_feature_extractor"),
            generation=read_facts(folder / "generation_config.json"),
            video=read_facts(folder / "processor_config.json").get("video_processor", {}),
            sentence_language=sentence_languages(corpora, metadata.language or []),
            hyperparameters=hyperparameters(metrics, recipe),
            costs=costs(folder, metrics, recipe, config),
        )
    except ValueError as error:
        raise InputError(f"no card can be made of {folder}: {error}") from error


@dataclass
class DescribedCorpus:
    """A corpus that a run was trained on: its facts in `metrics.json`, and what is known of it besides."""

    facts: dict[str, Any]
    name: str = ""  # of one of several: in the scores
    known: Corpus | None = None

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        corpus = self.facts.get("corpus", "")
        if self.known:
            return self.known.title
        return "The owner's own clips" if corpus == "manifest" else f"The owner's own corpus, `{corpus}`"

    @property
    def languages(self) -> list[str]:
        """ISO codes, the sign language first where it is known; one of several speaks what the run says."""
        if self.known:
            return list(self.known.languages)
        codes = self.facts.get("languages") or [self.facts.get("language") or ""]
        return [code for code in (text.split("_")[0].lower() for text in codes) if re.fullmatch("[a-z]{2,3}", code)]

    def scores(self, metrics: dict, split: str) -> dict:
        """Its scores of a split."""
        scores = metrics.get(split, {})
        return scores.get("corpora", {}).get(self.name, {}) if self.name else scores


def described(data: dict[str, Any]) -> list[DescribedCorpus]:
    """The corpora of a run, by what its `metrics.json` says of its data."""
    if "corpora" not in data:
        return [DescribedCorpus(data, known=CORPORA.get(data.get("corpus", "")))]
    each = data["corpora"].items()
    return [DescribedCorpus(facts, name, CORPORA.get(facts.get("corpus", ""))) for name, facts in each]


def results_of(metrics: dict, corpora: list[DescribedCorpus]) -> dict[str, dict[str, dict]]:
    """The scores by split, under a heading where there are several corpora: their mean, then each."""
    if len(corpora) == 1:
        return {"": metrics}
    each = {corpus.name: {split: corpus.scores(metrics, split) for split in SPLITS} for corpus in corpora}
    return {"Mean of the corpora": metrics} | each


def signatures_of(metrics: dict, corpora: list[DescribedCorpus], scored: list[str]) -> str:
    """How the last split was scored, a line for each corpus."""
    lines = []
    for corpus in corpora if scored else ():
        name = f"{corpus.name}: " if corpus.name else ""
        lines.append(name + str(corpus.scores(metrics, scored[-1]).get("signature", "")))
    return "\n".join(lines)


def sentence_languages(corpora: list[DescribedCorpus], codes: list[str]) -> str:
    """The languages of the sentences in words, where all have one: "German or Chinese"."""
    spoken = [(corpus.languages or [""])[-1] for corpus in corpora] if len(corpora) > 1 else [(codes or [""])[-1]]
    words = [SENTENCE_LANGUAGES.get(code, "") for code in dict.fromkeys(spoken)]
    return " or ".join(words) if all(words) else ""


def find_template() -> Path:
    """`hub_card.md`, the template of the model card."""
    template = shipped_file("hub_card.md")
    if template is None:
        raise InputError("hub_card.md, the template of the model card, is not installed")
    return template


def write_card(folder: Path, repo_id: str | None = None) -> None:
    """Fill the card and put it into the run's folder as `README.md`."""
    write_text(folder / "README.md", str(fill_card(folder, repo_id)))


def eval_results(metrics: dict, described: DescribedCorpus, named: dict[str, str]) -> list[EvalResult]:
    """The figures of test and dev in the form of the Hub's `model-index`; none for clips that were trained on."""
    corpus, known = described.facts.get("corpus"), described.known
    results = []
    for split in ("test", "dev") if corpus else ():
        scores = described.scores(metrics, split) if named[split] != named["train"] else {}
        for name in filter(scores.__contains__, TITLES):
            order = {"max_order": int(name[-1])} if name.startswith("bleu") else {}
            result = EvalResult(
                task_type=TASK,
                task_name="Sign language translation",
                dataset_type=corpus,
                dataset_name=known.title.split(":")[0] if known else corpus,
                dataset_split=named[split],
                metric_type=name.rstrip("1234").removesuffix("_l"),
                metric_name=TITLES[name],
                metric_value=scores[name],
                metric_args={**order, "signature": scores.get("signature")},
            )
            results.append(result)
    return results


def _metadata(metrics: dict, recipe: dict, corpora: list[DescribedCorpus], license: str | None) -> ModelCardData:
    """What the Hub reads of the card, but for name and results."""
    details = {}
    known = [corpus.known for corpus in corpora if corpus.known]
    bound = [corpus for corpus in known if corpus.license == "other"]
    if bound and not license:
        details = {"license_name": "terms-of-the-training-data", "license_link": bound[0].url}
    if len(known) == len(corpora):  # the terms of an unknown corpus are its owner's to say
        license = license or (bound or known)[0].license
    if not known and len(corpora) == 1:
        code = str(recipe.get("language_code") or metrics.get("data", {}).get("language") or "").split("_")[0].lower()
        languages = re.findall("^[a-z]{2,3}$", code)
    else:
        languages = list(dict.fromkeys(code for corpus in corpora for code in corpus.languages))
    return ModelCardData(
        license=license,
        **details,
        language=languages or None,
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=metrics.get("base_model"),
        datasets=[corpus.facts["corpus"] for corpus in corpora if corpus.known] or None,
        metrics=["bleu", "rouge", "chrf"] if "test" in metrics else None,
        tags=TAGS,
    )


def clips_per_step(metrics: dict, recipe: dict) -> int | None:
    """What a run has noted, or up to 0.3.0 what its lines and processes say."""
    if "processes" not in metrics:
        return None
    return metrics.get("train", {}).get("clips_per_step") or clips_a_step(recipe, metrics["processes"])


def hyperparameters(metrics: dict, recipe: dict) -> dict[str, Any]:
    """Lines of the recipe, and the clips of a step beside the paper's."""
    rows = {name: recipe[name] for name in HYPERPARAMETERS if recipe.get(name) not in (None, -1)}  # -1: no max_steps
    clips, papers = clips_per_step(metrics, recipe), PAPERS_CLIPS_A_STEP[stage_of(recipe)]
    if clips is not None:
        rows["clips a step"] = f"{clips} (the paper's: {papers})"
    return rows


def costs(folder: Path, metrics: dict, recipe: dict, config: dict) -> dict[str, str]:
    """The table of size, speed, hardware and versions, as far as the run has noted it."""
    rows = {}
    if "parameters" in metrics:
        rows["parameters"] = f"{metrics['parameters']:,}, of them trained {metrics['trained_parameters']:,}"
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if weights:
        rows["weights"] = f"{weights / 1e6:,.1f} MB"
    test = metrics.get("test", {})
    if test.get("seconds") and test.get("num_sentences"):
        # Up to 0.3.0 a run kept no default, and `feature_cache` is on by default.
        frozen = config.get("freeze_vision_backbone") and config.get("freeze_temporal_module")
        cached = recipe.get("stage1_checkpoint") and frozen and recipe.get("feature_cache", "auto")
        cached = cached or config.get("sign_feature_size")
        source = "stored sign features" if cached else "packed frames"
        rows["translating the test split"] = f"{test['num_sentences'] / test['seconds']:.1f} clips/s from {source}"
    if "seconds" in metrics:
        minutes, processes = metrics["seconds"] / 60, metrics.get("processes", 1)
        on_gpus = f", {minutes * processes / 60:.2f} GPU hours" if "peak_gpu_memory_mib" in metrics else ""
        rows["the whole run"] = f"{minutes:.1f} minutes, {processes} process(es){on_gpus}"
    for name, title in (("peak_memory_mib", "peak memory"), ("peak_gpu_memory_mib", "peak GPU memory")):
        if name in metrics:
            rows[title] = f"{metrics[name]:,} MiB"
    if "device" in metrics:
        rows["hardware"] = metrics["device"]
    if "versions" in metrics:
        rows["made with"] = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    return rows


def read_facts(file: Path) -> dict:
    """A JSON or YAML file; empty where there is none."""
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        return dict((yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)) or {})
    except (ValueError, TypeError, yaml.YAMLError) as error:  # TypeError: it holds no names with values
        raise InputError(f"{file} cannot be read: {one_line(error)}") from error
