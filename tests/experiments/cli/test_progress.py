"""What one sees of long work: the live line of a terminal, plain lines elsewhere, and the numbers in them."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from experiments.cli import progress


class Stream(io.StringIO):
    """stdout, a terminal or not."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def see(monkeypatch):
    """see(terminal, clock, columns) -> the stream that is stdout while the clock shows these times."""

    def make(terminal, clock=(), columns=120):
        stream = Stream(terminal)
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=iter(clock).__next__))
        monkeypatch.setattr(progress, "_up", False)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        return stream

    return make


def history_of(correct, losses=None, split="validation", total=10):
    """After one epoch of which another was before: R runs with so many of 10 right, and these losses."""
    correct = np.array(correct, np.int32)
    shape = (len(correct), 2)
    counts = {
        "correct": np.zeros((*shape, 2), np.int32),
        "support": np.full((*shape, 2), total // 2, np.int32),
        "loss_sum": np.ones(shape, np.float32),
    }
    counts["correct"][:, 1, 0] = correct
    counts["loss_sum"][:, 1] = 1 if losses is None else losses
    return {split: counts}


def test_accuracy_by_hand():
    # Two settings x three seeds: the seeds' means over the settings are 7.5, 7 and 5 of 10.
    found, diverged = progress.accuracy(history_of([8, 6, 4, 7, 8, 6]), "validation", [None] * 3)
    seeds = np.array([0.75, 0.7, 0.5])
    half = scipy.stats.t.ppf(0.975, 2) * seeds.std(ddof=1) / 3**0.5
    assert found == pytest.approx((seeds.mean(), seeds.mean() - half, seeds.mean() + half, 3))
    assert diverged == 0
    # Seeds 0 and 2 share a teacher: its mean 0.625, the other's 0.7.
    found, _ = progress.accuracy(history_of([8, 6, 4, 7, 8, 6]), "validation", [0, 1, 0])
    assert (found.mean, found.n) == (pytest.approx((0.625 + 0.7) / 2), 2)


def test_a_setting_with_a_diverged_run_is_left_out():
    losses = [1, np.nan, 1, 1, 1, 1]
    found, diverged = progress.accuracy(history_of([8, 0, 4, 7, 8, 6], losses), "validation", [None] * 3)
    assert (found.mean, diverged) == (pytest.approx(0.7), 1)
    words = progress.described(history_of([1, 0], [np.inf, np.nan]), [None] * 2)
    assert words == ["2 of 2 runs diverged"]
    # It may show in the training alone, whose split the accuracy is not of.
    history = history_of([8, 6]) | history_of([0, 0], [1, np.nan], "train")
    assert progress.described(history, [None]) == ["validation accuracy 80.00 %", "1 of 2 runs diverged"]


def training(segments=3):
    return progress.Training(2 * segments, 0, 2, 1000, [None, None])


def test_plain_lines_are_seldom_and_the_last_is_there(see):
    # It begins at 0, its segments end at 4, 9, 15 and 16; between them it is asked whether to draw.
    stream = see(False, (0, 2, 4, 5, 9, 10, 15, 15, 16))
    shown = training(4)
    for epoch in (2, 4, 6, 8):
        shown.tick()
        shown.segment(epoch, history_of([8, 6]))
    # 2 epochs in 4 s: 6 more in 12 s. After 15 s: without the first segment, 4 epochs in 11 s, so 2 in 5.5 s.
    # At the end: 6 epochs of 1,000 examples in 12 s.
    half = 100 * scipy.stats.t.ppf(0.975, 1) * 0.1  # of 0.8 and 0.6
    accuracy = f"validation accuracy 70.00 ± {half:.2f} %"
    assert stream.getvalue().splitlines() == [
        f"epoch 2/8  12 s left  {accuracy}  500 examples/s  segment 1/4",
        f"epoch 6/8  6 s left  {accuracy}  364 examples/s  segment 3/4",
        f"epoch 8/8  in 16 s  {accuracy}  500 examples/s  segment 4/4",
    ]


def test_the_live_line_is_drawn_again_and_ends_with_the_training(see):
    stream = see(True, (0, 0, 0.1, 3, 100, 110, 145))
    shown = training(2)
    shown.tick()
    shown.tick()  # too soon to draw again
    shown.tick()
    shown.segment(2, history_of([7, 7], split="train"))
    assert progress.is_up()
    shown.tick()
    shown.segment(4, history_of([8, 8], split="train"))
    assert not progress.is_up()
    drawn = stream.getvalue().split(progress.CLEAR)
    rest = "train accuracy 70.00 %  20 examples/s  segment 1/2\r"
    assert drawn == [
        "",
        "epoch 0/4  compiling and training the first segment, 0 s\r",
        "epoch 0/4  compiling and training the first segment, 3 s\r",
        f"epoch 2/4  1:40 left  {rest}",
        f"epoch 2/4  1:30 left  {rest}",
        "epoch 4/4  in 2:25  train accuracy 80.00 %  44 examples/s  segment 2/2\n",
    ]


def test_a_message_clears_the_line(see):
    stream = see(True, (0, 3))
    progress.clear()
    assert stream.getvalue() == ""
    training().tick()
    assert progress.is_up()
    progress.clear()
    assert stream.getvalue().endswith(f"\r{progress.CLEAR}") and not progress.is_up()


@pytest.mark.parametrize("columns", [20, 40, 80, 120])
def test_the_line_fits_the_terminal(see, columns):
    stream = see(True, (0, 4, 4), columns)
    progress.Training(400, 0, 20, 10**9, [None] * 2).segment(20, history_of([8, 6]))
    (line,) = stream.getvalue().removeprefix(progress.CLEAR).splitlines()
    assert len(line) < columns and line.startswith("epoch 20/400")
    assert ("validation accuracy" in line) == (columns >= 80) and ("segment 1/20" in line) == (columns == 120)


def test_what_is_no_terminal_for_this(see, monkeypatch):
    see(True)
    assert progress.is_live()
    monkeypatch.setenv("TERM", "dumb")
    assert not progress.is_live()


@pytest.mark.parametrize(
    "terminal, clock, expected",
    [
        (False, (0, 9, 11, 12), ["decoding images: 50 of 100"]),
        (False, (0, 1, 2, 3), []),
        (
            True,
            (0, 0.05, 0.25, 0.26),
            [
                f"decoding images: 50 of 100  [{'#' * 15}{'.' * 15}]",
                f"decoding images: 100 of 100  [{'#' * 30}]",
            ],
        ),
        (True, (0, 0.01, 0.02, 0.03), []),
    ],
)
def test_counting(see, terminal, clock, expected):
    """On a terminal a bar that ends with its line; elsewhere a line, and that only after ten seconds."""
    stream = see(terminal, clock)
    show = progress.counting("decoding images")
    for done in (25, 50, 100):
        show(done, 100)
    assert stream.getvalue().replace(progress.CLEAR, "").splitlines() == expected
    assert not progress.is_up()


def test_durations():
    assert [progress.duration(s) for s in (0.4, 59.4, 59.6, 200, 7500)] == [
        "0 s", "59 s", "1:00", "3:20", "2:05:00",
    ]  # fmt: skip
