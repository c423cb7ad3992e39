"""`representation` on a small run: what it writes follows from the checkpoints, and bad input is one line."""

import shutil

import jax
import numpy as np
import pytest

from kd_jax import data, models
from kd_jax.evaluate import representation
from kd_jax.io import checkpoint, run_config
from kd_jax.io.run_folder import read_history, read_representation
from kd_jax.stats.rows import RANDOM
from tests.experiments.launcher import Launcher
from tests.experiments.settings.test_teachers import save

SMALL = ["--dataset=digits", "--epochs=2", "--batch_size=64", "--seeds=2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("representation")


@pytest.fixture(scope="module")
def launch(home):
    with Launcher(home) as launcher:
        yield lambda name, *words: launcher(name, *words, draw=False)


@pytest.fixture(scope="module")
def run(home, launch, digits):
    """Students of two teachers with and without class 3, looked at."""
    save(home / "teacher" / "teachers", digits, "mlp-16-12", 2)
    words = [*SMALL, "--model=mlp-12-10", "--omit=none,3", "--learning_rates=1e-2", f"--out={home}/run"]
    done = launch("distill", *words, f"--teacher={home}/teacher")
    assert done.status == 0, done.err
    done = launch("representation", home / "run", "--examples=130")
    assert done.status == 0, done.err
    return home / "run"


def test_every_network_layer_and_measure(run):
    rows = read_representation(run, run_config.read(run))
    networks = {(name, seed) for name in (RANDOM, "T=4", "T=4 omit=3") for seed in (0, 1)}
    assert {(row.setting, row.seed) for row in rows} == networks
    assert {row.layer for row in rows} == {"hidden_0", "hidden_1"}
    each = [
        (row.measure, row.class_)
        for row in rows
        if (row.setting, row.seed, row.layer) == ("T=4", 1, "hidden_1")
    ]
    both = [(measure, part) for measure in ("probe", "neighbours", "cka") for part in ("omitted", "seen")]
    assert sorted(each) == sorted([*both, ("silhouette", "omitted"), ("centroid_distance", "omitted")])
    assert "## Hidden signals" in (run / "report.md").read_text()


def test_the_figures_follow_from_the_checkpoints(run, home):
    """Seed 1's student without threes and its own teacher, number 1, by hand."""
    config, dataset = run_config.read(run), data.load("digits")
    stacked, metadata = checkpoint.load(run / "students")
    taught, of_teacher = checkpoint.load(home / "teacher" / "teachers")
    (number,) = [r.run for r in config.runs if (r.setting, r.seed) == ("T=4 omit=3", 1)]
    _, validation = data.split_validation(dataset.train_labels, 0.1)
    random = np.random.RandomState(0)
    chosen, judged = random.permutation(validation)[:130], random.permutation(500)[:130]
    labels = dataset.test_labels[judged]

    def features(tree, row, spec, images):
        own = jax.tree.map(lambda leaf: leaf[row], tree)
        return representation.features_of(models.build(spec, 10), own, images)["hidden_1"]

    x, y = (
        features(stacked, number, metadata["model"], i)
        for i in (dataset.train_images[chosen], dataset.test_images[judged])
    )
    theirs = features(taught, 1, of_teacher["model"], dataset.test_images[judged])
    found = {
        (row.measure, row.class_): row.value
        for row in read_representation(run, config)
        if (row.setting, row.seed, row.layer) == ("T=4 omit=3", 1, "hidden_1")
    }
    recall = representation.probe(x, dataset.train_labels[chosen], y, labels, 10)
    assert found["probe", "omitted"] == pytest.approx(recall[3])
    assert found["probe", "seen"] == pytest.approx(np.delete(recall, 3).mean())
    omitted, seen = representation.equal_samples(labels == 3)
    assert len(seen) == len(omitted) == np.sum(labels == 3)
    for part, of in (("omitted", omitted), ("seen", seen)):
        assert found["cka", part] == pytest.approx(representation.linear_cka(y[of], theirs[of]), rel=1e-4)
    assert found["silhouette", "omitted"] == pytest.approx(
        representation.separability(y, labels == 3)["silhouette"], rel=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["blurred_noise", "other.npz"])
def test_students_are_taught_on_other_images(launch, home, run, transfer):
    """By a teacher's answers alone; what they come to is told along the way."""
    images = np.random.RandomState(0).randint(0, 256, (60, 8, 8)).astype(np.uint8)
    labels = np.arange(60) % 2
    np.savez(
        home / "other.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels
    )
    out = home / f"taught_{transfer}"
    name = transfer if transfer == "blurred_noise" else home / transfer
    words = [*SMALL, "--model=mlp-12-10", "--learning_rates=1e-2", f"--teacher={home}/teacher", "--track"]
    done = launch("distill", *words, f"--transfer={name}", f"--out={out}")
    assert done.status == 0, done.err
    config = run_config.read(out)
    assert (config.transfer is not None) == (transfer == "other.npz")
    rows = read_history(out, config)
    by_metric = {
        metric: [r.value for r in rows if (r.split, r.metric) == ("train", metric)]
        for metric in ("accuracy", "agreement")
    }
    assert by_metric["accuracy"] == by_metric["agreement"]  # the teacher's answers stand for labels
    assert {"accuracy_corrected", "accuracy_probe"} <= {row.metric for row in rows}
    if transfer == "other.npz":
        np.savez(
            home / "other.npz",
            train_images=images + 1,
            train_labels=labels,
            test_images=images,
            test_labels=labels,
        )
        again = launch("distill", *words, f"--transfer={name}", f"--out={out}")
        assert again.status == 2 and "another transfer set" in again.err


def test_another_teacher_under_the_same_name_is_refused(run, home, launch):
    folder = home / "teacher" / "teachers"
    shutil.move(folder, home / "seen")
    try:
        variables, metadata = checkpoint.load(home / "seen")
        checkpoint.save(folder, jax.tree.map(lambda leaf: 2 * leaf, variables), metadata)
        done = launch("representation", run)
        assert done.status == 2 and "is another teacher now" in done.err
    finally:
        shutil.rmtree(folder)
        shutil.move(home / "seen", folder)
