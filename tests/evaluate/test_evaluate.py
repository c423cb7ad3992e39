"""What students come to, against SciPy and scikit-learn on logits made by NumPy, one run after another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from kd_jax import data, losses, models
from kd_jax.evaluate import bias_correction, evaluate
from kd_jax.losses import LOSSES
from kd_jax.train import sweep
from kd_jax.train.keys import MIXTURES
from kd_jax.types import Table

K, M = 7, 2
RANDOM = np.random.RandomState(0)
STUDENT, TEACHER = models.build("mlp", K), models.build("mlp-5", K)
GRID = jnp.asarray([0.0, 1.0], jnp.float32)


def table(num):
    images = RANDOM.randint(256, size=(num, 3, 4, 1)).astype(np.uint8)
    labels = np.concatenate([np.arange(K), RANDOM.randint(K, size=num - K)])
    return Table(images, labels.astype(np.int32))


TABLES = {"train": table(20), "validation": table(31), "test": table(57)}


def stacked(model, num, base):
    """Random variables of `num` models, every array drawn anew, biases too."""
    shapes = jax.eval_shape(lambda key: models.init_variables(model, key, (3, 4, 1)), jax.random.key(0))
    draw = np.random.RandomState(base).standard_normal
    return jax.tree.map(lambda leaf: np.float32(draw((num, *leaf.shape))), shapes)


def logits_of(variables, run, images):
    """f64[N,K] by NumPy alone."""
    x = images.reshape(len(images), -1) / 255.0
    layers = variables["params"]
    for name in sorted(set(layers) - {"logits"}):
        x = np.maximum(x @ layers[name]["kernel"][run] + layers[name]["bias"][run], 0)
    return x @ layers["logits"]["kernel"][run] + layers["logits"]["bias"][run]


@functools.cache
def outcome(num_runs, average=False, teachers=True, validation=True, only=None, loss="soft"):
    """Of `evaluate_runs`, and the students' and teachers' variables; only: one run alone."""
    loss_fn = LOSSES[loss]
    students, taught = stacked(STUDENT, num_runs, 1), stacked(TEACHER, M, 2)
    hparams = sweep.stack_runs([sweep.make_hparams(K, (3,), temperature=4.0)], range(num_runs), M)
    seeds, runs = range(num_runs), (students, hparams)
    if only is not None:
        seeds, runs = seeds[only : only + 1], jax.tree.map(lambda leaf: leaf[only : only + 1], runs)
    evaluation_data = evaluate.EvaluationData(
        TABLES["train"],
        TABLES["validation"] if validation else None,
        TABLES["test"],
        (taught,) if teachers else None,
    )
    models_, keys = (TEACHER,) if teachers else (), sweep.run_keys(seeds, 1, 0)
    return (
        evaluate.evaluate_runs(STUDENT, models_, average, loss_fn, evaluation_data, GRID, *runs, keys),
        students,
        taught,
    )


def check(sums, split, logits, teacher_logits):
    labels = TABLES[split].labels
    count, p = len(labels), softmax(logits, axis=1)
    assert sums["nll"] == pytest.approx(count * log_loss(labels, p, labels=range(K)), rel=1e-5)
    best = top_k_accuracy_score(labels, logits, k=5, labels=range(K), normalize=False)
    assert sums["top5"] == best
    assert sums["bins"]["count"].sum() == count
    assert sums["bins"]["confidence"].sum() == pytest.approx(p.max(axis=1).sum(), rel=1e-5)
    assert sums["bins"]["correct"].sum() == np.sum(logits.argmax(axis=1) == labels)
    if teacher_logits is None:
        assert "agree" not in sums and "kl" not in sums
    else:
        assert sums["agree"] == np.sum(logits.argmax(axis=1) == teacher_logits.argmax(axis=1))
        kl = rel_entr(softmax(teacher_logits, axis=1), p).sum()
        assert sums["kl"] == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize(("average", "loss"), [(False, "soft"), (True, "logits")])
def test_mapped_over_eight_devices_each_run_is_as_by_numpy(average, loss):
    """9 runs on 8 devices, so some are padding; each with its own teacher, or with both: the mean of their
    logits, as the loss has it."""
    found, students, taught = outcome(9, average, loss=loss)
    for run in range(9):
        for split in ("validation", "test"):
            images, labels = TABLES[split].images, TABLES[split].labels
            logits = logits_of(students, run, images)
            teachers = [logits_of(taught, m, images) for m in range(M)]
            mean = np.mean(teachers, axis=0)
            own = jax.tree.map(lambda leaf, run=run: leaf[run], found.quality[split])
            check(own, split, logits, mean if average else teachers[run % M])
            matrix = confusion_matrix(labels, logits.argmax(axis=1), labels=range(K))
            np.testing.assert_array_equal(found.confusions[split]["none"][run], matrix)


def test_the_first_examples_of_the_omitted_class_that_are_wrong():
    found, students, _ = outcome(9)
    images, labels = TABLES["test"].images, TABLES["test"].labels
    rescued = 0
    for run in range(9):
        logits = logits_of(students, run, images)
        shifted = logits + np.where(np.arange(K) == 3, found.biases["test_tuned"][run], 0)
        before, after = logits.argmax(axis=1), shifted.argmax(axis=1)
        wrong = (labels == 3) & (before != labels)
        groups = [np.flatnonzero(wrong & (after == labels)), np.flatnonzero(wrong & (after != labels))]
        own = jax.tree.map(lambda leaf, run=run: leaf[run], found.examples["test_tuned"])
        for half, expected in zip(np.split(np.arange(2 * evaluate.MOST_EXAMPLES), 2), groups, strict=True):
            index = own["index"][half]
            np.testing.assert_array_equal(index[index < len(labels)], expected)
            np.testing.assert_array_equal(own["before"][half][: len(expected)], before[expected])
            np.testing.assert_array_equal(own["after"][half][: len(expected)], after[expected])
        rescued += len(groups[0])
    assert rescued and np.all(found.examples["none"]["index"][:, : evaluate.MOST_EXAMPLES] == len(labels))


def test_of_more_examples_than_are_kept_the_first():
    labels = jnp.zeros(100, jnp.int32).at[7].set(1)
    after = jnp.where(jnp.arange(100) % 3 == 0, 0, 2).astype(jnp.int32)
    own = evaluate.first_examples(jnp.full(100, 2), after, labels, jnp.array([True, False, False]))
    rescued, lost = np.split(np.asarray(own["index"]), 2)
    np.testing.assert_array_equal(rescued, 3 * np.arange(24))
    np.testing.assert_array_equal(lost, [i for i in range(100) if i % 3 and i != 7][:24])


def test_a_run_alone_is_as_among_others():
    whole, alone = outcome(9)[0], outcome(9, only=5)[0]

    def same(ours, theirs):
        np.testing.assert_allclose(ours[5:6], theirs, rtol=1e-5, atol=1e-6)

    jax.tree.map(same, whole, alone)


def test_without_teacher_or_validation_split():
    found, students, _ = outcome(2, teachers=False, validation=False)
    assert set(found.quality) == {"test"} and set(found.biases) == {"none", "test_tuned"}
    for run in range(2):
        own = jax.tree.map(lambda leaf, run=run: leaf[run], found.quality["test"])
        check(own, "test", logits_of(students, run, TABLES["test"].images), None)


def test_the_probabilities_are_those_before_any_correction():
    """They are at T = 1 with no bias, though class 3 is missing and the setting's temperature is 4."""
    found, students, _ = outcome(9)
    logits = logits_of(students, 0, TABLES["test"].images)
    nll = -log_softmax(logits, axis=1)[np.arange(len(logits)), TABLES["test"].labels].sum()
    assert found.biases["test_tuned"][0] != 0
    assert found.quality["test"]["nll"][0] == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_teacher_matched_gives_the_student_its_teachers_share_of_the_omitted_class(average):
    found, students, taught = outcome(9, average)
    table = TABLES["train"]
    for run in range(3):
        mixed_key = jax.random.fold_in(sweep.run_keys([run], 1, 0)[0], MIXTURES)
        mask = jnp.asarray(np.asarray(table.labels) != 3)
        images = np.asarray(
            bias_correction.average_image_pairs(
                mixed_key, jnp.asarray(table.images), mask, evaluate.NUM_MIXTURES
            )
        )
        each = [softmax(logits_of(taught, m, images), axis=1) for m in range(M)]
        answers = np.mean(each, axis=0) if average else each[run % M]
        logits = logits_of(students, run, images)
        logits[:, 3] += found.biases["teacher_matched"][run]
        shares = [np.mean(values.argmax(axis=1) == 3) for values in (answers, logits)]
        # Of so few images a mixture comes often: such a group turns as one, and the nearer side is taken.
        largest = np.unique(images.reshape(len(images), -1), axis=0, return_counts=True)[1].max()
        assert 0 < shares[0] < 1 and abs(shares[0] - shares[1]) * len(images) <= largest / 2 + 1


