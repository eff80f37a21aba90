"""Processes that write shards and survive what decoders do to them: a crash or a hang costs one clip, not the run."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from training_fla.files import InputError

# Unstated: longer than any decoder takes for 64 frames, short enough that a night's packing does not hang.
SILENCE_SECONDS = 120.0
FRAMES_PER_REPORT = 64
PR_SET_PDEATHSIG = 1  # of Linux's prctl()


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
    job: ShardJob | None = None
    position: int | None = None
    heard: float = 0.0

    def give(self, job: ShardJob) -> None:
        self.connection.send((job.key, job.bad))
        self.job, self.position, self.heard = job, None, time.monotonic()


WriteJob = Callable[[ShardJob, Callable[[int | None, int], None]], Any]


def run_jobs(
    write: WriteJob, jobs: Sequence[ShardJob], num_workers: int, on_clip: Callable[[], None], on_error: str
) -> Iterator[tuple[ShardJob, Any]]:
    """Write shards in parallel and yield each with its result, in the order they finish.

    Args:
        write (`Callable`): writes a job, calling its second argument as `write_shard`
            says. Runs in another process, in this one if `num_workers` is 0.
        jobs (`Sequence[ShardJob]`): what to write.
        num_workers (`int`): processes at a time, where they can be forked.
        on_clip (`Callable`): called in this process whenever a clip is begun.
        on_error (`str`): `skip` to write a shard again without the clip that killed its worker, else `fail`.

    Yields:
        `tuple[ShardJob, Any]`: a job and what `write` returned.

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
        while waiting or any(worker.job for worker in workers):
            for worker in workers:
                if worker.job is None and waiting:
                    worker.give(waiting.pop())
            while waiting and len(workers) < num_workers:
                workers.append(_start(write, jobs))
                workers[-1].give(waiting.pop())
            for worker, kind, value in _outcomes([worker for worker in workers if worker.job], on_clip):
                if kind == "error":
                    raise value
                if kind == "done":
                    job, worker.job = worker.job, None
                    yield job, value
                else:
                    workers.remove(worker)
                    _stop(worker)
                    waiting.append(_without_culprit(worker, value, on_error))
    finally:
        for worker in workers:
            _stop(worker)


def _start(write: WriteJob, jobs: Sequence[ShardJob]) -> _Worker:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(write, jobs, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, mine)


def _work(write: WriteJob, jobs: Sequence[ShardJob], connection: Connection, parent: int) -> None:
    """A worker's life: write the jobs it is given until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    # The kernel is to kill it with its parent: it inherited the lock on the folder, which the next run wants.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    by_key = {job.key: job for job in jobs}

    def leave_if_orphaned() -> None:
        if os.getppid() != parent:  # it was killed, and these shards are somebody else's by now
            os._exit(1)

    def report(position: int | None, frames: int) -> None:
        leave_if_orphaned()
        if position is not None or frames % FRAMES_PER_REPORT == 0:
            connection.send(("clip", position))

    while True:
        # Not a plain recv(): other workers inherited the parent's end too, so its death would not end the wait.
        while not connection.poll(1.0):
            leave_if_orphaned()
        try:
            key, bad = connection.recv()
            job = by_key[key]
            job.bad.update(bad)
            message = ("done", write(job, report))
        except (InputError, OSError) as error:
            # Rebuilt, because not every subclass can be sent.
            plain = OSError(error.errno, error.strerror) if isinstance(error, OSError) else InputError(str(error))
            message = ("error", plain)
        leave_if_orphaned()
        connection.send(message)


def _outcomes(workers: Sequence[_Worker], on_clip: Callable[[], None]) -> Iterator[tuple[_Worker, str, Any]]:
    """Wait for news of busy workers, at most a second; yield those that are done with their job, well or not."""
    ready = wait([worker.connection for worker in workers], timeout=1.0)
    for worker in workers:
        outcome = _listen(worker, on_clip) if worker.connection in ready else None
        if outcome is None and time.monotonic() - worker.heard > SILENCE_SECONDS:
            outcome = ("lost", f"no progress in {SILENCE_SECONDS:.0f} seconds")
        if outcome is not None:
            yield worker, *outcome


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
