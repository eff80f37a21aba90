"""Packing: the clips of any corpus become Arrow shards of JPEG frames, so that training decodes only what it samples.

Deterministic (the bytes depend on the clips and the parameters alone), parallel over processes and machines, and safe
to kill: finished shards are kept in a folder beside the output, and the next run goes on from there.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training_fla.corpora.manifest import manifest_fingerprint, read_manifest
from training_fla.corpora.row import SPLITS, CorpusRow, VideoFile
from training_fla.data.packed_corpus import (
    FORMAT,
    MANIFEST,
    PackedCorpus,
    manifest_digest,
    packed_splits,
    read_packed_manifest,
    verify_packed,
)
from training_fla.data.packing_estimate import check_disk, readable
from training_fla.data.shard_workers import ShardJob, run_jobs
from training_fla.data.shard_writing import BadClipError, PackParameters, write_shard
from training_fla.files import InputError, atomic_file, check_folder, locked_folder, replace_folder

__all__ = ["PackedCorpus", "ensure_packed", "pack", "packed_splits", "verify_packed"]

# Unstated: a shard of PHOENIX14T is then about 270 MB and a minute or two of a core, which is what a kill costs.
MAX_SHARD_CLIPS = 128
# Small splits are cut as well, so that several cores have something to do, and end at about the same time.
MIN_SHARD_CLIPS, SHARDS_OF_A_SPLIT = 2, 16


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its file name and its clips.

    Args:
        file (`str`): its name.
        split (`str`): train, dev or test.
        rows (`Sequence[CorpusRow]`): its clips, in order.
    """

    file: str
    split: str
    rows: Sequence[CorpusRow]


def pack(
    rows: Sequence[CorpusRow],
    out: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = 256,
    quality: int = 95,
    frame_stride: int = 1,
    num_workers: int | None = None,
    shard_clips: int | None = None,
    on_error: str = "fail",
    progress: bool = True,
    overwrite: bool = False,
    corpus: str = "",
    source: str = "",
    machine: tuple[int, int] = (1, 1),
    add_files: Callable[[Path], None] | None = None,
) -> Path | None:
    """Write a packed folder that [`PackedCorpus`] and `datasets.load_dataset` read.

    Args:
        rows (`Sequence[CorpusRow]`): the clips of all splits.
        out (`str` or `os.PathLike`): the folder to appear.
        size (`int` or `tuple[int, int]`, *optional*): height and width to resize frames to; `None` keeps theirs.
        quality (`int`): JPEG quality.
        frame_stride (`int`): keep every `frame_stride`-th frame only; 1 leaves the choice to training.
        num_workers (`int`, *optional*): processes; 0 works in this one, by default one a core.
        shard_clips (`int`, *optional*): clips a shard; by default 2 to 128, by the size of the split.
        on_error (`str`): at a clip that cannot be packed, `fail` or `skip` it and list it in `skipped.tsv`.
        progress (`bool`): whether to show a progress bar and a summary on stderr.
        overwrite (`bool`): whether a packed folder in the way may be replaced.
        corpus (`str`): name of the corpus, kept in the manifest.
        source (`str`): fingerprint of what the rows were read from, kept in the manifest; another one packs anew.
        machine (`tuple[int, int]`): `(i, n)` packs only the i-th of n parts of the shards, 1-based. The run that finds
            all parts done in the work folder, `.<name>.packing` beside `out`, puts `out` in its place.
        add_files (`Callable[[Path], None]`, *optional*): called with the folder before it appears, to write more.

    Returns:
        `Path`: `out`; `None` if parts of other machines are still missing.

    Raises:
        InputError: if `out` exists, a clip is bad and `on_error` is `fail`, no clip is left, or the disk is full.
            After any of these the same call goes on where this one ended.
    """
    if on_error not in ("fail", "skip"):
        raise InputError(f"on_error must be 'fail' or 'skip', not {on_error!r}")
    if not 1 <= machine[0] <= machine[1]:
        raise InputError(f"shard must be i/n with 1 <= i <= n, not {machine[0]}/{machine[1]}")
    if shard_clips is not None and shard_clips < 1:
        raise InputError(f"a shard needs at least one clip, not {shard_clips}")
    parameters = PackParameters((size, size) if isinstance(size, int) else size, quality, frame_stride)
    out = Path(out).absolute()
    plans = plan_shards(rows, shard_clips)
    plan = _plan_fingerprint(plans, parameters, source)
    work = out.with_name(f".{out.name}.packing")
    if _is_packed(out, plan):
        shutil.rmtree(work, ignore_errors=True)  # of a run killed at its very end
        return out
    check_folder(out, "corpus", overwrite)
    bad = _missing_clips(rows, on_error)
    # Parts may be packed side by side, on machines that share the disk: whole shards with the same bytes cannot clash.
    with locked_folder(work, out) if machine == (1, 1) else contextlib.nullcontext():
        try:
            for folder in (work / "folder", work / "notes"):
                folder.mkdir(parents=True, exist_ok=True)
            mine = [shard for shard in plans[machine[0] - 1 :: machine[1]] if _entry(work, shard, plan) is None]
            _write_shards(work, mine, plan, parameters, num_workers, on_error, bad, progress)
            if any(_entry(work, shard, plan) is None for shard in plans):
                return None
            manifest = {"corpus": corpus, "source": source, "plan": plan, "parameters": parameters.to_dict()}
            _finish(work, plans, manifest, progress)
            if add_files is not None:
                add_files(work / "folder")
            replace_folder(work / "folder", out, "corpus")
            shutil.rmtree(work)
        except OSError as error:
            raise _explained(error, work) from error
    return out


