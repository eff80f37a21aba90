"""Training from a stream: `datasets` reads the training clips of a packed folder where they lie, through fsspec.

The manifest, the indexes and the splits that are scored are copied first, so counts and sentences are known.
"""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, load_dataset
from datasets.distributed import split_dataset_by_node
from fsspec.core import url_to_fs
from torch.utils.data import IterableDataset

from training_fla.errors import InputError
from training_fla.folders import atomic_file, locked_folder, write_marker
from training_fla.loading import loading
from training_fla.recipe import DataArguments, Recipe

from .datasets import SignVideoDataset
from .packed_corpus import MANIFEST, read_packed_manifest


def check_streaming(recipe: Recipe) -> None:
    """Refuse what needs all clips at hand."""
    data, cache = recipe.data, getattr(recipe.model, "feature_cache", None)
    lines = {name: getattr(data, name) for name in ("manifest", "frames_per_batch", "max_train_clips")}
    lines["feature_cache"] = None if cache == "auto" else cache
    lines["train_sampling_strategy"] = recipe.training["train_sampling_strategy"]
    for name, value in lines.items():
        remedy = "random" if name == "train_sampling_strategy" else "null"
        if value not in (None, remedy):
            raise InputError(f"`{name}: {value}` needs all clips, which a stream does not have: set it to {remedy}")


def url_of(dataset: str) -> str:
    """Where a recipe's `dataset` lies: a folder, a URL that fsspec knows, or else a dataset of the Hub."""
    if "://" in dataset:
        return dataset.rstrip("/")
    return str(Path(dataset).absolute()) if Path(dataset).is_dir() else f"hf://datasets/{dataset}"


def local_copy(data: DataArguments, parent: Path, dataset: str | None = None) -> Path:
    """A packed folder without the frames of its training split: the folder itself, or a copy in `parent`.

    `dataset` is one of several that the recipe lists.
    """
    url = url_of(dataset or data.dataset)
    with loading(url, "a packed corpus"):
        files, root = url_to_fs(url)
        if "file" in files.protocol:
            return Path(root)
        manifest = files.cat_file(f"{root}/{MANIFEST}")
        folder = parent / f"streamed-{hashlib.sha256(manifest).hexdigest()[:16]}"
        with locked_folder(folder, folder, wait=True):  # the processes of a run make one copy
            write_marker(folder, "corpus")
            (folder / MANIFEST).write_bytes(manifest)
            for split, entry in read_packed_manifest(folder)["splits"].items():
                if "index" not in entry:
                    raise InputError(f"{url} was packed by version 0.1.0: pack it again to stream it")
                shards = entry["shards"] if split in (data.dev_split, data.test_split) else []
                for part in [entry["index"], *shards]:
                    file = folder / part["file"]
                    if not (file.is_file() and file.stat().st_size == part["bytes"]):
                        with atomic_file(file, overwrite=True) as work:
                            files.get_file(f"{root}/{part['file']}", str(work))
    return folder


class SignVideoStream(IterableDataset):
    """The examples of a [`SignVideoDataset`] in the order in which their shards arrive, shuffled in a buffer."""

    def __init__(self, videos: SignVideoDataset, data: DataArguments, args, dataset: str | None = None):
        self.videos, self.ids, self.set_epoch = videos, videos.ids, videos.set_epoch
        files = f"{url_of(dataset or data.dataset)}/{data.train_split}-*-of-*.arrow"
        schema = videos.corpus.schema.remove_metadata()  # by which the frames would be decoded as images
        place = schema.get_field_index("frames")
        jpeg = pa.large_binary()  # a buffer may hold more than 2 GiB of them
        if schema.field(place).type.value_type != pa.binary():
            jpeg = pa.struct([("bytes", jpeg), ("path", pa.string())])
        features = Features.from_arrow_schema(schema.set(place, pa.field("frames", pa.list_(jpeg))))
        with loading(files, "a stream"):
            rows = load_dataset("arrow", data_files=files, split="train", streaming=True, features=features)
        rows = rows.with_format("arrow").shuffle(seed=videos.seed, buffer_size=data.shuffle_buffer)
        self.rows = split_dataset_by_node(rows, rank=args.process_index, world_size=args.world_size)
        shards, world = sorted(videos.corpus.shard_clips, reverse=True), args.world_size
        own = len(shards) // world if len(shards) % world == 0 else None  # else each process takes every n-th clip
        workers = max(1, min(args.dataloader_num_workers, own or len(shards)))
        most = sum(shards[:own]) if own else (len(videos) + workers * (world - 1)) // world  # clips of any process
        clips_a_batch = args.per_device_train_batch_size
        self.count = (most + workers * (clips_a_batch - 1)) // clips_a_batch * clips_a_batch

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        ids = self.videos.corpus.ids.array
        self.rows.set_epoch(self.videos.epoch)
        for row in self.rows:
            clip = pa.RecordBatch.from_struct_array(row.to_struct_array().combine_chunks())
            yield self.videos.example(pc.index(ids, clip.column("id")[0]).as_py(), clip)
