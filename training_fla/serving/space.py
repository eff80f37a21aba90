"""The page as a Hugging Face Space: a folder with all it needs to start, ready to be pushed.

The packages go along as source, so that a Space runs the code it was written with. A model of the Hub is named, one of
this machine is copied, as far as it is needed to translate.
"""

import shutil
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from huggingface_hub import ModelCard, SpaceCard, SpaceCardData

from training_fla.errors import InputError
from training_fla.folders import atomic_folder, check_not_inside
from training_fla.hub.card import HUB_ID
from training_fla.hub.push import check_whole, model_files
from training_fla.serving.limits import Limits
from training_fla.serving.page import import_gradio
from training_fla.viewing.loading import check_reads_videos

PACKAGES = ("modeling_fla", "processing_fla", "training_fla")
MODEL_FOLDER = "model"
TITLE = "Sign language translation"
GIT_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"

APP = '''"""The page of `fla serve` as a Space. Try it with `python app.py`."""

import sys
from pathlib import Path

from training_fla.cli import main

MODEL = {model}
OPTIONS = {options}

if __name__ == "__main__":
    # Options after `app.py` come last and win.
    sys.exit(main(["serve", MODEL, *OPTIONS, *sys.argv[1:]]))
'''

README = """
# {title}

A page on which people try `{model}`, a model that translates sign language video without glosses (FLa-LLM, Chen et
al., LREC-COLING 2024). Written by `fla serve --write-space`.

A clip may have up to {seconds:g} seconds and {megabytes:g} MB. It is deleted as soon as it has been read; nothing
is kept.

The model answers every clip with a sentence, right or wrong. It does not replace an interpreter.
"""


def write_space(
    folder: Path, model: str, title: str, limits: Limits, overwrite: bool = False, **search: int | str | None
) -> None:
    """Write `app.py`, `requirements.txt`, `README.md` with the Space's metadata, the packages and a local model.

    `search` are options of `fla serve` that the Space passes on, as it passes on the limits.
    """
    source = Path(model)
    is_local = source.is_dir()
    if is_local:
        check_model(source)
        check_not_inside([source], folder)
    elif not HUB_ID.fullmatch(model):
        raise InputError(f"`{model}` is neither the folder of a trained model nor a model's id on the Hub")
    requirements = [line for line in metadata.requires("fla-llm") or [] if "extra ==" not in line]
    gradio_version = import_gradio().__version__  # the Space's `sdk_version` brings it
    name = f'str(Path(__file__).resolve().parent / "{MODEL_FOLDER}")' if is_local else repr(model)
    with atomic_folder(folder, "space", overwrite) as work:
        copy_sources(work)
        if is_local:
            (work / MODEL_FOLDER).mkdir()
            for file in model_files(source):  # neither checkpoints nor predictions
                shutil.copyfile(source / file, work / MODEL_FOLDER / file)
            (work / ".gitattributes").write_text(GIT_ATTRIBUTES, encoding="utf-8")
        files = {
            "app.py": APP.format(model=name, options=options_of(title, limits, search)),
            "requirements.txt": "\n".join([*requirements, ""]),
            "README.md": str(space_card(model, title, limits, gradio_version)),
        }
        for file, text in files.items():
            (work / file).write_text(text, encoding="utf-8")


def check_model(folder: Path) -> None:
    """Refuse a folder from which no model can be loaded."""
    if not (folder / "config.json").is_file():
        raise InputError(f"`{folder}` is not the folder of a trained model: it holds no config.json")
    check_reads_videos(str(folder))
    check_whole(folder, {entry.name for entry in folder.iterdir()})


def copy_sources(target: Path) -> None:
    """Copy the packages, from wherever they were imported, and the licence."""
    source = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    if (source / "LICENSE").is_file():  # in the repository, not where the packages are installed
        shutil.copyfile(source / "LICENSE", target / "LICENSE")


def options_of(title: str, limits: Limits, search: dict) -> list[str]:
    """For the command line of `fla serve`; it listens where Spaces are expected to."""
    options = ["--host", "0.0.0.0", "--port", "7860", "--title", title]
    values = {**asdict(limits), "max_frames": None, **search}  # the model says how many frames it takes
    for name, value in values.items():
        if value is not None:
            options += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return options


def space_card(model: str, title: str, limits: Limits, gradio_version: str) -> SpaceCard:
    """The Space's `README.md`, with the metadata that the Hub starts it by."""
    is_local = Path(model).is_dir()
    data = SpaceCardData(
        title=TITLE,
        sdk="gradio",
        sdk_version=gradio_version,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        # Without the weights, what is pushed is code.
        license=model_license(Path(model)) if is_local else "apache-2.0",
        models=None if is_local else [model],
        tags=["sign-language", "sign-language-translation"],
        emoji="👐",
        colorFrom="blue",
        colorTo="gray",
        pinned=False,
        short_description="A sign video in, a sentence out",
    )
    text = README.format(title=TITLE, model=title, seconds=limits.max_seconds, megabytes=limits.max_megabytes)
    return SpaceCard(f"---\n{data.to_yaml()}\n---\n{text}")


def model_license(folder: Path) -> str | None:
    """The licence that a model's own card names; `None` where it names none."""
    card = folder / "README.md"
    return ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
