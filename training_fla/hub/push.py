"""What goes to the Hub and how: model, processor, code files and card in one commit, and a tag on it.

Files are named that go, not files that stay: checkpoints, optimizer states, predictions (they quote the corpus), the
recipe (it names paths), and whatever else lies in a run's folder cannot slip through.
"""

import fnmatch
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from training_fla.files import InputError
from training_fla.hub.card import check_card, fill_card

# The base of every failure of the client that `huggingface_hub` happens to speak HTTP with: it has changed its client.
HTTP_ERRORS = tuple(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
UPLOADED = {
    "weights": ("*.safetensors", "*.safetensors.index.json"),
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
    """What will be uploaded.

    Args:
        folder (`Path`): of the trained model.
        repo_id (`str`): where to.
        files (`list[tuple[str, str]]`): name and kind (a key of `UPLOADED`) of each file.
        left_out (`list[str]`): the other entries of the folder, which stay where they are.
        card (`str`): `README.md` as it will be.
        tag (`str`): of the commit.
    """

    folder: Path
    repo_id: str
    files: list[tuple[str, str]]
    left_out: list[str]
    card: str
    tag: str

    def lines(self) -> list[str]:
        """A listing for people.

        Returns:
            `list[str]`: one line a file with its size and kind, then what stays, then the tag.
        """
        sizes = {name: (self.folder / name).stat().st_size for name, _ in self.files}
        sizes["README.md"] = len(self.card.encode())
        rows = [*self.files, ("README.md", "card")]
        lines = [f"{sizes[name]:>14,}  {kind:<9}  {name}" for name, kind in rows]
        lines.append(f"{sum(sizes.values()):>14,}  bytes in {len(rows)} files, tag {self.tag}")
        if self.left_out:
            lines.append(f"stays here: {', '.join(self.left_out)}")
        return lines


def plan_upload(folder: Path, repo_id: str, tag: str | None = None, license: str | None = None) -> Upload:
    """Check a trained model's folder, fill its card and list what goes.

    Args:
        folder (`Path`): of the trained model.
        repo_id (`str`): `owner/name` on the Hub.
        tag (`str`, *optional*): of the commit; by default it names the weights by their hash.
        license (`str`, *optional*): of the model, by the Hub's name for it.

    Returns:
        [`Upload`]: whole, and loadable from the Hub as it is.

    Raises:
        InputError: a bad id, a folder without model or processor, a shard or a code file missing, a card that the
            Hub would refuse.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id} is no repository id: {error}") from error
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    kinds = ((name, kind_of(name)) for name in names)
    files = sorted(((name, kind) for name, kind in kinds if kind), key=lambda file: list(UPLOADED).index(file[1]))
    card = str(fill_card(folder, repo_id, license))
    check_card(card)
    check_whole(folder, {name for name, _ in files})
    going = {name for name, _ in files} | {"README.md"}
    left_out = sorted(entry.name for entry in folder.iterdir() if entry.name not in going)
    return Upload(folder, repo_id, files, left_out, card, tag or weights_tag(folder, files))


def kind_of(name: str) -> str | None:
    """What a file is to a model on the Hub.

    Args:
        name (`str`): of the file.

    Returns:
        `str` or `None`: a key of `UPLOADED`; `None` where it does not go.
    """
    for kind, patterns in UPLOADED.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return kind
    return None


def check_whole(folder: Path, names: set[str]) -> None:
    """Refuse a folder that would not load once it is on the Hub.

    Args:
        folder (`Path`): of the trained model.
        names (`set[str]`): the files that go.

    Raises:
        InputError: naming the first file that is missing.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    needed = {"config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"}
    needed |= {f"{path.split('.')[0]}.py" for path in config.get("auto_map", {}).values()}
    if not config.get("auto_map"):
        raise InputError(
            f"{folder}/config.json has no auto_map: save the model with `save_pretrained` of this package"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        needed |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    else:
        needed.add("model.safetensors")
    for name in sorted(needed - names):
        raise InputError(f"{folder} cannot be pushed: {name} is missing")


def weights_tag(folder: Path, files: list[tuple[str, str]]) -> str:
    """Name weights by what they are, so that the same weights get the same tag.

    Args:
        folder (`Path`): of the trained model.
        files (`list[tuple[str, str]]`): name and kind.

    Returns:
        `str`: `weights-` and eight digits of the files' SHA-256.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name, kind in files if kind == "weights"):
        with open(folder / name, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return f"weights-{digest.hexdigest()[:8]}"


def push(
    upload: Upload,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload model, processor, code and card",
    token: str | None = None,
) -> str:
    """Upload everything in one commit and tag it.

    Args:
        upload ([`Upload`]): from [`plan_upload`].
        private (`bool`, *optional*): whether a repository that is made now is private.
        revision (`str`, *optional*): the branch; `main` when absent. It is made if need be.
        message (`str`): of the commit.
        token (`str`, *optional*): the one that is logged in when absent.

    Returns:
        `str`: the commit's address.

    Raises:
        InputError: the Hub cannot be reached or refuses.
    """
    api = HfApi(token=token)
    operations = [CommitOperationAdd(name, str(upload.folder / name)) for name, _ in upload.files]
    operations.append(CommitOperationAdd("README.md", upload.card.encode()))
    try:
        check_card(upload.card).validate()  # by the Hub, before anything is made there
        api.create_repo(upload.repo_id, private=private, exist_ok=True)
        if revision not in (None, "main"):
            api.create_branch(upload.repo_id, branch=revision, exist_ok=True)
        going = {operation.path_in_repo for operation in operations}
        there = api.model_info(upload.repo_id, revision=revision).siblings or []
        # An older upload may have had more shards, or files under names that are no longer used.
        gone = [file.rfilename for file in there if kind_of(file.rfilename) and file.rfilename not in going]
        operations += [CommitOperationDelete(name, is_folder=False) for name in gone]
        commit = api.create_commit(upload.repo_id, operations, commit_message=message, revision=revision)
        api.create_tag(upload.repo_id, tag=upload.tag, revision=commit.oid, exist_ok=True)
    except OfflineModeIsEnabled as error:
        raise InputError("the Hub is switched off: unset HF_HUB_OFFLINE to push") from error
    except LocalTokenNotFoundError as error:
        raise InputError("not logged in: run `hf auth login` or set HF_TOKEN") from error
    except (*HTTP_ERRORS, OSError, ValueError) as error:
        raise InputError(refusal(upload.repo_id, error, api.endpoint)) from error
    return commit.commit_url


def refusal(repo_id: str, error: Exception, endpoint: str) -> str:
    """Say in one line why a push failed, and what to do about it.

    Args:
        repo_id (`str`): where to.
        error (`Exception`): of `huggingface_hub`, or of the HTTP client below it.
        endpoint (`str`): the Hub's address.

    Returns:
        `str`: naming the repository or the address.
    """
    text = " ".join(str(error).split())
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


def push_trained(folder: Path, args, repo_id: str) -> str:
    """What `--push_to_hub` of a training run does at its end.

    Args:
        folder (`Path`): of the run, finished.
        args ([`~transformers.TrainingArguments`]): `hub_private_repo`, `hub_revision`, `hub_token`.
        repo_id (`str`): the trainer's `hub_model_id`.

    Returns:
        `str`: the commit's address.

    Raises:
        InputError: as [`plan_upload`] and [`push`].
    """
    upload = plan_upload(folder, repo_id)
    return push(upload, private=args.hub_private_repo, revision=args.hub_revision, token=args.hub_token)
