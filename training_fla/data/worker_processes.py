"""Processes that decode clips: a file that crashes or hangs its decoder costs that clip, not the run."""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from training_fla.console import note

# Elsewhere forking is not safe. Python 3.14 does not fork by default: there a process imports everything anew, and an
# evaluation of four steps takes 153 s instead of 27.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
# Unstated: longer than any decoder takes for 64 frames, short enough that a night's packing does not hang.
SILENCE_SECONDS = 120
LOST = f"the process that decodes it crashes, or makes no progress in {SILENCE_SECONDS} seconds"
CLIPS_A_WORKER = 4  # that are handed out at a time: a worker need not wait for the longest clip
MAX_WORKERS = 61  # Windows waits for no more
PR_SET_PDEATHSIG = 1  # of Linux's prctl()

# What a worker was started with, and where its last words go.
_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None
_nowhere = None


class NoWorkersError(RuntimeError):
    """No process can be started."""


def in_workers(
    work: Callable[[Any], Any], items: Sequence[Any], num_workers: int | None, lost: Callable[[Any], Any]
) -> Iterator[Any]:
    """Yield `work(item)` for each item, in order; `lost(item)` for one that ends its process even when tried alone."""
    if num_workers == 0:
        yield from map(work, items)
        return
    num_workers = min(num_workers or _num_cores(), MAX_WORKERS)  # None: one a core
    done = alone_until = 0
    while done < len(items):
        alone = done < alone_until
        workers = 1 if alone else min(num_workers, len(items))
        window = 1 if alone else CLIPS_A_WORKER * workers
        try:
            for result in _results(work, items, range(done, alone_until if alone else len(items)), workers, window):
                done += 1
                yield result
        except NoWorkersError as error:
            note(f"working in one process: {error}")
            yield from map(work, items[done:])
            return
        except BrokenProcessPool:
            if alone:
                done += 1
                yield lost(items[done - 1])
            else:  # one of these did it
                alone_until = min(done + window, len(items))


def still_working() -> None:
    """Tell, during a long item, that it makes progress."""
    if _work is not None:
        # Which ends the process, even inside a library's C code.
        faulthandler.dump_traceback_later(SILENCE_SECONDS, exit=True, file=_nowhere)


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
    global _work, _nowhere
    _work, _nowhere = (work, items), open(os.devnull, "w")  # noqa: SIM115  as long as the process lives
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    if sys.platform == "linux":
        # The kernel ends it with its parent. A thread could not tell: forked siblings keep the parent's pipe open.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(position: int) -> Any:
    still_working()
    work, items = _work
    try:
        return work(items[position])
    finally:
        faulthandler.cancel_dump_traceback_later()
