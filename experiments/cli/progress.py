"""What one sees of long work: one live line on a terminal, elsewhere plain lines, seldom; on stdout.

Under --quiet stdout is the null device, which is no terminal: nothing needs to be asked here.
"""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads scipy, and every entry point loads this file
    from kd_jax.stats.intervals import Interval

_REDRAWN, _SELDOM = 0.2, 10.0  # seconds between two drawings of the live line, and between two plain lines
CLEAR = "\r\x1b[K"
_up = False  # whether a live line stands on the terminal


def is_live() -> bool:
    """Whether stdout is a terminal, on which a line can be drawn again."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def is_up() -> bool:
    """Whether a live line stands there now, which any other message has to clear first."""
    return _up


def clear() -> None:
    """Takes the live line away, if there is one; its next drawing brings it back."""
    global _up
    if _up:
        print(end=CLEAR, flush=True)
    _up = False


def _draw(fields: Sequence[str], last: bool) -> None:
    """last: the line stays, and what comes next is below it."""
    global _up
    line = fitted(fields, shutil.get_terminal_size().columns - 1)
    # Back to the line's start: should a library write a message of its own, it is not appended to this.
    print(f"{CLEAR}{line}", end="\n" if last else "\r", flush=True)
    _up = not last


def fitted(fields: Sequence[str], columns: int) -> str:
    """A line of the fields, without those at the end that do not fit; the first may be cut."""
    while len(fields) > 1 and len("  ".join(fields)) > columns:
        fields = fields[:-1]
    return "  ".join(fields)[:columns]


def duration(seconds: float) -> str:
    """12 s, 3:20 (minutes and seconds) or 2:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def counting(what: str) -> Callable[[int, int], None]:
    """(done, in all) -> such as "decoding images: 50 of 100", where the work takes longer than a moment."""
    pause = _REDRAWN if is_live() else _SELDOM
    due = time.monotonic() + pause

    def show(done: int, total: int) -> None:
        nonlocal due
        now, last = time.monotonic(), _up and done == total
        if now < due and not last:
            return
        due = now + pause
        line = f"{what}: {done:,} of {total:,}"
        if is_live():
            _draw([line, f"[{'#' * (30 * done // total):.<30}]"], last)
        else:
            print(line, flush=True)

    return show


def settle_bars_of_hub() -> None:
    """The hub's library draws its own bars on a terminal alone; it reads this when it is imported."""
    if not (is_live() and sys.stderr.isatty()):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class Training:
    """The line about a training: drawn by `tick` while a segment is computed, and by `segment` after each.

    epochs: in all; first: how many were done before; length: of a segment, in epochs; examples: that all runs
    together see in an epoch; teachers: of each seed, the teacher that it has, as in stats.clustered_interval.
    """

    def __init__(self, epochs: int, first: int, length: int, examples: int, teachers: Sequence[Hashable]):
        self.epochs, self.first, self.length = epochs, first, length
        self.examples, self.teachers = examples, teachers
        self.epoch = first
        self.began = self.ended = time.monotonic()  # the training; its last segment
        self.warm = self.began, first  # when the first segment, in which all is compiled, was done
        self.drawn = -math.inf
        self.state: list[str] = []

    def tick(self) -> None:
        """While a segment is computed; on a terminal alone."""
        now = time.monotonic()
        if is_live() and now - self.drawn >= _REDRAWN:
            self.drawn = now
            _draw(self.fields(now), last=False)

    def segment(self, epoch: int, history: dict) -> None:
        """After a segment.  epoch: the last one; history: as `train_runs` has it, of all epochs so far."""
        now = time.monotonic()
        if self.epoch == self.first:
            self.warm = now, epoch
        self.epoch, self.ended = epoch, now
        self.state = described(history, self.teachers)
        last = epoch == self.epochs
        if is_live():
            _draw(self.fields(now), last)
        elif last or now - self.drawn >= _SELDOM:
            self.drawn = now
            print("  ".join(self.fields(now)), flush=True)

    def fields(self, now: float) -> list[str]:
        """What the line says, the most important first."""
        at = f"epoch {self.epoch}/{self.epochs}"
        if self.epoch == self.first:
            return [at, f"compiling and training the first segment, {duration(now - self.began)}"]
        time_, epoch = self.warm if self.epoch > self.warm[1] else (self.began, self.first)
        pace = max((self.ended - time_) / (self.epoch - epoch), 1e-9)  # seconds an epoch
        left = max(pace * (self.epochs - self.epoch) - (now - self.ended), 0)
        done = self.epoch == self.epochs
        when = f"in {duration(now - self.began)}" if done else f"{duration(left)} left"
        number, segments = (-(-(n - self.first) // self.length) for n in (self.epoch, self.epochs))
        rate = f"{self.examples / pace:,.0f} examples/s"
        return [at, when, *self.state, rate, *([f"segment {number}/{segments}"] * (segments > 1))]


def described(history: dict, teachers: Sequence[Hashable]) -> list[str]:
    """The accuracy after the last epoch, in words, and how many runs diverged, if any."""
    split = "validation" if "validation" in history else "train"
    interval, num_diverged = accuracy(history, split, teachers)
    half = interval.high - interval.mean
    spread = "" if math.isnan(half) else f" ± {100 * half:.2f}"
    words = [] if math.isnan(interval.mean) else [f"{split} accuracy {100 * interval.mean:.2f}{spread} %"]
    num_runs = len(history[split]["loss_sum"])
    return words + ([f"{num_diverged} of {num_runs} runs diverged"] if num_diverged else [])


def accuracy(history: dict, split: str, teachers: Sequence[Hashable]) -> "tuple[Interval, int]":
    """(the accuracy after the last epoch, the number of runs that diverged, whose loss is not finite).

    The mean over the settings, and its 95 % interval over the seeds, or over their teachers where they share
    some. A setting of which a run diverged is left out, so that all seeds are means over the same settings.
    history: of a split the leaves numpy [R,E,...], R setting-major; teachers: S of them.
    """
    import numpy as np

    from kd_jax.stats import intervals

    losses = sum(history[name]["loss_sum"][:, -1] for name in ("train", "validation") if name in history)
    finite = np.isfinite(losses).reshape(-1, len(teachers))
    correct, total = (history[split][name][:, -1].sum(-1) for name in ("correct", "support"))
    seen = (correct / total).reshape(finite.shape)[finite.all(axis=1)]
    values = seen.mean(axis=0) if len(seen) else np.full(len(teachers), np.nan)
    return intervals.clustered_interval(values.tolist(), teachers), int(np.sum(~finite))
