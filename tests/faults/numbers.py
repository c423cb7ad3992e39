"""The library's f32 against the same formulas in float64 (float64.py), over random and extreme inputs.

Each input is one row of logits (one sample of values for the statistics); it holds where what the library
makes of it is finite and as near as the derived bound says. Whatever counts has to be equal.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.evaluate import bias_correction, metrics
from kd_jax.losses import teacher_ablations
from kd_jax.stats import intervals
from kd_jax.train.counts import count
from kd_jax.train.sweep import QUICK_COMPILE
from kd_jax.types import Batch, HParams
from tests.faults import float64
from tests.faults.float64 import EPS, C
from tests.faults.killed import ROOT, differences
from tests.faults.tried import Tried

TEMPERATURES = tuple(float(np.float32(t)) for t in (1e-2, 0.1, 0.7, 1, 3, 20, 1e2, 1e3, 1e4))
ROWS, CLASSES = 8, 6  # rows of each kind
SWEEP = ["--loss=labels", "--model=mlp-16", "--omit=none,3", "--seeds=2", "--epochs=2"]

jit = partial(jax.jit, compiler_options=QUICK_COMPILE)


def draw(random: np.random.Generator) -> np.ndarray:
    """Logits of eight kinds, from all alike to +-1e4.  -> f32[8 ROWS,K]."""
    normal = random.normal(size=(4, ROWS, CLASSES))
    signs = random.choice([-1.0, 1.0], (ROWS, CLASSES))
    one_hot = np.eye(CLASSES)[random.integers(CLASSES, size=ROWS)]
    kinds = [0 * signs, *(normal.T * [1, 30, 1e4, 1]).T, 1e4 * signs, 1e4 * one_hot, 1e4 + normal[3]]
    return np.concatenate(kinds).astype(np.float32)


def labelled(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(student's, teacher's logits of another kind or the same, labels i32[8 ROWS])."""
    student, teacher = draw(random), random.permutation(draw(random))
    teacher[::9] = student[::9]
    return student, teacher, random.integers(CLASSES, size=len(student)).astype(np.int32)


def share(ours, exact, bound) -> np.ndarray:
    """The error as a share of its bound, the largest of each row; infinite where it is no number."""
    off = np.abs(np.float64(ours) - exact)
    found = np.where(off == 0, 0, off / np.maximum(bound, 2.0**-126))
    return np.where(np.isfinite(found), found, np.inf).reshape(len(found), -1).max(axis=1)


def near(what: str, shares: list[np.ndarray]) -> Tried:
    every = np.concatenate(shares)
    outcome = (
        f"finite, and as near to float64 as f32's rounding allows ({every.max():.2f} of the bound at most)"
    )
    beyond = () if every.max() <= 1 else (f"{np.sum(every > 1)} beyond the bound",)
    return Tried(what, len(every), int(np.sum(every <= 1)), outcome, beyond)


def number(x: float) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


@partial(jit, static_argnums=0)
def value_and_gradient(name: str, student, teacher, labels, alpha, temperature):
    mask = jnp.ones(student.shape[-1], bool)
    hparams = HParams(number(0), number(0), temperature, alpha, mask, jnp.int32(0))
    of = lambda student: losses.LOSSES[name](student, Batch(labels, teacher), hparams)  # noqa: E731
    value, pull = jax.vjp(of, student)
    return value, pull(jnp.ones_like(value))[0]


def of_loss(name: str, draws: int) -> list[np.ndarray]:
    """At all temperatures, alpha 0, 1 and one between: the value, and the gradient by the student."""
    random, found = np.random.default_rng(0), []
    for temperature in TEMPERATURES:
        for alpha in [0.0, float(np.float32(0.3)), 1.0] * draws:
            rows = labelled(random)
            value, gradient = value_and_gradient(name, *rows, number(alpha), number(temperature))
            exact = float64.loss(name, *rows, alpha, temperature)
            found.append(np.maximum(share(value, exact[0], exact[2]), share(gradient, exact[1], exact[3])))
    return found


def of_averages(draws: int) -> list[np.ndarray]:
    random, average, found = np.random.default_rng(1), jit(losses.average_teachers), []
    for temperature in TEMPERATURES * draws:
        teachers = np.stack([random.permutation(draw(random)) for _ in range(3)])
        found.append(share(average(teachers, number(temperature)), *float64.average(teachers, temperature)))
    return found


