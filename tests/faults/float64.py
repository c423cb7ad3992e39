"""The library's formulas in NumPy's float64, and how far f32 may be from them.

How far follows from f32's rounding: a log-probability of z = x / T is rounded at the size of what it is
computed from, delta = C eps (1 + log K + max z - z), and |z| more where x had to be divided; a probability
is then off by the factor e^delta, and what is made of them by as much as its derivatives say. eps is 2^-23,
C = 4 for the handful of roundings in a row. Nothing here calls the library.
"""

import math
from fractions import Fraction

import numpy as np
from scipy.special import betainc

EPS = 2.0**-23
C = 4
TINY = 2.0**-126  # what is below is 0


def log_softmax(x: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(log-probabilities, delta) in float64."""
    z = np.float64(x) / temperature
    below = z - z.max(axis=-1, keepdims=True)
    size = 1 + math.log(z.shape[-1]) - below
    if temperature != 1:
        size = size + np.abs(z).max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True)), C * EPS * size


def kl(student, teacher, temperature):
    """(value, gradient, their bounds): T^2 sum p (log p - log q), T (q - p).

    The value as the sum of q - p - p d, d = log q - log p, has the derivatives q - p by log q, -p d by log p.
    """
    (log_q, delta), (log_p, other) = (log_softmax(x, temperature) for x in (student, teacher))
    p, q, d, factor = np.exp(log_p), np.exp(log_q), log_q - log_p, np.expm1(np.minimum(delta + other, 50))
    value = np.sum(p * -d, axis=-1)
    bound = np.sum((np.abs(q - p) + np.abs(p * d)) * factor + (p + q) * factor**2, axis=-1)
    bound += np.sum(C * EPS * (q - p - p * d) + TINY * (1 + np.abs(d)), axis=-1)
    # The chain rule multiplies with T^2, where what falls below TINY is lost, then with 1/T.
    lost = TINY * (temperature + 1 / temperature)
    gradient, its_bound = temperature * (q - p), temperature * (p + q) * factor + lost
    return temperature**2 * value, gradient, temperature**2 * bound, its_bound


def cross_entropy(student, labels):
    """(value, gradient, their bounds): -log q of the label, q - 1 there."""
    log_q, delta = log_softmax(student)
    right = np.eye(student.shape[-1])[labels]
    value, bound = (np.sum(one * right, axis=-1) for one in (-log_q, delta))
    return value, np.exp(log_q) - right, bound, np.exp(log_q) * np.expm1(delta) + EPS


def distance(student, teacher):
    """(value, gradient, their bounds): sum (s - t)^2 / 2, s - t."""
    d = np.float64(student) - teacher
    value = np.sum(d**2, axis=-1) / 2
    return value, d, C * EPS * value, C * EPS * np.abs(d)


LOSSES = ("soft", "hard_label", "labels", "logits")
"""The names that `loss` knows."""


def loss(name: str, student, teacher, labels, alpha: float, temperature: float):
    """(value, gradient, their bounds) of a loss of that name."""
    hard = cross_entropy(student, labels)
    taught = {
        "soft": lambda: kl(student, teacher, temperature),
        "hard_label": lambda: cross_entropy(student, np.argmax(teacher, axis=-1)),
        "logits": lambda: distance(student, teacher),
    }
    if name == "labels":
        return hard
    parts = [[share * one for one in part] for share, part in ((alpha, taught[name]()), (1 - alpha, hard))]
    value, gradient, *bounds = (one + other for one, other in zip(*parts, strict=True))
    sizes = (np.abs(parts[0][i]) + np.abs(parts[1][i]) for i in (0, 1))
    return value, gradient, *(bound + C * EPS * size for bound, size in zip(bounds, sizes, strict=True))


def average(teachers: np.ndarray, temperature: float):
    """Of f32[M,B,K] the logits whose softmax is the mean of theirs, and their bound."""
    log_p, delta = log_softmax(teachers, temperature)
    top = log_p.max(axis=0)
    mean = top + np.log(np.mean(np.exp(log_p - top), axis=0))
    return temperature * mean, temperature * (delta.max(axis=0) + C * EPS)


def spread(p: np.ndarray, num: int) -> np.ndarray:
    """The num largest kept, the rest of 1 shared evenly by the others."""
    rank = np.argsort(np.argsort(-p, axis=-1, kind="stable"), axis=-1)
    rest = np.sum(p * (rank >= num), axis=-1, keepdims=True) / max(1, p.shape[-1] - num)
    return np.where(rank < num, p, rest)


def ablations(teacher: np.ndarray, mask: np.ndarray, temperature: float):
    """Of each ablation the probabilities (of `shuffled` in ascending order), and the bound of their ratio."""
    log_p, delta = log_softmax(teacher, temperature)
    p = np.exp(log_p)
    seen = np.exp(np.where(mask, log_p - log_p[:, mask].max(axis=-1, keepdims=True), -np.inf))
    removed, shuffled = seen / seen.sum(axis=-1, keepdims=True), np.sort(p, axis=-1)
    expected = {"full": p, "omitted_removed": removed, "top1": spread(p, 1), "top2": spread(p, 2)}
    return expected | {"shuffled": shuffled}, np.expm1(4 * delta.max(axis=-1, keepdims=True))


def bins(student: np.ndarray, labels: np.ndarray):
    """(count, sum of confidences, correct) of ](m - 1)/15, m/15], and how many examples lie at an edge."""
    log_q, delta = log_softmax(student)
    confidence = np.exp(log_q.max(axis=-1))
    inside = [(confidence > m / 15) & (confidence <= (m + 1) / 15) for m in range(15)]
    right = np.argmax(student, axis=-1) == labels
    off = np.abs(confidence[:, None] - np.arange(1, 15) / 15).min(axis=-1)
    found = [(np.sum(one), np.sum(confidence * one), np.sum(right & one)) for one in inside]
    return np.transpose(found), int(np.sum(off <= delta.min(axis=-1)))


def turned(logits: np.ndarray, omitted: np.ndarray):
    """Predictions [G,N] under a b in each interval between two margins that f32 can tell apart."""
    logits = np.float64(logits)
    margins = np.unique(logits[:, ~omitted].max(axis=-1) - logits[:, omitted].max(axis=-1))
    edges = np.concatenate([[margins[0] - 2], margins, [margins[-1] + 2]])
    wide = np.diff(edges) > C * EPS * np.abs(logits).max()
    middles = ((edges[1:] + edges[:-1]) / 2)[wide]
    return np.argmax(logits + middles[:, None, None] * omitted, axis=-1)


def interval(values: list[float], confidence: float):
    """(mean, its standard error, degrees of freedom), the first two rounded from exact fractions."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    squares = sum((value - mean) ** 2 for value in exact) / (len(exact) * (len(exact) - 1))
    return float(mean), math.sqrt(squares), len(exact) - 1


def outside(t: float, degrees: int) -> float:
    """The share of Student's t beyond +-t: the regularised incomplete beta function."""
    return float(betainc(degrees / 2, 0.5, degrees / (degrees + t * t)))
