"""Does `fla live` keep up with a camera on one core at the paper's size?

    python -m benchmarks.live [--minutes 10] [--int8] [--quick] [--json]      ten minutes take nine of one core in fp32

A drawn signer, 640 x 480 at 25 frames a second, signs for 2 to 6 s and rests for 0.8 s. ResNet18 at 224 pixels, one
frame in four, MBart-large's shapes with a trimmed vocabulary, random weights, fp32, one thread; drafts by greedy
search, sentences of 20 tokens by 5 beams: random weights end none.

The clock is that of a camera and one core that does nothing else: processing counts by the processor's time, and where
no frame waits the clock goes on to the next. So other work on the machine changes little. Each draft and each sentence
is timed from the end of its last frame. Limits: 1 for the ratio of processing to signing, 1 s for a draft, 3 s for a
sentence, no frame dropped, no more delay in the second half than in the first, no more memory.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import psutil
import torch

FPS = 25
TOKENS = 20
LIMITS = {"draft": 1.0, "sentence": 3.0}


class OneCore:
    """A camera's clock: the time that processing takes by the processor, and the wait for the next frame."""

    def __init__(self):
        self.began, self.idle, self.not_counted = time.process_time(), 0.0, 0.0

    def busy(self) -> float:
        return time.process_time() - self.began - self.not_counted

    def now(self) -> float:
        return self.busy() + self.idle

    def wait_until(self, seconds: float) -> None:
        self.idle += max(0.0, seconds - self.now())


class SimulatedCamera:
    """Frames when they are due by the clock; more than may wait are dropped, as by a camera's thread."""

    def __init__(self, seconds: float, clock: OneCore, most: int, behind: int, size: tuple[int, int]):
        self.seconds, self.clock, self.most, self.behind, self.size = seconds, clock, most, behind, size
        self.num_dropped = self.shown = 0

    def __iter__(self) -> Iterator[tuple[float, int, np.ndarray]]:
        from processing_fla.frame_conversion_fla import scaled

        signer = DrawnSigner()
        for index in range(round(self.seconds * FPS)):
            drawing = time.process_time()
            frame = signer.frame(index / FPS)
            self.clock.not_counted += time.process_time() - drawing  # a camera does it
            self.shown = index
            self.clock.wait_until((index + 1) / FPS)
            if self.num_waiting() > self.most:
                self.num_dropped += 1
                continue
            yield index / FPS, index, scaled(frame[None], self.size)[0]

    def num_waiting(self) -> int:
        return int(self.clock.now() * FPS) - self.shown - 1

    def is_behind(self) -> bool:
        return self.num_waiting() >= self.behind

    def close(self) -> None:
        pass


class DrawnSigner:
    """Two bright hands before a patterned wall, which move while somebody signs."""

    def __init__(self):
        self.random = np.random.default_rng(0)
        rows, columns = np.mgrid[0:480, 0:640]
        wall = (110 + 40 * np.sin(rows / 30) + 30 * np.cos(columns / 40)).astype(np.uint8)
        self.wall = np.repeat(wall[..., None], 3, 2)
        self.phase, self.until, self.signs = 0.0, 1.0, False

    def frame(self, seconds: float) -> np.ndarray:
        if seconds >= self.until:
            self.signs = not self.signs
            self.until = seconds + (self.random.uniform(2, 6) if self.signs else 0.8)
        self.phase += 0.28 * self.signs
        frame = self.wall.copy()
        frame[150:480, 230:410] = 40
        for side in (-1, 1):
            x = int(320 + side * (80 + 75 * np.sin(self.phase)))
            y = int(280 + 90 * np.cos(1.3 * self.phase + side))
            frame[y - 30 : y + 30, x - 30 : x + 30] = 225
        return frame


class Parts:
    """The processor's seconds of each part."""

    def __init__(self, clock=time.process_time):
        self.seconds, self.clock = defaultdict(float), clock

    def watch(self, owner, method: str, name: str) -> None:
        """Have the calls of a method timed."""
        work = getattr(owner, method)

        def timed(*args, **kwargs):
            began = self.clock()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds[name] += self.clock() - began

        setattr(owner, method, timed)