def of_signals(draws: int) -> list[np.ndarray]:
    """Probabilities after each ablation; one class missing, or all but one."""
    random, ablate, found = np.random.default_rng(2), jit(teacher_ablations.ablate_teacher_logits), []
    for temperature in TEMPERATURES * draws:
        for mask in (np.arange(CLASSES) != 3, np.arange(CLASSES) == 3):
            teacher = draw(random)
            expected, factor = float64.ablations(teacher, mask, temperature)
            for name, exact in expected.items():
                index = list(teacher_ablations.TEACHER_ABLATIONS).index(name)
                key = jax.random.key(index)
                said = ablate(jnp.int32(index), key, teacher, mask, number(temperature))
                said = np.exp(float64.log_softmax(said, temperature)[0])
                said = np.sort(said, axis=-1) if name == "shuffled" else said
                found.append(share(said, exact, exact * factor))
    return found


def verdict(good: bool) -> np.ndarray:
    """What counts is equal, or infinitely far off."""
    return np.array([0.0 if good else np.inf])


def of_metrics(draws: int) -> list[np.ndarray]:
    """Sums over the ROWS of a kind, and counts."""
    random, found = np.random.default_rng(3), []
    both = jit(lambda s, t, y: (count(s, y, None, t), metrics.quality(s, y, t)))
    for _ in range(draws):
        for rows in zip(*(one.reshape(8, ROWS, *one.shape[1:]) for one in labelled(random)), strict=True):
            student, teacher, labels = rows
            counts, sums = jax.tree.map(np.asarray, both(student, teacher, labels))
            ce, kl = float64.cross_entropy(student, labels), float64.kl(student, teacher, 1.0)
            for ours, (value, _, bound, _) in ((counts.loss_sum, ce), (sums["nll"], ce), (sums["kl"], kl)):
                found.append(share([ours], value.sum(), bound.sum() + ROWS * EPS * np.abs(value).sum()))
            (total, confidence, right), at_edge = float64.bins(student, labels)
            bins = sums["bins"]
            off = np.abs(bins["count"] - total).sum() + np.abs(bins["correct"] - right).sum()
            found.append(verdict(off <= 4 * at_edge and same_counts(*rows, counts, sums)))
            if not at_edge:
                found.append(share([bins["confidence"]], [confidence], 4 * C * ROWS * EPS))
    return found


def same_counts(student, teacher, labels, counts, sums) -> bool:
    """Right ones, all, top five, agreement and confusion."""
    named, taught = student.argmax(axis=-1), teacher.argmax(axis=-1)
    before = np.sum(student > student[np.arange(ROWS), labels][:, None], axis=-1)
    matrix = metrics.confusion(jnp.asarray(named, jnp.int32), jnp.asarray(labels), CLASSES)
    expected = np.zeros((CLASSES, CLASSES), int)
    np.add.at(expected, (labels, named), 1)
    return (
        counts.agree == sums["agree"] == np.sum(named == taught)
        and sums["top5"] == np.sum(before < 5)
        and np.array_equal(counts.correct, expected.diagonal())
        and np.array_equal(counts.support, expected.sum(axis=1))
        and np.array_equal(matrix, expected)
    )


def of_bias(draws: int) -> list[np.ndarray]:
    """Of the ROWS of a kind, whatever the classes that are missing."""
    random, found = np.random.default_rng(4), []
    for _ in range(draws):
        logits, _, labels = labelled(random)
        for kind in range(8):
            omitted = random.permutation(CLASSES) < random.integers(1, CLASSES)
            of_kind = slice(kind * ROWS, (kind + 1) * ROWS)
            found += of_search(logits[of_kind], labels[of_kind], omitted, int(random.integers(ROWS + 1)))
    return found


tuned, matched = jit(bias_correction.min_error_bias), jit(bias_correction.prior_matching_bias)
adjusted, margins = jit(bias_correction.add_class_bias), jit(bias_correction.margins)


