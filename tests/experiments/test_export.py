"""export: a program that JAX and NumPy alone can use; weights in plain names; the commands of the guide."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from experiments.gallery import pages
from experiments.studies import export
from tests.experiments.runs import arrays_of, logits_of, read_csv, results_of
from tests.experiments.test_predict import check, probabilities

SETTING, RUN, OMITTED = "T=4 omit=3", 7, 3  # the fourth setting's second seed


def corrected(sweep, images):
    """(f64[N,K], the bias): NumPy's logits of that network under prior_matched."""
    bias = results_of(sweep.folder)[SETTING, 1, "test", "prior_matched", "omitted", "bias"]
    logits = logits_of(arrays_of(sweep.folder / "students"), RUN, images)
    return logits + bias * (np.arange(10) == OMITTED), bias


def use(folder, program, images):
    """What the lines that are printed make of other images, in a process that imports JAX and NumPy alone."""
    np.save(folder / "given.npy", images)
    lines = program.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("images = ")]
    lines[place] = 'images = np.load("given.npy")'
    more = "import sys\nassert 'kd_jax' not in sys.modules\nnp.save('found.npy', probabilities)"
    command = [sys.executable, "-I", "-W", "error", "-c", "\n".join([*lines, more])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return np.load(folder / "found.npy")


def about(path):
    """What the json file says, whose sum is that of the file."""
    found = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_stablehlo_program_is_used_without_this_code(sweep, digits, launch, tmp_path):
    out = tmp_path / "student.stablehlo"
    outcome = launch("export", sweep.folder, f"--setting={SETTING}", "--seed=1", f"--out={out}")
    assert outcome.status == 0 and outcome.err == "", outcome
    program = outcome.out.partition("used so:\n\n")[2]
    assert len(list(filter(None, program.splitlines()))) == 6
    expected, bias = corrected(sweep, digits.test_images)
    assert str(out) in program  # so the lines work where the command was given
    np.testing.assert_allclose(use(tmp_path, program, digits.test_images), probabilities(expected), atol=1e-5)
    found = about(out)
    assert found["image_shape"] == [8, 8, 1] and found["class_names"] == list(map(str, range(10)))
    assert (found["correction"], found["bias"], found["omitted"]) == ("prior_matched", bias, [OMITTED])
    assert (found["setting"], found["seed"], found["model"]) == (SETTING, 1, "mlp-16")


def test_the_guide_has_the_lines_that_are_printed():
    guide = (pages.REPOSITORY / "experiments" / "README.md").read_text()
    assert export.PROGRAM.format(name='"student.stablehlo"', shape="28, 28, 3") in guide


def test_plain_names_are_the_weights_with_the_correction(sweep, digits, launch, tmp_path):
    out = tmp_path / "student.safetensors"
    words = [f"--setting={SETTING}", "--seed=1", "--format=safetensors", f"--out={out}"]
    assert launch("export", sweep.folder, *words).status == 0
    held = safetensors.numpy.load_file(out)
    arrays = {name.replace(".", "/"): array[None] for name, array in held.items()}
    expected, _ = corrected(sweep, digits.test_images)
    np.testing.assert_allclose(logits_of(arrays, 0, digits.test_images), expected, atol=1e-4)
    assert about(out)["names"] == "kd_jax" and about(out)["normalize"] is None
    refused = launch("export", sweep.folder, *words)
    assert refused.status == 2 and "--out exists" in refused.err
    out.unlink()
    refused = launch("export", sweep.folder, *words)  # the json file is still there
    assert refused.status == 2 and "--out exists" in refused.err and not out.exists()


COMMANDS = re.search(r"## Using a student.*?```sh\n(.*?)```", (pages.REPOSITORY / "experiments/README.md").read_text(), re.DOTALL)  # fmt: skip  # noqa: E501


def blood(path):
    """A file as MedMNIST's: 28 x 28 in colours, 4 of its 8 classes, which a bright quarter tells apart."""
    random = np.random.RandomState(0)
    parts = {}
    for split, number in {"train": 120, "val": 40, "test": 60}.items():
        images = random.randint(0, 120, (number, 28, 28, 3)).astype(np.uint8)
        labels = np.arange(number) % 4
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 2)
            image[14 * row : 14 * row + 14, 14 * column : 14 * column + 14] += 90
        parts |= {f"{split}_images": images, f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(path, **parts)
    return parts["test_images"], parts["test_labels"][:, 0].astype(int)


@pytest.mark.slow
def test_four_commands_lead_from_medmnist_to_a_corrected_student(launch, home):
    """Those of the guide, with fewer epochs and smaller networks."""
    assert COMMANDS
    images, labels = blood(home / "bloodmnist.npz")
    lines = COMMANDS[1].replace("\\\n", "").splitlines()
    assert len(lines) == 4
    less = {"train_teacher": ["--model=cnn-8-bn", "--epochs=3", "--batch_size=20"]}
    less["distill"] = ["--model=cnn-4-bn", "--epochs=3", "--seeds=2", "--batch_size=20"]
    for line in lines:
        program, entry, *words = shlex.split(line)
        outcome = launch(entry, *words, *less.get(entry, []), draw=False)
        assert program == "./launch.sh" and outcome.status == 0, outcome
    program = outcome.out.partition("used so:\n\n")[2]
    found = use(home, program, images)
    assert found.shape == (60, 4) and os.listdir(home)
    rows = read_csv(home / "predictions.csv")
    check(rows, found.astype(np.float64), 3)
    results = results_of(home / "runs" / "blood")
    (name,) = {key[0] for key in results if key[0].endswith("omit=3")}
    errors = results[name, 0, "test", "prior_matched", "all", "errors"]
    top = np.sort(np.log(np.maximum(found, 1e-30)), axis=1)
    undecided = int(np.sum(top[:, -1] - top[:, -2] < 1e-4))
    assert abs(np.sum(found.argmax(axis=1) != labels) - errors) <= undecided
    assert len({int(row["class_1"]) for row in rows}) > 1
