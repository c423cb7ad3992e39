"""Data of the user: changed, damaged, in folders, in places with odd names."""

import itertools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import test_tfds
from tests.experiments.runs import config_of, done, snapshot


def test_a_changed_data_set_is_another_run(launch, home, toy, tmp_path):
    """Also where the flags that differ would be allowed to."""
    shutil.copy(home / "toy.npz", tmp_path / "own.npz")
    words = [f"--dataset={tmp_path}/own.npz", *toy.words[1:], f"--out={tmp_path}/run"]
    assert launch("train_teacher", *words).status == 0
    with np.load(home / "toy.npz") as held:
        np.savez(tmp_path / "own.npz", **(dict(held) | {"test_images": 255 - held["test_images"]}))
    before = snapshot(tmp_path)
    for more in ([], ["--vmap_size=1"]):
        outcome = launch("train_teacher", *words, *more)
        assert outcome.status == 2 and "holds another run" in outcome.err and "other data" in outcome.err
    assert snapshot(tmp_path) == before


def test_another_teacher_of_the_same_name_is_another_run(launch, home, toy, distil, tmp_path):
    shutil.copytree(toy.folder, tmp_path / "teacher")
    run = distil(f"--teacher={tmp_path}/teacher", out=str(tmp_path / "run"))
    done(run)
    shutil.rmtree(tmp_path / "teacher")
    assert launch("train_teacher", *toy.words, "--epochs=1", f"--out={tmp_path}/teacher").status == 0
    before = snapshot(tmp_path)
    outcome = launch("distill", *run.words, f"--out={run.folder}")
    assert outcome.status == 2 and "another teacher" in outcome.err and snapshot(tmp_path) == before


def test_the_user_is_told_of_a_damaged_cache(launch, tmp_path):
    for split, number in itertools.product(("train", "val"), range(4)):
        place = tmp_path / "images" / split / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(4, k=number, dtype=np.uint8) * 255).save(place / f"{number}.png")
    words = [f"--dataset={tmp_path / 'images'}", "--model=mlp-8", "--omit=2", f"--out={tmp_path / 'run'}"]
    before = set(Path(os.environ["KD_JAX_CACHE"]).glob("*"))
    refused = launch("train_teacher", *words)  # for its --omit, once the images are there
    (cached,) = set(Path(os.environ["KD_JAX_CACHE"]).glob("*")) - before
    whole = cached.read_bytes()
    cached.write_bytes(whole[:-30])
    told = launch("train_teacher", *words)
    assert re.fullmatch("error: --omit .*\n", refused.err) and told.err.endswith(refused.err)
    note = f"note: the cached arrays in {cached} are damaged and are made anew: "
    assert told.err.startswith(note) and told.err.count("\n") == 2
    assert cached.read_bytes() == whole and launch("train_teacher", *words) == refused


def test_a_mask_that_keeps_only_classes_without_examples(launch, home, toy, tmp_path):
    """TFDS declares ten classes here, of which the training split has two."""
    images = np.random.RandomState(0).randint(0, 256, (12, 6, 5, 3), np.uint8)
    test_tfds.prepare(tmp_path, splits={name: (images, [0, 1] * 6) for name in ("train", "test")})
    words = ["--dataset=cifar100", f"--data_dir={tmp_path}", "--model=mlp-8", "--epochs=1"]
    before = snapshot(tmp_path)
    for name, more in (
        ("distill", ["--loss=labels", "--omit=none,0+1"]),
        ("distill", ["--loss=labels", "--seen=7+8"]),
        ("train_teacher", ["--omit=0+1"]),
    ):
        outcome = launch(name, *words, *more, f"--out={tmp_path / 'run'}")
        assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1, outcome
        assert "nothing left after masking: expected a class that has training examples" in outcome.err
    assert snapshot(tmp_path) == before


def test_a_folder_of_images(launch, home, tmp_path):
    """From files to students: what cannot be read is told each time, classes go by their names."""
    order = np.random.RandomState(0)
    for split, number in (("train", 12), ("val", 4)):
        for label, name in enumerate(("big dog", "cat", "cow")):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for index in range(number):
                image = order.randint(0, 90, (6, 5, 3)).astype(np.uint8)
                image[label] = 255
                Image.fromarray(image).save(tmp_path / "set" / split / name / f"{index}.png")
    bad = tmp_path / "set" / "train" / "cow" / "bad.jpg"
    bad.touch()
    words = [f"--dataset={tmp_path / 'set'}", "--model=mlp-8", "--epochs=2", "--batch_size=8"]
    teach = [*words, "--omit=cow", f"--out={tmp_path / 'teacher'}"]
    outcome = launch("train_teacher", *teach)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1
    assert "1 of 49 images" in outcome.err and "train/cow/bad.jpg (Unidentified" in outcome.err
    note = f"note: 1 file that cannot be read is left out of {tmp_path / 'set'}\n"
    for _ in range(2):  # decoded, and from the cache
        outcome = launch("train_teacher", *teach, "--skip_unreadable", draw=False)
        assert outcome.status == 0 and outcome.err == note, outcome
    bad.unlink()
    words += ["--omit=none,cat,big dog+cow", f"--teacher={tmp_path / 'teacher'}", f"--out={tmp_path / 'run'}"]
    outcome = launch("distill", *words, draw=False)
    assert outcome.status == 0 and "never saw class cow either" in outcome.err, outcome
    config = config_of(tmp_path / "run")
    assert [setting["omitted"] for setting in config["settings"]] == [[], [1], [0, 2]]
    assert config["data"]["class_names"] == ["big dog", "cat", "cow"]
    assert (config["flags"]["image_size"], config["flags"]["skip_unreadable"]) == (None, True)
    words[-1] = f"--out={tmp_path / 'small'}"
    outcome = launch("distill", *words, "--image_size=4", draw=False)
    assert outcome.status == 2 and "teacher of images of another size: expected 6x5x3" in outcome.err


