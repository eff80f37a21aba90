"""Processes that read video files for this one: a file that crashes the decoder ends one of them, not this one.

FFmpeg has such faults in every version, so whoever reads strangers' files does so here: the page, and `fla translate`
of several clips. Packing has worker processes of its own.
"""

import contextlib
import copyreg
import io
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from processing_fla import VideoDecodeError

POLL_SECONDS = 0.05  # between two checks of the caller's


class ReadingProcess:
    """One process, started at the first call and used again; when it has ended, the next call starts another."""

    def __init__(self):
        self.lock = threading.Lock()
        self.process = self.connection = None

    def call(
        self, function: Callable, *args: Any, name: str | os.PathLike, check: Callable[[], None] = lambda: None
    ) -> Any:
        """What `function(*args)`, a function of a module, returns or raises there.

        `check` is called again and again meanwhile; what it raises ends the process. Where the process ends by itself,
        a [`VideoDecodeError`] names the file.
        """
        with self.lock:
            try:
                if self.process is None:
                    self.start()
                self.connection.send_bytes(pickle.dumps((function, args)))
                while not self.connection.poll(POLL_SECONDS):
                    check()
                is_done, result = pickle.loads(self.connection.recv_bytes())
            except (EOFError, ConnectionError) as error:
                self.process.join(1)  # it has closed its end before it is gone
                reason = self.end()
                what = f"`{name}` cannot be decoded as a video: the process that decodes it {reason}"
                raise VideoDecodeError(what) from error
            except BaseException:
                self.end()
                raise
        if not is_done:
            raise result
        return result

    def __enter__(self) -> "ReadingProcess":
        return self

    def __exit__(self, *exception) -> None:
        self.end()

    def start_early(self) -> None:
        """Start the process while this one does something else: it has to import PyTorch."""

        def start() -> None:
            with self.lock:
                if self.process is None:
                    self.start()

        threading.Thread(target=start, daemon=True).start()

    def start(self) -> None:
        """Start the process: forked where this one has no other thread yet, else by a server that is forked from.

        The server imports PyTorch when it is first needed; from then on, a process takes a moment.
        """
        methods = multiprocessing.get_all_start_methods()
        alone = sys.platform == "linux" and threading.active_count() == 1  # elsewhere forking is not safe
        context = multiprocessing.get_context(
            "fork" if alone else "forkserver" if "forkserver" in methods else "spawn"
        )
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload([__name__])
        self.connection, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_answer, args=(theirs,), daemon=True)
            process.start()
        self.process = process

    def end(self) -> str:
        """End the process; how it had ended, in words."""
        if self.process is None:
            return "did not start"
        self.connection.close()
        ended = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.process = self.connection = None
        if ended is None:
            return "was stopped"
        return f"crashed ({signal.Signals(-ended).name})" if ended < 0 else f"ended with status {ended}"


def _answer(connection) -> None:
    """The process's work: call what it is sent, for as long as there is a process that sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends it
    torch.set_num_threads(1)  # the threads of a process that was forked are not there
    parent = os.getppid()
    with contextlib.suppress(EOFError, ConnectionError):
        while os.getppid() == parent:
            if not connection.poll(1):
                continue
            function, args = pickle.loads(connection.recv_bytes())
            try:
                answer = True, function(*args)
            except Exception as error:
                answer = False, error
            connection.send_bytes(_pickled(answer))


class _Pickler(pickle.Pickler):
    """Sends tensors as arrays, whose bytes are copied; PyTorch's way writes a file in memory first."""

    dispatch_table = copyreg.dispatch_table | {torch.Tensor: lambda tensor: (torch.from_numpy, (tensor.numpy(),))}


def _pickled(answer: tuple[bool, Any]) -> bytes:
    content = io.BytesIO()
    try:
        _Pickler(content, protocol=5).dump(answer)
        if not answer[0]:
            pickle.loads(content.getvalue())  # errors of some libraries cannot be read again
    except Exception:
        return pickle.dumps((False, RuntimeError(repr(answer[1]))))
    return content.getvalue()


class IsolatedProcessor:
    """Stands for a processor, and has the files that it is given one at a time read in other processes.

    `pipe.processor = IsolatedProcessor(pipe.processor)` does it for a pipeline, whose `num_workers` must then be 0.

    Args:
        processor ([`~processing_fla.FlaProcessor`]): does all else.
        processes (`Sequence[ReadingProcess]`, *optional*): that read; one when absent.
        expected (`Iterable`): paths that will be asked for, in this order; as many as there are processes are read
            beforehand.
    """

    def __init__(
        self, processor, processes: Sequence[ReadingProcess] = (), expected: Iterable[str | os.PathLike] = ()
    ):
        self.processor, self.expected = processor, deque(expected)
        self.processes = list(processes) or [ReadingProcess()]
        self.threads = ThreadPoolExecutor(len(self.processes), thread_name_prefix="fla-read")
        self.idle: queue.SimpleQueue[ReadingProcess] = queue.SimpleQueue()
        for process in self.processes:
            self.idle.put(process)
        self.ahead: deque[tuple[Any, dict, Future]] = deque()

    def __getattr__(self, name: str):
        return getattr(self.processor, name)

    def __call__(self, videos=None, text=None, **options):
        """As the processor's own call."""
        if text is not None or len(videos) != 1 or not isinstance(videos[0], (str, os.PathLike)):
            return self.processor(videos=videos, text=text, **options)
        (path,) = videos
        while self.expected and len(self.ahead) <= len(self.processes):
            self.ahead.append((self.expected[0], options, self.submit(self.expected.popleft(), options)))
        if self.ahead and self.ahead[0][:2] == (path, options):
            return self.ahead.popleft()[2].result()
        return self.submit(path, options).result()

    def submit(self, path: str | os.PathLike, options: dict) -> Future:
        """Have a file read as soon as a process is idle."""
        return self.threads.submit(self.read, path, options)

    def read(self, path: str | os.PathLike, options: dict):
        """The batch of one file."""
        process = self.idle.get()
        try:
            return process.call(read_video, self.processor.video_processor, path, options, name=path)
        finally:
            self.idle.put(process)

    def __enter__(self) -> "IsolatedProcessor":
        return self

    def __exit__(self, *exception) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        for process in self.processes:
            if process.process is not None:
                process.process.kill()  # a thread that waits for it ends then
        self.threads.shutdown()
        for process in self.processes:
            process.end()


def read_video(video_processor, path: str | os.PathLike, options: dict):
    """The batch of one file, by a [`~processing_fla.FlaVideoProcessor`]."""
    return video_processor([path], **options)