def of_search(logits, labels, omitted, wanted: int) -> list[np.ndarray]:
    """Margins and corrected logits; no b has fewer errors, none comes nearer to the share that is wanted."""
    wide = np.float64(logits)
    exact = wide[:, ~omitted].max(axis=-1) - wide[:, omitted].max(axis=-1)
    found = [share(margins(logits, omitted), exact, EPS * np.abs(exact))]
    predicted = float64.turned(logits, omitted)
    fewest = np.sum(predicted != labels, axis=-1).min()
    nearest = np.abs(omitted[predicted].sum(axis=-1) - wanted).min()
    b = tuned(logits, labels, omitted)
    shifted = wide + np.float64(b) * omitted
    found.append(share(adjusted(logits, omitted, b), shifted, EPS * np.abs(shifted)))
    found.append(verdict(np.sum(shifted.argmax(axis=-1) != labels) <= fewest))
    shifted = wide + np.float64(matched(logits, omitted, number(wanted / ROWS))) * omitted
    off = abs(omitted[shifted.argmax(axis=-1)].sum() - wanted)
    return [*found, verdict(np.isfinite(shifted).all() and off <= nearest)]


def of_stats(draws: int) -> list[np.ndarray]:
    """Means, ends of intervals and p, of values from 1e-30 to 1e30 and of ones that differ in few digits."""
    random, found = np.random.default_rng(5), []
    for _ in range(draws):
        for n in (2, 3, 5, 10, 30):
            for values in (
                random.normal(random.normal(), 1, n),
                random.normal(0, 1, n) * 10.0 ** random.integers(-30, 31),
                0.9 + random.normal(0, 1, n) * 10.0 ** random.integers(-12, 0),
            ):
                found.append(of_sample(values.tolist(), float(random.choice([0.5, 0.95, 0.999]))))
    return found


def of_sample(values: list[float], confidence: float) -> np.ndarray:
    """The mean and the deviations are rounded at the size of the values: t by that over the error."""
    mean, error, degrees = float64.interval(values, confidence)
    rounding = C * 2.0**-52 * max(map(abs, values))
    ours = intervals.mean_interval(values, confidence)
    difference = intervals.paired_difference(values, [0.0] * len(values), confidence=confidence)
    assert difference[:3] == ours[:3]
    off = rounding / error + 64 * 2.0**-52  # of t, relatively; 64 roundings for the special functions
    half = (ours.high - ours.low) / 2
    slack = (degrees + 1) * (off + rounding / half)  # the share beyond t falls as t^-degrees at most
    beyond, p = float64.outside(half / error, degrees), float64.outside(mean / error, degrees)
    t = abs(mean / error)
    parts = [
        share([ours.mean], mean, rounding),
        share([(ours.high + ours.low) / 2], mean, 2 * rounding + 2.0**-51 * half),
        share([1 - confidence], beyond, slack),
        share([difference.p], p, p * (degrees + 1) * off * (1 + 1 / max(t, 1e-9)) + rounding / error),
    ]
    return np.max(parts, axis=0)


def same_twice(times: int) -> Tried:
    """A sweep of four runs in a process of its own, each time in a fresh folder."""
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        for turn in range(times + 1):
            folder = Path(name) / str(turn)
            folder.mkdir()
            command = [sys.executable, "-P", "-m", "experiments.distill", *SWEEP, "--out=run"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment, timeout=600)
            if found := differences(Path(name) / "0" / "run", folder / "run"):
                wrong.append(f"time {turn}: {', '.join(found)}")
    outcome = "every file of figures and every weight equal to the bit"
    return Tried("the same sweep again in another process", times, times - len(wrong), outcome, tuple(wrong))


def campaign() -> list[Tried]:
    of = "rows of logits, all alike to +-1e4"
    temperatures = "T from 0.01 to 10,000"
    rows = [
        near(f"loss {name}: value and gradient, {of}, {temperatures}", of_loss(name, draws=20))
        for name in float64.LOSSES
    ]
    return [
        *rows,
        near(f"mean of three teachers, {of}, {temperatures}", of_averages(60)),
        near(f"ablations of the teacher's answer, {of}, {temperatures}", of_signals(10)),
        near("counts, calibration bins and confusion of batches of such rows", of_metrics(100)),
        near("margins, searches and corrections of the bias on such rows", of_bias(300)),
        near("means, intervals and p of 2 to 30 values, against exact fractions", of_stats(500)),
        same_twice(3),
    ]