@pytest.mark.slow
def test_a_file_of_medmnist_from_teacher_to_students(launch, home, toy, tmp_path):
    """Its validation split is the validation split, and config.json says how the file was read."""
    with np.load(home / "toy.npz") as held:
        arrays = {key: held[key][:, None] if key.endswith("labels") else held[key] for key in held}
    validation = {"val_images": arrays["test_images"][:7], "val_labels": arrays["test_labels"][:7]}
    np.savez(tmp_path / "medmnist.npz", **arrays, **validation)
    words = [f"--dataset={tmp_path / 'medmnist.npz'}", *toy.words[1:4]]
    note = "val_images are the validation split"
    outcome = launch("train_teacher", *words, f"--out={tmp_path / 'teacher'}", draw=False)
    assert (outcome.status, outcome.err) == (0, f"note: {tmp_path / 'medmnist.npz'}: {note}\n")
    words += [f"--teacher={tmp_path / 'teacher'}", "--omit=none,1", f"--out={tmp_path / 'run'}"]
    assert launch("distill", *words, draw=False).status == 0
    for name in ("teacher", "run"):
        about = config_of(tmp_path / name)["data"]
        assert (about["train"], about["validation"], about["notes"]) == (60, 7, [note])


def test_folders_with_odd_names(launch, home, distil, toy):
    for name in ("größe 数字", "a/b/c"):
        (run := distil("--epochs=1", out=str(home / name))) and done(run)
        assert (home / name / "report.md").is_file()
    asked = launch("distill", "--out=~/runs", ask="str(shared.require_folder('out', 'runs/a'))").value
    assert asked == os.path.expanduser("~/runs")


@pytest.mark.slow
def test_students_take_their_teachers_data(launch, home, tmp_path):
    """The dataset, how its images are read and the normalisation, where no flag says so."""
    for label, name in enumerate(("cat", "cow")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(8):
            image = np.random.RandomState(9 * label + index).randint(0, 256, (6, 5, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "set" / name / f"{index}.png")
    (tmp_path / "set" / "cow" / "bad.png").touch()
    words = ["--model=mlp-4", "--epochs=1", "--batch_size=8"]
    reading = ["--image_size=4", "--skip_unreadable", "--test_fraction=0.25", "--normalize=data"]
    teach = [f"--dataset={tmp_path / 'set'}", *words, *reading, f"--out={tmp_path / 'teacher'}"]
    assert launch("train_teacher", *teach, draw=False).status == 0
    words += [f"--teacher={tmp_path / 'teacher'}"]
    told = launch("distill", *words, f"--out={tmp_path / 'run'}", draw=False)
    assert told.status == 0 and f"as the teacher: --dataset={tmp_path / 'set'} --image_size=4" in told.out
    teacher, run = config_of(tmp_path / "teacher"), config_of(tmp_path / "run")
    for flag in ("dataset", "image_size", "skip_unreadable", "test_fraction", "normalize"):
        assert run["flags"][flag] == teacher["flags"][flag] is not None
    assert run["data"]["fingerprint"] == teacher["data"]["fingerprint"]
    again = launch("distill", *words, f"--out={tmp_path / 'run'}", draw=False)
    assert again.status == 0 and "is complete" in again.out
    for more, message in (
        ("--dataset=digits", "teacher of another dataset"),
        ("--image_size=5", "teacher of images of another size: expected 4x4x3, by --image_size; given 5x5x3"),
        ("--test_fraction=0.5", "teacher of another dataset"),
    ):
        outcome = launch("distill", *words, more, f"--out={tmp_path / 'other'}")
        assert outcome.status == 2 and message in outcome.err and outcome.out == "", outcome
    own = launch("distill", *words, "--normalize=none", f"--out={tmp_path / 'other'}", draw=False)
    assert own.status == 0 and config_of(tmp_path / "other")["flags"]["normalize"] == "none"
    (tmp_path / "set").rename(tmp_path / "moved")
    lost = launch("distill", *words, f"--out={tmp_path / 'lost'}")
    assert lost.status == 2 and "the teacher's dataset is not there: expected --dataset=" in lost.err