def make_pipeline(quick: bool, int8: bool):
    """The paper's size with random weights; a tenth of it for a quick look."""
    from benchmarks.generation import make_model
    from processing_fla import FlaProcessor, FlaVideoProcessor, SignTranslationPipeline, train_tokenizer
    from training_fla.viewing.loading import quantize

    sentences = [f"wort{number} und wort{number + 1} im norden" for number in range(40)]
    tokenizer = train_tokenizer(sentences, vocab_size=120, language_codes=("de_DE",))
    size = {"height": 32, "width": 32}
    options = {"size": size, "crop_size": size} if quick else {}
    processor = FlaProcessor(video_processor=FlaVideoProcessor(**options), tokenizer=tokenizer)
    pipe = SignTranslationPipeline(model=make_model(quick), processor=processor, device="cpu")
    if int8:
        quantize(pipe.model)
    return pipe


def measure(minutes: float, quick: bool, int8: bool) -> tuple[list[tuple[str, float, float]], dict]:
    """The rows of the table, and what they are made of."""
    from training_fla.captions.captioner import Captioner
    from training_fla.captions.live import live_captions
    from training_fla.captions.pauses import PauseRules
    from training_fla.captions.sources import BEHIND, MAX_WAITING

    pipe = make_pipeline(quick, int8)
    options = {"num_beams": 5, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
    captioner = Captioner(pipe, PauseRules(), max_new_tokens=TOKENS)
    size = pipe.processor.video_processor.reading_size(480, 640)
    pipe({"sign_features": torch.rand(8, 512)}, **options)  # what is done once only
    parts, clock = Parts(), OneCore()
    camera = SimulatedCamera(60 * minutes, clock, MAX_WAITING, BEHIND, size)
    parts.watch(captioner.segmenter, "add", "pauses")
    parts.watch(captioner, "encode", "backbone")
    parts.watch(captioner, "draft", "drafts")
    parts.watch(pipe, "forward", "sentences")
    captioner.clock = time.process_time
    delays, at, memory = {"draft": [], "sentence": []}, {"draft": [], "sentence": []}, []
    process = psutil.Process()
    clock.__init__()
    try:
        for caption in live_captions(pipe, captioner, camera, True, **options):
            kind = "draft" if caption.is_draft else "sentence"
            delays[kind].append(clock.now() - caption.end)
            at[kind].append(caption.end)
            memory.append((caption.end, process.memory_info().rss / 2**20))
            if len(memory) % 50 == 0:
                state = {name: round(max(values), 2) for name, values in delays.items() if values}
                print(f"{caption.end:.0f} s: {clock.busy() / caption.end:.2f} of a core, {state}", file=sys.stderr)
    except KeyboardInterrupt:  # then of what was shown so far
        minutes = camera.shown / FPS / 60
    signed = 60 * minutes
    rows = [("processing / signing", clock.busy() / signed, 1.0)]
    for kind, limit in LIMITS.items():
        rows.append((f"{kind}: seconds after its last frame, most of {len(delays[kind])}", max(delays[kind]), limit))
        halves = [[], []]
        for delay, seconds in zip(delays[kind], at[kind], strict=True):
            halves[seconds > signed / 2].append(delay)
        rows.append(("   median of the second half / of the first", ratio_of_medians(*halves), 1.2))
    quarters = [[mib for seconds, mib in memory if 0 <= seconds / signed - start < 0.25] for start in (0.25, 0.75)]
    rows.append(("memory, last quarter / second quarter", ratio_of_medians(*quarters), 1.02))
    rows.append(("frames dropped", float(camera.num_dropped), 0.0))
    seconds = {**parts.seconds, "all": clock.busy()}
    seconds["the rest"] = clock.busy() - sum(parts.seconds.values())
    medians = {kind: statistics.median(values) for kind, values in delays.items()}
    shares = {name: round(value / signed, 4) for name, value in seconds.items()}
    late = {kind: sum(delay > LIMITS[kind] for delay in values) for kind, values in delays.items()}
    return rows, {
        "late": late,
        "share_of_signing": shares,
        "median_delay": medians,
        "memory_mib": memory[-1][1],
        "minutes": minutes,
    }


def ratio_of_medians(earlier: list[float], later: list[float]) -> float:
    """0 where so little was shown that one of them is empty."""
    return statistics.median(later) / statistics.median(earlier) if earlier and later else 0.0


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    from benchmarks.measuring import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--quick", action="store_true", help="a small model: to see that it runs, not to measure")
    parser.add_argument("--int8", action="store_true", help="as `fla live --precision int8`")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, details = measure(options.minutes, options.quick, options.int8)
    if not options.json:
        for name, value in details.items():
            print(f"{name}: {value}")
    return report(rows, as_json=options.json, **details)


if __name__ == "__main__":
    sys.exit(main())
