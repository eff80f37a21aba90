"""What goes to the Hub and how: model, processor, code files and card in one commit, and a tag on it.

Only named files are uploaded: no checkpoints, optimizer states, predictions (they quote the corpus), recipe (it names
paths), or whatever else lies in a run's folder.
"""

import contextlib
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id
from transformers.dynamic_module_utils import get_relative_import_files

from training_fla.console import size_text
from training_fla.errors import InputError, one_line
from training_fla.hub.card import fill_card
from training_fla.loading import damaged_weights

# The base error of the HTTP client that `huggingface_hub` uses; which client that is depends on its version.
HTTP_ERRORS = tuple(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
UPLOADED = {
    "weights": ("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json"),
    "model": ("config.json", "generation_config.json"),
    "processor": (
        "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "sentencepiece.bpe.model",
        "spiece.model", "vocab.json", "merges.txt",
    ),
    "code": ("*_fla.py",),
}  # fmt: skip


@dataclass
class Upload:
    """What will be uploaded: files with their kind, a key of `UPLOADED`, and the card as `README.md`."""

    folder: Path
    repo_id: str
    files: dict[str, str]
    left_out: list[str]
    card: ModelCard
    tag: str

    def lines(self) -> list[str]:
        """A listing for people: one line a file with its size and kind, then the tag, then what stays."""
        sizes = {name: (self.folder / name).stat().st_size for name in self.files}
        sizes["README.md"] = len(str(self.card).encode())
        kinds = self.files | {"README.md": "card"}
        lines = [f"{size_text(sizes[name]):>10}  {kind:<9}  {name}" for name, kind in kinds.items()]
        lines.append(f"{size_text(sum(sizes.values())):>10}  in {len(kinds)} files, tag {self.tag}")
        return lines + ([f"stays here: {', '.join(self.left_out)}"] if self.left_out else [])


def plan_upload(folder: Path, repo_id: str, tag: str | None = None, license: str | None = None) -> Upload:
    """Check a trained model's folder, fill its card and list what goes; the tag names the weights by their hash."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id} is no repository id: {error}") from error
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    card = fill_card(folder, repo_id, license)
    files = model_files(folder)
    check_whole(folder, set(files))
    left_out = sorted({entry.name for entry in folder.iterdir()} - {*files, "README.md"})
    return Upload(folder, repo_id, files, left_out, card, tag or weights_tag(folder, files))


def model_files(folder: Path) -> dict[str, str]:
    """The files of a folder that make the model, with their kind; of code files those that its classes import."""
    kinds = {name: kind_of(name) for name in sorted(entry.name for entry in folder.iterdir() if entry.is_file())}
    code = _code_files(folder)
    going = {name: kind for name, kind in kinds.items() if kind and (kind != "code" or name in code)}
    return dict(sorted(going.items(), key=lambda file: list(UPLOADED).index(file[1])))


def _code_files(folder: Path) -> set[str]:
    """The modules that the configurations name (`auto_map`, `custom_pipelines`), and what they import beside them."""
    texts = (file.read_text(encoding="utf-8") for file in folder.glob("*config.json"))
    named = {f"{module}.py" for text in texts for module in re.findall(r'(\w+_fla)\.\w+"', text)}
    imported = (get_relative_import_files(folder / name) for name in named if (folder / name).is_file())
    return named | {Path(file).name for files in imported for file in files}


def kind_of(name: str) -> str | None:
    """What a file is to a model on the Hub, a key of `UPLOADED`; `None` where it does not go."""
    matches = (kind for kind, patterns in UPLOADED.items() for p in patterns if fnmatch.fnmatchcase(name, p))
    return next(matches, None)


def check_whole(folder: Path, names: set[str]) -> None:
    """Refuse a folder that would not load once it is on the Hub, naming the first file that is missing."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "fla_llm_exported":
        raise InputError(f"{folder} is an exported model: give the model it was made of")
    if not config.get("auto_map"):
        raise InputError(
            f"{folder}/config.json has no auto_map: save the model with `save_pretrained` of this package"
        )
    needed = {"config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"}
    needed |= {f"{path.split('.')[0]}.py" for path in config["auto_map"].values()}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        needed |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    else:
        needed.add("model.safetensors")
    for name in sorted(needed - names):
        raise InputError(f"{folder} cannot be pushed: {name} is missing")
    if damage := damaged_weights(folder, "model*.safetensors"):
        raise InputError(damage)


def weights_tag(folder: Path, files: dict[str, str]) -> str:
    """Name weights by their SHA-256, so that the same weights get the same tag."""
    digest = hashlib.sha256()
    for name in sorted(name for name, kind in files.items() if kind == "weights"):
        with open(folder / name, "rb") as file:
            hashlib.file_digest(file, lambda: digest)  # goes on with it from file to file
    return f"weights-{digest.hexdigest()[:8]}"


@contextlib.contextmanager
def hub_errors(repo_id: str, endpoint: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises into one line with the remedy."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise InputError("the Hub is switched off: unset HF_HUB_OFFLINE to push") from error
    except LocalTokenNotFoundError as error:
        raise InputError("not logged in: run `hf auth login` or set HF_TOKEN") from error
    except (*HTTP_ERRORS, OSError, ValueError) as error:
        raise InputError(refusal(repo_id, error, endpoint or HfApi().endpoint)) from error


def push(
    upload: Upload,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload model, processor, code and card",
    token: str | None = None,
) -> str:
    """Upload everything in one commit, tag it, and return its address."""
    api = HfApi(token=token)
    # `upload_folder` would take the card from the folder; this one names the repository.
    operations = [CommitOperationAdd(name, str(upload.folder / name)) for name in upload.files]
    operations.append(CommitOperationAdd("README.md", str(upload.card).encode()))
    with hub_errors(upload.repo_id, api.endpoint):
        upload.card.validate()  # by the Hub, before anything is made there
        api.create_repo(upload.repo_id, private=private, exist_ok=True)
        if revision not in (None, "main"):
            api.create_branch(upload.repo_id, branch=revision, exist_ok=True)
        there = api.model_info(upload.repo_id, revision=revision).siblings or []
        # An older upload may have had more shards, or files under names that are no longer used.
        gone = [file.rfilename for file in there if kind_of(file.rfilename) and file.rfilename not in upload.files]
        operations += [CommitOperationDelete(name, is_folder=False) for name in gone]
        commit = api.create_commit(upload.repo_id, operations, commit_message=message, revision=revision)
        api.create_tag(upload.repo_id, tag=upload.tag, revision=commit.oid, exist_ok=True)
    return commit.commit_url


def refusal(repo_id: str, error: Exception, endpoint: str) -> str:
    """Say in one line why a push failed, and what to do about it."""
    text = one_line(error)
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401:
        return f"the Hub does not know the token it was given for {repo_id}: run `hf auth login`, or set HF_TOKEN anew"
    if status == 403:
        return (
            f"the token may not write to {repo_id}: log in as somebody who may, with a token that can write ({text})"
        )
    if response is None and isinstance(error, HTTP_ERRORS):
        return f"the Hub cannot be reached at {endpoint}: {text}"
    return f"the Hub did not take {repo_id}: {text}"


def make_repository(args) -> None:
    """What `--push_to_hub` needs of the Hub, asked for before the training."""
    repo_id = args.hub_model_id or Path(args.output_dir).absolute().name
    with hub_errors(repo_id):
        HfApi(token=args.hub_token).create_repo(repo_id, private=args.hub_private_repo, exist_ok=True)


def push_trained(folder: Path, args, repo_id: str) -> str:
    """What `--push_to_hub` of a training run does at its end."""
    upload = plan_upload(folder, repo_id)
    return push(upload, private=args.hub_private_repo, revision=args.hub_revision, token=args.hub_token)
