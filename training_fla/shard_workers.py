"""Processes that write shards and survive what decoders do to them: a crash or a hang costs one clip, not the run."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from training_fla.errors import InputError

# Unstated: longer than any decoder takes for 64 frames, short enough that a night's packing does not hang.
SILENCE_SECONDS = 120.0
FRAMES_PER_REPORT = 64


@dataclass
class ShardJob:
    """One shard to write.

    Args:
        key (`str`): names it in results.
        ids (`Sequence[str]`): what to call its clips in messages.
        bad (`dict[int, str]`): positions of clips that are known to be bad, and why. Grows as workers die of them.
    """

    key: str
    ids: Sequence[str]
    bad: dict[int, str] = field(default_factory=dict)


@dataclass
class _Worker:
    process: multiprocessing.Process
    connection: Connection
    job: ShardJob
    position: int | None = None
    heard: float = field(default_factory=time.monotonic)


WriteJob = Callable[[ShardJob, Callable[[int | None, int], None]], Any]


def run_jobs(
    write: WriteJob, jobs: Sequence[ShardJob], num_workers: int, on_clip: Callable[[], None], on_error: str
) -> Iterator[tuple[ShardJob, Any]]:
    """Write shards in parallel and yield each with its result, in the order they finish.

    Args:
        write (`Callable`): writes a job, calling its second argument as [`~training_fla.shard_writing.write_shard`]
            says. Runs in another process, in this one if `num_workers` is 0.
        jobs (`Sequence[ShardJob]`): what to write.
        num_workers (`int`): processes at a time, where they can be forked.
        on_clip (`Callable`): called in this process whenever a clip is begun.
        on_error (`str`): `skip` to write a shard again without the clip that killed its worker, else `fail`.

    Raises:
        InputError: what a worker raised; or, naming the clip, that a worker crashed or went silent.
        OSError: what a worker raised.
    """
    # Forked, because drawn clips are functions, which cannot be sent; elsewhere than on Linux forking is not safe.
    if num_workers == 0 or sys.platform != "linux":
        for job in jobs:
            yield job, write(job, lambda position, _: on_clip() if position is not None else None)
        return
    waiting = list(reversed(jobs))
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                workers.append(_start(write, waiting.pop()))
            ready = wait([worker.connection for worker in workers], timeout=1.0)
            for worker in list(workers):
                outcome = _listen(worker, on_clip) if worker.connection in ready else None
                if outcome is None and time.monotonic() - worker.heard > SILENCE_SECONDS:
                    outcome = ("lost", f"no progress in {SILENCE_SECONDS:.0f} seconds")
                if outcome is None:
                    continue
                workers.remove(worker)
                _stop(worker)
                kind, value = outcome
                if kind == "done":
                    yield worker.job, value
                elif kind == "error":
                    raise value
                else:
                    waiting.append(_without_culprit(worker, value, on_error))
    finally:
        for worker in workers:
            _stop(worker)


def _start(write: WriteJob, job: ShardJob) -> _Worker:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(write, job, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, mine, job)


def _work(write: WriteJob, job: ShardJob, connection: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers

    def report(position: int | None, frames: int) -> None:
        if os.getppid() != parent:  # killed, and this shard is somebody else's by now
            os._exit(1)
        if position is not None or frames % FRAMES_PER_REPORT == 0:
            connection.send(("clip", position))

    try:
        message = ("done", write(job, report))
    except (InputError, OSError) as error:
        # Rebuilt, because not every subclass can be pickled.
        plain = OSError(error.errno, error.strerror) if isinstance(error, OSError) else InputError(str(error))
        message = ("error", plain)
    with contextlib.suppress(OSError):  # a parent that was killed does not listen
        connection.send(message)


def _listen(worker: _Worker, on_clip: Callable[[], None]) -> tuple[str, Any] | None:
    """Take what the worker has to say; its outcome if that was the last of it."""
    worker.heard = time.monotonic()
    try:
        while worker.connection.poll():
            kind, value = worker.connection.recv()
            if kind != "clip":
                return kind, value
            if value is not None:
                worker.position = value
                on_clip()
    except (EOFError, OSError):
        worker.process.join()
        return "lost", f"the process that decoded it ended with status {worker.process.exitcode}"
    return None


def _stop(worker: _Worker) -> None:
    worker.process.kill()  # what it had to say is heard, and what it writes takes its name only when whole
    worker.process.join()
    worker.connection.close()


def _without_culprit(worker: _Worker, reason: str, on_error: str) -> ShardJob:
    if worker.position is None:
        raise InputError(f"a packing process ended before its first clip: {reason}")
    message = f"clip {worker.job.ids[worker.position]!r}: {reason}"
    if on_error != "skip" or worker.position in worker.job.bad:
        raise InputError(message)
    worker.job.bad[worker.position] = message
    return worker.job
