"""Processes that decode clips: a file that crashes or hangs its decoder costs that clip, not the run."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

# Unstated: longer than any decoder takes for 64 frames, short enough that a night's packing does not hang.
SILENCE_SECONDS = 120
LOST = f"the process that decodes it crashes, or makes no progress in {SILENCE_SECONDS} seconds"
CLIPS_A_WORKER = 4  # that are handed out at a time: a worker need not wait for the longest clip
PR_SET_PDEATHSIG = 1  # of Linux's prctl()

# What a worker was forked with: drawn clips are functions, which cannot be sent to it.
_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def in_workers(
    work: Callable[[Any], Any], items: Sequence[Any], num_workers: int | None, lost: Callable[[Any], Any]
) -> Iterator[Any]:
    """Yield `work(item)` for each item, in order; `lost(item)` for one that ends its process even when tried alone."""
    if num_workers == 0 or sys.platform != "linux":  # elsewhere forking is not safe
        yield from map(work, items)
        return
    num_workers = num_workers or len(os.sched_getaffinity(0))  # None: one a core
    done = alone_until = 0
    while done < len(items):
        alone = done < alone_until
        workers = 1 if alone else min(num_workers, len(items))
        window = 1 if alone else CLIPS_A_WORKER * workers
        try:
            for result in _results(work, items, range(done, alone_until if alone else len(items)), workers, window):
                done += 1
                yield result
        except BrokenProcessPool:
            if alone:
                done += 1
                yield lost(items[done - 1])
            else:  # one of these did it
                alone_until = min(done + window, len(items))


def still_working() -> None:
    """Tell, during a long item, that it makes progress."""
    if _work is not None:
        signal.alarm(SILENCE_SECONDS)  # which ends the process, even inside a library's C code


def _results(work, items: Sequence[Any], positions: range, workers: int, window: int) -> Iterator[Any]:
    before = set(multiprocessing.active_children())
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, mp_context=fork, initializer=_become_worker, initargs=(work, items))
    pending = deque()
    try:
        for position in positions:
            pending.append(pool.submit(_run, position))
            if len(pending) == window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException:  # Ctrl-C and errors do not wait for clips that are being decoded
        for worker in set(multiprocessing.active_children()) - before:
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _become_worker(work, items: Sequence[Any]) -> None:
    global _work
    _work = (work, items)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # The kernel ends it with its parent: it inherited the lock on the folder, which the next run wants.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(position: int) -> Any:
    still_working()
    work, items = _work
    try:
        return work(items[position])
    finally:
        signal.alarm(0)
