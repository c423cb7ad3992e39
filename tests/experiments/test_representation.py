"""`representation` on a small run: what it writes follows from the checkpoints, and bad input is one line."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.studies import representation as study
from kd_jax import data, models, plots
from kd_jax.data import synthetic
from kd_jax.evaluate import representation
from kd_jax.io import checkpoint, run_config
from kd_jax.io.run_folder import read_history, read_representation
from kd_jax.stats.rows import MEASURES, RANDOM
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


def write_made(path, dataset):
    """Images as if two teachers had made them. Of class 3: number 1's are the real ones among the first 130
    test images that `representation` draws, number 0's are zeros. And real fives, for class 5."""
    judged = np.random.RandomState(0)
    judged.permutation(data.split_validation(dataset.train_labels, 0.1)[1])  # which it draws first
    judged = judged.permutation(len(dataset.test_labels))[:130]
    threes = dataset.test_images[judged[dataset.test_labels[judged] == 3]]
    zeros, fives = (dataset.train_images[dataset.train_labels == k][:30] for k in (0, 5))
    images = np.concatenate([threes, zeros, fives])
    labels = np.repeat(np.int32([3, 3, 5]), [len(threes), 30, 30])
    made_by = np.repeat([1, 0, 1], [len(threes), 30, 30])
    about = {"teacher": {"sha256": "ab", "num_teachers": 2, "path": "teacher"}, "method": "class_impressions"}
    arrays = images, labels, zeros[:2], np.full(2, 3, np.int32)
    path.write_bytes(synthetic.to_bytes(arrays, list(dataset.class_names), made_by, about))


@pytest.fixture(scope="module")
def mixed(home, launch, digits, run):
    """Students of a mixture with images of the class, of share 0.3 and of none, looked at."""
    write_made(home / "made.npz", digits)
    words = [*SMALL, "--model=mlp-12-10", "--omit=3", "--learning_rates=1e-2", "--transfer_shares=0,0.3"]
    words += [f"--teacher={home}/teacher", f"--transfer=own+{home}/made.npz", f"--out={home}/mixed"]
    for name, given in (("distill", words), ("representation", [home / "mixed", "--examples=130"])):
        done = launch(name, *given)
        assert done.status == 0, done.err
    return home / "mixed"


@pytest.mark.slow
def test_synthesised_images_are_measured_as_the_real_ones(mixed):
    """Those of seed 1 are the very images that the real rows are of, those of seed 0 are real zeros, which
    the probe knows: their share that is called a 3 is small, and their centre is elsewhere."""
    rows = read_representation(mixed, run_config.read(mixed))
    by_seed = [
        {(r.setting, r.layer, r.measure): r.value for r in rows if r.seed == seed and r.class_ == "omitted"}
        for seed in (0, 1)
    ]
    networks = {(name, layer) for name, layer, _ in by_seed[1]}
    assert len(networks) == 2 * 3
    for network in networks:
        zeros, threes = ({m: found[(*network, m)] for m in MEASURES} for found in by_seed)
        assert threes["probe_synthesised"] == pytest.approx(threes["probe"])
        assert threes["cka_synthesised"] == pytest.approx(threes["cka"], rel=1e-4)
        assert threes["centroid_distance_synthesised"] == 0  # less than chance explains
        assert zeros["probe_synthesised"] < 0.5 and zeros["centroid_distance_synthesised"] > 0.5
    report = (mixed / "report.md").read_text()
    assert "linear probe, synthesised" in report and "figures/features.png" in report


@pytest.mark.slow
def test_other_images_under_the_same_name_are_refused(mixed, home, launch):
    path = home / "made.npz"
    whole = path.read_bytes()
    with np.load(path) as held:
        arrays = dict(held)
    try:
        np.savez(path, **arrays | {"train_images": arrays["train_images"][::-1]})
        done = launch("representation", mixed)
        assert done.status == 2 and "made.npz holds other images now" in done.err, done
        path.unlink()
        done = launch("representation", mixed)
        assert done.status == 2 and "made.npz" in done.err and done.err.count("\n") == 1
    finally:
        path.write_bytes(whole)


def test_which_synthesised_images_are_a_students():
    """Of its classes and its own teacher; of one teacher, or for an ensemble's students, those of all."""
    labels, made_by = np.int32([3, 3, 5, 3, 7, 3]), np.int32([0, 1, 1, 1, 0, 1])
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)

    def chosen(teacher_seed, omitted, num_teachers=2, most=9):
        made = study.Synthesised(images, labels, made_by, num_teachers)
        description = SimpleNamespace(runs=[SimpleNamespace(seed=4, teacher_seed=teacher_seed)])
        held = study.Study(None, description, None, None, [], None, None, made)
        found = study.synthesised_of(held, study.Student("random", 4, None, omitted, {}), most)
        return found["synthesised"][0].ravel().tolist() if found else []

    assert chosen(1, (3,)) == [1, 3, 5] and chosen(0, (3,)) == [0]
    assert chosen(1, (3, 5)) == [1, 2, 3, 5] and chosen(1, (3, 5), most=2) == [1, 2]
    assert chosen(1, (7,)) == [] and chosen(None, (3,)) == [0, 1, 3, 5]
    assert chosen(1, (3,), num_teachers=1) == [0, 1, 3, 5]


def test_the_distance_of_synthesised_from_real_by_hand():
    """Means 0 and 2; squares 2 and 2, so variances 2 / (2 - 1) = 2 each, and 4 - 2 / 2 - 2 / 2 = 2 is the
    squared distance; the mean square is 4 / (4 - 2) = 2."""
    one, other = np.float32([[1], [-1]]), np.float32([[3], [1]])
    assert study.distance_of_groups(one, other) == pytest.approx(1)
    assert study.mean_recall(np.array([1, 0, 3, 3]), np.array([1, 1, 3, 3])) == 0.75


@pytest.mark.parametrize("made", [False, True])
def test_the_figure_has_a_marker_for_synthesised_images(monkeypatch, made):
    """As many as there are real ones of the class; none where there is none."""
    figures = []
    monkeypatch.setattr(plots, "render", figures.append)
    random, labels = np.random.RandomState(0), np.arange(60) % 3
    features = {"test": random.normal(size=(60, 4)).astype(np.float32)}
    features |= {"synthesised": random.normal(size=(50, 4)).astype(np.float32)} if made else {}
    student = study.Student("T=4", 0, 0, (2,), {})
    description = SimpleNamespace(data=SimpleNamespace(class_names=("a", "b", "c")))
    held = study.Study(None, description, None, None, [student], None, None, None)
    study.picture(held, {"T=4": (student, features)}, labels)
    for axes in figures[0].axes:
        counts = {line.get_label(): len(line.get_xdata()) for line in axes.get_lines()}
        expected = {"other classes": 40, "class c": 20}
        assert counts == expected | ({"class c, synthesised": 20} if made else {})
        assert len({line.get_marker() for line in axes.get_lines()}) == len(counts)
    assert figures[0].axes


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
