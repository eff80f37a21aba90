"""Processes that decode clips: a file that crashes or hangs its decoder costs that clip, not the run.

`ProcessPoolExecutor` runs them. Ours is what it lacks: after a crash the clips that were under way are tried one at a
time, to find the one that did it; a decoder that hangs ends its worker; workers end with their parent; and only a few
results are held at a time.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from training_fla.console import note

# Elsewhere forking is not safe. Python 3.14 does not fork by default: there a process imports everything anew, and an
# evaluation of four steps takes 153 s instead of 27.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
FRAMES_A_REPORT = 64  # after which an item counts as making progress
# Unstated: longer than any decoder takes for 64 frames, short enough that a night's packing does not hang.
SILENCE_SECONDS = 120
LOST = f"the process that decodes it crashes, or makes no progress in {SILENCE_SECONDS} seconds"
CLIPS_A_WORKER = 4  # that are handed out at a time: a worker need not wait for the longest clip
MAX_WORKERS = 61  # Windows waits for no more
PR_SET_PDEATHSIG = 1  # of Linux's prctl()

# What a worker was started with, and where the traceback of its end goes.
_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None
_devnull = None


class NoWorkersError(RuntimeError):
    """No process can be started."""


def in_workers(
    work: Callable[[Any], Any], items: Sequence[Any], num_workers: int | None, lost: Callable[[Any], Any]
) -> Iterator[Any]:
    """Yield `work(item)` for each item, in order; `lost(item)` for one that ends its process even when tried alone.

    `num_workers` 0 works in this process, `None` takes one a core.
    """
    if num_workers == 0:
        yield from map(work, items)
        return
    num_workers = min(num_workers or _num_cores(), MAX_WORKERS)
    done = 0
    alone_until = 0  # items before this place are tried one at a time, because one of them ended its process
    while done < len(items):
        is_alone = done < alone_until
        workers = 1 if is_alone else min(num_workers, len(items))
        window = 1 if is_alone else CLIPS_A_WORKER * workers
        positions = range(done, alone_until if is_alone else len(items))
        try:
            for result in _results(work, items, positions, workers, window):
                done += 1
                yield result
        except NoWorkersError as error:
            note(f"working in one process: {error}")
            yield from map(work, items[done:])
            return
        except BrokenProcessPool:
            if is_alone:
                done += 1
                yield lost(items[done - 1])
            else:
                alone_until = min(done + window, len(items))


def watched(frames: Iterable[Any]) -> Iterator[Any]:
    """Yield the frames of a long item; a worker that yields none for [`SILENCE_SECONDS`] is ended."""
    for number, frame in enumerate(frames, start=1):
        yield frame
        if number % FRAMES_A_REPORT == 0:
            _put_off_end()


def _put_off_end() -> None:
    """Let this worker live for another while; its end comes even inside a library's C code."""
    if _work is not None:
        faulthandler.dump_traceback_later(SILENCE_SECONDS, exit=True, file=_devnull)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _results(work, items: Sequence[Any], positions: range, workers: int, window: int) -> Iterator[Any]:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context(START_METHOD)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_become_worker, initargs=(work, items))
    pending = deque()
    try:
        if START_METHOD != "fork":
            _check_start(pool)
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


def _check_start(pool: ProcessPoolExecutor) -> None:
    """Where a worker is not forked it imports the script that started it, which may begin the same work again."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        remedy = 'put what your script does under `if __name__ == "__main__":`'
        raise NoWorkersError(f"no other process could be started; {remedy}") from error
    except Exception as error:  # a clip that cannot be sent, such as one that a function of a notebook draws
        raise NoWorkersError(f"its clips cannot be sent to others ({error})") from error


def _become_worker(work, items: Sequence[Any]) -> None:
    global _work, _devnull
    _work = (work, items)
    _devnull = open(os.devnull, "w")  # noqa: SIM115  as long as the process lives
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    if sys.platform == "linux":
        # The kernel ends it with its parent. A thread cannot know: forked siblings keep the parent's pipe open.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(position: int) -> Any:
    _put_off_end()
    work, items = _work
    try:
        return work(items[position])
    finally:
        faulthandler.cancel_dump_traceback_later()
