"""predict: what NumPy makes of the same weights, to the example; what results.csv counted; odd images."""

import csv
import io
import os

import numpy as np
import pytest
from PIL import Image

from experiments.studies import predict as predictions
from tests.experiments.runs import arrays_of, logits_of, read_csv, results_of
from tests.faults import samples

OMITTED = 3


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, digits):
    """The digits' test images as an .npz without labels."""
    path = tmp_path_factory.mktemp("arrays") / "digits, ä.npz"
    np.savez(path, images=digits.test_images)
    return path


@pytest.fixture
def predict(launch, tmp_path):
    """predict(run, flags...) -> the rows of the csv file, and what was printed."""

    def call(run, *words):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        outcome = launch("predict", run, *words, f"--out={out}")
        assert outcome.status == 0, outcome
        return read_csv(out), outcome

    return call


def probabilities(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def check(rows, expected, top_k):
    """Each row has the most probable classes, of which those within rounding may stand in any order."""
    assert [row["image"] for row in rows] == list(map(str, range(len(expected))))
    ranked = np.sort(expected, axis=1)[:, ::-1]
    for rank in range(top_k):
        classes = np.array([int(row[f"class_{rank + 1}"]) for row in rows])
        shares = np.array([float(row[f"probability_{rank + 1}"]) for row in rows])
        np.testing.assert_allclose(shares, ranked[:, rank], atol=1e-5)
        np.testing.assert_allclose(expected[np.arange(len(rows)), classes], ranked[:, rank], atol=1e-4)
        assert [row[f"name_{rank + 1}"] for row in rows] == list(map(str, classes))


def test_as_counted_in_results_csv(sweep, digits, arrays, predict):
    """Of the second seed: the default correction, another one, none."""
    results, weights = results_of(sweep.folder), arrays_of(sweep.folder / "students")
    logits = logits_of(weights, 7, digits.test_images)  # the fourth of the settings, of two seeds each
    key = "T=4 omit=3", 1, "test"
    for correction, words in {"prior_matched": [], "test_tuned": ["--correction=test_tuned"],
                              "none": ["--correction=none", "--top_k=10"]}.items():  # fmt: skip
        bias = results[*key, correction, "omitted", "bias"]
        corrected = logits + bias * (np.arange(10) == OMITTED)
        rows, outcome = predict(
            sweep.folder, "--setting=T=4 omit=3", "--seed=1", f"--images={arrays}", *words
        )
        check(rows, probabilities(corrected), 10 if correction == "none" else 3)
        assert ("nats on the logits of 3" in outcome.out) == (correction != "none") and outcome.err == ""
        top = np.sort(corrected, axis=1)
        decided = top[:, -1] - top[:, -2] > 1e-4
        classes = np.array([int(row["class_1"]) for row in rows])
        errors = results[*key, correction, "all", "errors"]
        assert abs(np.sum(classes != digits.test_labels) - errors) <= np.sum(~decided)


def test_an_ensemble_is_the_mean_of_the_probabilities(sweep, teacher, digits, arrays, predict):
    weights, results = arrays_of(sweep.folder / "students"), results_of(sweep.folder)
    each = []
    for seed in range(2):
        bias = results["labels omit=3", seed, "test", "teacher_matched", "omitted", "bias"]
        logits = logits_of(weights, 4 + seed, digits.test_images)
        each.append(probabilities(logits + bias * (np.arange(10) == OMITTED)))
    words = ["--setting=labels omit=3", "--ensemble", "--correction=teacher_matched", f"--images={arrays}"]
    check(predict(sweep.folder, *words)[0], np.mean(each, axis=0), 3)
    weights = arrays_of(teacher.folder / "teachers")
    expected = probabilities(logits_of(weights, 1, digits.test_images))
    check(predict(teacher.folder, "--seed=1", f"--images={arrays}")[0], expected, 3)


def test_files_are_classified_as_the_same_arrays(teacher, digits, arrays, predict, tmp_path):
    """Grey pictures in folders of folders; one of no ending; text beside them and a hidden file."""
    root = tmp_path / "photos"
    names = ["a,b/0.png", "a,b/c/1.png", "z", "é.bmp"]
    for name, image in zip(names, digits.test_images, strict=False):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image[..., 0])
        picture.save(path, "PNG" if name == "z" else None)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    expected, _ = predict(teacher.folder, f"--images={arrays}", "--top_k=2")
    rows, outcome = predict(teacher.folder, f"--images={root}", "--top_k=2")
    assert [row.pop("image") for row in rows] == names
    for row, other in zip(rows, expected, strict=False):
        assert [row[f"class_{k}"] for k in (1, 2)] == [other[f"class_{k}"] for k in (1, 2)]
        assert float(row["probability_1"]) == pytest.approx(float(other["probability_1"]), abs=1e-5)
    assert "left out: 1 files in which pillow finds no image (notes.txt)" in outcome.err
    (alone,), _ = predict(teacher.folder, f"--images={root / names[2]}", "--top_k=2")
    assert alone.pop("image") == "z" and alone["class_1"] == rows[2]["class_1"]
    rows, outcome = predict(teacher.folder, f"--images={arrays}", "--top_k=99", "--quiet")
    assert len(rows[0]) == 1 + 3 * 10 and outcome.out == ""


