"""The page as a Hugging Face Space: a folder with all it needs to start, ready to be pushed.

The packages go along as source, so that a Space runs the code it was written with. A model of the Hub is named, one of
this machine is copied, as far as it is needed to translate.
"""

import shutil
import sys
from importlib import metadata
from pathlib import Path

from huggingface_hub import ModelCard, SpaceCard, SpaceCardData

from training_fla.files import InputError, atomic_folder
from training_fla.hub.card import HUB_ID
from training_fla.hub.push import check_whole, model_files
from training_fla.viewing.loading import model_name

PACKAGES = ("modeling_fla", "processing_fla", "training_fla")
SOURCES = ("*.py", "*.html", "*.css", "*.js")
MODEL_FOLDER = "model"
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

The model answers every clip with a sentence, right or wrong. It is no stand-in for an interpreter.
"""


def write_space(folder: Path, args) -> Path:
    """Write `app.py`, `requirements.txt`, `README.md` with the Space's metadata, and the packages.

    Args:
        folder (`Path`): to appear; may exist if it is empty.
        args (`argparse.Namespace`): of `fla serve`.

    Returns:
        `Path`: the folder.

    Raises:
        InputError: there is no such model, the folder holds something, or this package or Gradio is not installed.
    """
    source = Path(args.model)
    is_local = source.is_dir()
    if is_local:
        check_model(source)
    elif not HUB_ID.fullmatch(args.model):
        raise InputError(f"`{args.model}` is neither the folder of a trained model nor a model's id on the Hub")
    requirements, gradio_version = requirement_lines(), installed_version("gradio")
    with atomic_folder(folder, "space") as work:
        for package in PACKAGES:
            copy_sources(package, work / package)
        if is_local:
            copy_model(source, work / MODEL_FOLDER)
            (work / ".gitattributes").write_text(GIT_ATTRIBUTES, encoding="utf-8")
        model = f'str(Path(__file__).resolve().parent / "{MODEL_FOLDER}")' if is_local else repr(args.model)
        (work / "app.py").write_text(APP.format(model=model, options=options_of(args)), encoding="utf-8")
        (work / "requirements.txt").write_text("\n".join([*requirements, ""]), encoding="utf-8")
        (work / "README.md").write_text(str(space_card(args, is_local, gradio_version)), encoding="utf-8")
    return folder


def check_model(folder: Path) -> None:
    """Refuse a folder from which no model can be loaded.

    Args:
        folder (`Path`): of a trained model.

    Raises:
        InputError: naming what is missing.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"`{folder}` is not the folder of a trained model: it holds no config.json")
    check_whole(folder, {entry.name for entry in folder.iterdir()})


def copy_sources(package: str, target: Path) -> None:
    """Copy a package's own files, from wherever it was imported.

    Args:
        package (`str`): its name.
        target (`Path`): folder to make.
    """
    source = Path(__file__).resolve().parents[2] / package
    for pattern in SOURCES:
        for file in source.rglob(pattern):
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    licence = source.parent / "LICENSE"  # beside the packages in the repository, not where they are installed
    if licence.is_file():
        shutil.copyfile(licence, target.parent / "LICENSE")


def copy_model(source: Path, target: Path) -> None:
    """Copy what a translation needs of a run's folder: neither checkpoints nor predictions.

    Args:
        source (`Path`): of a run.
        target (`Path`): folder to make.
    """
    target.mkdir()
    for name in model_files(source):
        shutil.copyfile(source / name, target / name)


def options_of(args) -> list[str]:
    """The options that a Space passes on: the limits, and how it searches; it listens where Spaces are expected to.

    Args:
        args (`argparse.Namespace`): of `fla serve`.

    Returns:
        `list[str]`: for the command line.
    """
    options = ["--host", "0.0.0.0", "--port", "7860", "--title", args.title or model_name(args.model)]
    for name in ("max_megabytes", "max_seconds", "time_limit", "max_waiting", "num_beams", "dtype"):
        value = getattr(args, name)
        if value is not None:
            options += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return options


def requirement_lines() -> list[str]:
    """What this package needs, from its own metadata; Gradio is brought by the Space's `sdk_version`.

    Returns:
        `list[str]`: for `requirements.txt`.

    Raises:
        InputError: this package is not installed.
    """
    try:
        requirements = metadata.requires("fla-llm") or []
    except metadata.PackageNotFoundError as error:
        raise InputError("`fla-llm` is not installed, so its requirements are not known") from error
    return [line for line in requirements if "extra ==" not in line]


def installed_version(package: str) -> str:
    """The version of a package.

    Args:
        package (`str`): its name.

    Returns:
        `str`: e.g. `6.31.0`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise InputError(f'{package} is not installed: python -m pip install "fla-llm[serve]"') from error


def space_card(args, is_local: bool, gradio_version: str) -> SpaceCard:
    """The Space's `README.md`, with the metadata that the Hub starts it by.

    Args:
        args (`argparse.Namespace`): of `fla serve`.
        is_local (`bool`): whether the model goes along.
        gradio_version (`str`): that the page was written with.

    Returns:
        [`~huggingface_hub.SpaceCard`]: parsed by `huggingface_hub`.
    """
    title = "Sign language translation"
    data = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=gradio_version,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        # Without the weights, what is pushed is code.
        license=model_license(Path(args.model)) if is_local else "apache-2.0",
        models=None if is_local else [args.model],
        tags=["sign-language", "sign-language-translation"],
        emoji="👐",
        colorFrom="blue",
        colorTo="gray",
        pinned=False,
        short_description="A sign video in, a sentence out",
    )
    name = args.title or model_name(args.model)
    text = README.format(title=title, model=name, seconds=args.max_seconds, megabytes=args.max_megabytes)
    return SpaceCard(f"---\n{data.to_yaml()}\n---\n{text}")


def model_license(folder: Path) -> str | None:
    """The licence that a model's own card names.

    Args:
        folder (`Path`): of a trained model.

    Returns:
        `str` or `None`: `None` where it names none.
    """
    card = folder / "README.md"
    try:
        return ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
    except ValueError:
        return None