def prior_matched(others, rare, fraction, called=()):
    """The share of all missing examples that are found, and of all examples that are called missing, on the
    validation split of a set with a rare class 0, whose margins are the smallest; `called`: places, in order
    of their margins, of examples that are called missing as trained."""
    labels = np.repeat(np.arange(len(others) + 1), [rare, *others])
    _, index = data.split_validation(labels, fraction)
    held_out = labels[index]
    margin = np.arange(1.0, len(held_out) + 1)  # sorted: the rare class comes first
    margin[list(called)] -= 100
    logits = np.zeros((len(held_out), len(others) + 1), np.float32)
    logits[:, 0], logits[:, 2:] = -margin, -1000
    evaluation_data = evaluate.EvaluationData(
        TABLES["train"], Table(np.zeros((len(held_out), 1, 1, 1), np.uint8), jnp.asarray(held_out)),
        TABLES["test"], None,
    )  # fmt: skip
    hparams = sweep.make_hparams(len(others) + 1, (0,))
    test = np.zeros((len(TABLES["test"].labels), len(others) + 1), np.float32)
    chosen = evaluate.choose_biases(
        STUDENT, (), False, losses.soft_loss, evaluation_data, {}, hparams, jax.random.key(0),
        {"test": jnp.asarray(test), "validation": jnp.asarray(logits)},
    )  # fmt: skip
    return int(np.sum(margin < chosen["prior_matched"])), int(np.sum(held_out == 0)), len(held_out)


@pytest.mark.parametrize(
    "rare, fraction, called",
    # Of 4 and 604 examples a tenth: 1 of 61, where 4 / 604 of 61 are 0.40. Of 20 and 1,370 a fiftieth: 1 of
    # 28, where 20 / 1,370 of 28 are 0.41, so that one that is called missing as trained would be turned away.
    [(4, 0.1, ()), (20, 0.02, ()), (20, 0.02, (0,))],
)
def test_prior_matched_calls_as_many_omitted_as_the_split_holds(rare, fraction, called):
    others = {4: [100] * 6, 20: [150] * 9}[rare]
    found, held, size = prior_matched(others, rare, fraction, called)
    assert held == 1 and round(size * rare / (rare + sum(others))) == 0
    assert found == held