def ensure_packed(file: str | os.PathLike, out: str | os.PathLike, *, pack_options: dict[str, Any], **options) -> Path:
    """Pack a manifest unless `out` already holds this manifest, these videos and these options.

    Args:
        file (`str` or `os.PathLike`): a manifest, as for [`~training_fla.corpora.manifest.read_manifest`].
        out (`str` or `os.PathLike`): the packed folder; an older one there is replaced.
        pack_options (`dict`): keyword arguments of [`pack`].
        **options: keyword arguments of `read_manifest`.

    Returns:
        `Path`: `out`.
    """
    source = manifest_fingerprint(file, **options)
    source = hashlib.sha256(f"{source} {sorted(pack_options.items())!r}".encode()).hexdigest()[:32]
    if (Path(out) / MANIFEST).is_file() and read_packed_manifest(out)["source"] == source:
        return Path(out)
    rows = read_manifest(file, **options)
    return pack(rows, out, source=source, overwrite=True, corpus="manifest", **pack_options)


def plan_shards(rows: Sequence[CorpusRow], shard_clips: int | None = None) -> list[ShardPlan]:
    """Cut the rows of each split into shards, in their order.

    Args:
        rows (`Sequence[CorpusRow]`): the clips.
        shard_clips (`int`, *optional*): clips in a shard; by the size of the split when absent.

    Returns:
        `list[ShardPlan]`: split by split.

    Raises:
        InputError: if there are no rows, or two of a split share an id.
    """
    if not rows:
        raise InputError("there are no clips to pack")
    plans = []
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        twice = [id_ for id_, count in Counter(row.id for row in of_split).items() if count > 1]
        if twice:
            raise InputError(f"{len(twice)} ids come twice in split {split}, the first is {twice[0]!r}")
        clips = shard_clips or min(MAX_SHARD_CLIPS, max(MIN_SHARD_CLIPS, len(of_split) // SHARDS_OF_A_SPLIT))
        num_shards = -(-len(of_split) // clips)
        for number in range(num_shards):
            part = of_split[number * clips : (number + 1) * clips]
            plans.append(ShardPlan(f"{split}-{number:05d}-of-{num_shards:05d}.arrow", split, part))
    return plans


def _plan_fingerprint(plans: Sequence[ShardPlan], parameters: PackParameters, source: str) -> str:
    """Changes when a finished shard of an earlier run could not be used in this one."""
    digest = hashlib.sha256(json.dumps([FORMAT, parameters.to_dict(), source]).encode())
    for plan in plans:
        for row in plan.rows:
            video = row.video
            times = (video.start_seconds, video.end_seconds) if isinstance(video, VideoFile) else ()
            fields = [plan.file, row.id, row.sentence, row.signer, row.language, video.name, *times]
            digest.update(json.dumps(fields).encode())
    return digest.hexdigest()[:32]


def _is_packed(out: Path, plan: str) -> bool:
    return (out / MANIFEST).is_file() and read_packed_manifest(out)["plan"] == plan


def _missing_clips(rows: Sequence[CorpusRow], on_error: str) -> dict[tuple[str, str], str]:
    """Reasons for the clips whose file or folder is not there, by split and id."""
    missing = {
        (row.split, row.id): f"{row.split} clip {row.id!r}: {row.video.path} is missing"
        for row in rows
        if row.video.is_missing
    }
    if missing and on_error == "fail":
        first = next(iter(missing.values()))
        raise InputError(f"{len(missing)} of {len(rows)} clips are missing; {first}; --on-error skip leaves them out")
    return missing


def _entry(work: Path, shard: ShardPlan, plan: str) -> dict[str, Any] | None:
    """What is known of a finished shard of this plan; `None` if it is still to be written."""
    try:
        entry = json.loads((work / "notes" / f"{shard.file}.json").read_text(encoding="utf-8"))
        whole = entry["plan"] == plan and (work / "folder" / shard.file).stat().st_size == entry["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry if whole else None


def _write_shards(
    work: Path,
    shards: Sequence[ShardPlan],
    plan: str,
    parameters: PackParameters,
    num_workers: int | None,
    on_error: str,
    bad: dict[tuple[str, str], str],
    progress: bool,
) -> None:
    """Write the shards that are missing, each with a note of its hash, which is what makes it count."""
    if not shards:
        return
    rows = [row for shard in shards for row in shard.rows]
    check_disk(rows, work, parameters, progress)
    jobs = []
    for shard in shards:
        known = {n: bad[row.split, row.id] for n, row in enumerate(shard.rows) if (row.split, row.id) in bad}
        jobs.append(ShardJob(shard.file, [row.id for row in shard.rows], known))
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if any(isinstance(row.video, VideoFile) for row in rows):  # once here, not in every process that is forked
        import av.video.reformatter  # noqa: F401

        import processing_fla.video_decoding_fla  # noqa: F401
    write = partial(_write_one, {shard.file: shard for shard in shards}, work, plan, parameters, on_error)
    interval = 0.2 if sys.stderr.isatty() else 10.0  # a log file wants fewer lines
    bar = tqdm(
        total=len(rows), desc="packing", unit="clip", disable=not progress, smoothing=0.05, mininterval=interval
    )
    with bar:
        for job, num_skipped in run_jobs(write, jobs, min(num_workers, len(jobs)), bar.update, on_error):
            if num_skipped and progress:
                bar.write(f"{job.key}: {num_skipped} clips skipped", file=sys.stderr)


def _write_one(
    shards: dict[str, ShardPlan],
    work: Path,
    plan: str,
    parameters: PackParameters,
    on_error: str,
    job: ShardJob,
    report,
) -> int:
    shard = shards[job.key]
    skipped: list[list[str]] = []

    def skip(position: int, reason: str) -> None:
        if on_error == "fail":
            raise BadClipError(f"{reason}; --on-error skip leaves such clips out")
        skipped.append([shard.rows[position].id, reason])

    entry = write_shard(shard.rows, work / "folder" / shard.file, parameters, job.bad, skip, report)
    note = work / "notes" / f"{shard.file}.json"
    text = json.dumps({**entry, "plan": plan, "skipped": skipped})
    # Not synced to the disk as the shard is: a note that a power cut spoils costs the shard once more, no harm else.
    beside = note.with_name(f".{note.name}.{os.getpid()}.writing")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, note)
    return len(skipped)


def _finish(work: Path, plans: Sequence[ShardPlan], manifest: dict[str, Any], progress: bool) -> None:
    """Write what belongs beside the shards and clear away what does not."""
    splits: dict[str, dict[str, Any]] = {}
    skipped: list[tuple[str, str, str]] = []
    for shard in plans:
        entry = _entry(work, shard, manifest["plan"])
        left_out = dict(entry.pop("skipped"))
        del entry["plan"]
        split = splits.setdefault(shard.split, {"clips": 0, "frames": 0, "shards": [], "sentences": []})
        split["shards"].append(entry)
        split["clips"] += entry["clips"]
        split["frames"] += entry["frames"]
        split["sentences"] += [row.sentence for row in shard.rows if row.id not in left_out]
        skipped += [(shard.split, id_, reason) for id_, reason in left_out.items()]
    if not any(split["clips"] for split in splits.values()):
        raise InputError(f"every clip was bad, the first: {skipped[0][2]}")
    folder = work / "folder"
    keep = {shard.file for shard in plans}
    for leftover in list(folder.iterdir()):  # of a run that was killed
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name not in keep:
            leftover.unlink()
    for name, split in splits.items():
        hashes = "".join(shard["sha256"] for shard in split["shards"])
        split["fingerprint"] = hashlib.sha256(hashes.encode()).hexdigest()[:32]
        _write_text(folder / f"{name}.sentences.txt", "".join(f"{line}\n" for line in split.pop("sentences")))
    languages = {row.language for shard in plans for row in shard.rows}
    manifest = {
        "format": FORMAT,
        **manifest,
        "language": languages.pop() if len(languages) == 1 else "",
        "splits": splits,
        "skipped": len(skipped),
    }
    if skipped:
        lines = ("\t".join(" ".join(cell.split()) for cell in line) for line in [("split", "id", "reason"), *skipped])
        _write_text(folder / "skipped.tsv", "".join(f"{line}\n" for line in lines))
    _write_text(folder / "README.md", _card(splits))
    _write_text(folder / MANIFEST, json.dumps({**manifest, "sha256": manifest_digest(manifest)}, indent=1) + "\n")
    if progress:
        counts = ", ".join(f"{name} {split['clips']}" for name, split in splits.items())
        left_out = f"; {len(skipped)} skipped, see skipped.tsv" if skipped else ""
        print(f"packed clips: {counts}{left_out}", file=sys.stderr)


def _card(splits: dict[str, dict[str, Any]]) -> str:
    """A dataset card that tells `datasets.load_dataset` which files are which split."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name in splits:
        lines += [f"  - split: {name}", f'    path: "{name}-*.arrow"']
    return "\n".join([*lines, "---", "", "Sign language clips as JPEG frames, packed by `fla prepare`.", ""])


def _write_text(file: Path, text: str) -> None:
    with atomic_file(file, overwrite=True) as work:
        work.write_text(text, encoding="utf-8")


def _explained(error: OSError, work: Path) -> Exception:
    reason = f"cannot write {work}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"the disk of {work.parent} is full ({readable(shutil.disk_usage(work).free)} free): make room"
    return InputError(f"{reason}; run the same command again, it goes on from the shards that are finished")