def test_files_are_resized_as_in_training_and_faults_are_named(launch, tmp_path):
    """A run on pictures of 6 x 5, resized to 4: one that is cut short is refused or passed over."""
    root = samples.pictures(tmp_path / "pictures")
    from kd_jax import data

    dataset = data.load(str(root), image_size=4)
    flags = {"image_size": 4, "model": "mlp-8", "epochs": 3, "dataset": str(root), "validation_fraction": 0.1}
    run = samples.write_run(tmp_path / "run", dataset, spec="mlp-8", flags=flags)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("cat", "dog"):
        os.rename(root / "val" / name, photos / name)
    out = tmp_path / "out.csv"
    words = ["predict", run, f"--images={photos}", "--top_k=2", f"--out={out}"]
    assert launch(*words).status == 0
    rows = read_csv(out)
    weights = arrays_of(run / "teachers")
    expected = probabilities(logits_of(weights, 0, dataset.test_images))
    for row, shares in zip(rows, expected, strict=True):
        assert float(row["probability_1"]) == pytest.approx(shares.max(), abs=1e-5)
        assert row["name_1"] == ("cat", "dog")[int(row["class_1"])]
    refused = launch(*words)
    assert refused.status == 2 and "--out exists" in refused.err
    out.unlink()
    (photos / "cat" / "0.png").write_bytes((photos / "cat" / "0.png").read_bytes()[:-30])
    refused = launch(*words)
    assert refused.status == 2 and "1 of 4 images" in refused.err and "cat/0.png" in refused.err
    assert not out.exists()
    outcome = launch(*words, "--skip_unreadable")
    assert outcome.status == 0 and "left out: 1 of 4 images that cannot be read: cat/0.png" in outcome.err
    assert [row["image"] for row in read_csv(out)] == ["cat/1.png", "dog/0.png", "dog/1.png"]


def test_names_with_commas_and_letters_of_all_kinds():
    """Of equally probable classes the first comes first."""
    found = predictions.render(["a,b.png"], np.array([[0.25, 0.5, 0.25]]), ['kät, "a"', "ж", "=1"], 2)
    head, row = csv.reader(found.decode().splitlines())
    assert head == ["image", "class_1", "name_1", "probability_1", "class_2", "name_2", "probability_2"]
    assert row == ["a,b.png", "1", "ж", "0.5", "0", 'kät, "a"', "0.25"]
    names = ["a\rb.png", "a\nb.png"]
    found = predictions.render(names, np.full((2, 2), 0.5), ["a", "b"], 1)
    rows = csv.reader(io.StringIO(found.decode(), newline=""))
    assert [row[0] for row in rows] == ["image", *names]
