"""Images from a teacher: the file, its provenance, students taught on them, and what is refused."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from kd_jax.data import synthetic
from kd_jax.io import checkpoint
from tests.experiments.runs import config_of, done, snapshot

QUICK = ["--num_images=5", "--updates=3", "--batch_size=8"]


@pytest.fixture(scope="module")
def made(launch, home, toy):
    """Images of the toy's class 2 from both of its teachers."""
    path = home / "made.npz"
    outcome = launch("synthesize", toy.folder, "--classes=2", *QUICK, f"--out={path}")
    assert outcome.status == 0 and outcome.err == "", outcome
    return path, outcome


def test_the_file_says_who_made_it_and_how(made, toy):
    path, outcome = made
    origin = synthetic.read_origin(str(path))
    about = origin.provenance
    assert about["teacher"]["sha256"] == checkpoint.read_manifest(toy.folder / "teachers")[1]
    assert about["method"] == "class_impressions" and about["classes"] == [2]
    assert about["settings"]["updates"] == 3 and about["settings"]["seed"] == 0
    assert about["settings"]["scales"] == "1,0.1"  # the default that they were made with
    np.testing.assert_array_equal(origin.made_by, np.repeat([0, 1], 5))
    with np.load(path) as held:
        assert held["train_images"].shape == (10, 6, 5, 1) and held["train_images"].dtype == np.uint8
        assert held["test_images"].shape == (2, 6, 5, 1) and set(held["train_labels"]) == {2}
        assert len(np.unique(held["train_images"], axis=0)) == 10
        assert held["class_names"].tolist() == ["0", "1", "2"]
    assert re.match(r"10 training and 2 test images of 2 from 2 teachers in \d+ s; ", outcome.out)
    with Image.open(path.with_suffix(".png")) as sheet:
        assert sheet.size == ((12 * 6 + 1) * 10, (2 * 7 + 1) * 10)


@pytest.mark.slow
def test_the_same_command_makes_the_same_images_and_another_seed_others(launch, made, toy, tmp_path):
    images = []
    for number, words in enumerate(([], ["--seed=1"], ["--untrained"])):
        out = tmp_path / f"{number}.npz"
        assert launch("synthesize", toy.folder, "--classes=2", *QUICK, *words, f"--out={out}").status == 0
        images.append(np.load(io.BytesIO(out.read_bytes()))["train_images"])
    np.testing.assert_array_equal(images[0], np.load(made[0])["train_images"])
    assert np.any(images[0] != images[1]) and np.any(images[0] != images[2])
    assert synthetic.read_origin(str(tmp_path / "2.npz")).provenance["teacher"]["untrained"] is True


@pytest.mark.slow
def test_students_of_a_mixture(made, distil):
    """Its shares are settings; config.json and the report say where the images come from, and show them."""
    path, _ = made
    run = distil("--omit=2", "--alphas=1", f"--transfer=own+{path}", "--transfer_shares=0,0.3", draw=True)
    done(run)
    config = config_of(run.folder)
    names = [setting["name"] for setting in config["settings"]]
    assert names == [f"T=4 omit=2 transfer_share={share}" for share in ("0", "0.3")]
    assert [setting["transfer_share"] for setting in config["settings"]] == [0.0, 0.3]
    assert config["transfer"]["examples"] == config["data"]["train"]
    assert config["transfer"]["origin"] == synthetic.read_origin(str(path)).provenance
    assert (run.folder / "impressions.png").read_bytes()[:4] == b"\x89PNG"
    markdown = (run.folder / "report.md").read_text()
    assert (
        "## Synthesised images" in markdown and config["transfer"]["origin"]["teacher"]["sha256"] in markdown
    )
    assert (run.folder / "report.html").read_text().count("Synthesised images") >= 1
    results = json.loads((run.folder / "summary.json").read_text())["results"]
    assert {"teacher_matched", "prior_matched"} <= {row["correction"] for row in results}


@pytest.mark.slow
def test_students_of_the_images_alone(made, distil):
    run = distil("--omit=none", f"--transfer={made[0]}")
    done(run)
    config = config_of(run.folder)
    assert config["transfer"]["examples"] == 5  # each student sees its own teacher's
    assert config["transfer"]["origin"]["method"] == "class_impressions"


@pytest.mark.slow
def test_students_of_a_generator(launch, teacher, tmp_path):
    words = ["--model=mlp-8", "--epochs=2", "--batch_size=128", "--seeds=2", f"--teacher={teacher.folder}"]
    words += ["--transfer=generator", "--generator_width=2", "--checkpoint_every=1", f"--out={tmp_path}/run"]
    for words_of in (words, [*words[:-1], "--generator_objective=dafl", f"--out={tmp_path}/other"]):
        outcome = launch("distill", *words_of, draw=False)
        assert outcome.status == 0 and outcome.err == "", outcome
    assert config_of(tmp_path / "run")["flags"]["transfer"] == "generator"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--classes=9"], "--classes names no class '9': expected classes .* joined by .*, or all; "),
        (["--classes=cat"], "--classes names no class 'cat'"),
        (["--classes=0,1"], "--classes names one set of classes"),
        (["--classes="], "--classes is missing"),
        (["--classes=2", "--method=deep_inversion"], "deep_inversion has no statistics to match.*mlp-8"),
        (["--classes=2", "--out={made}"], "--out exists"),
        (["--classes=2", "--out={toy}/new.npz"], "--out lies inside another run"),
        (["--classes=2", "--out={home}/new"], "--out names no .npz"),
        (["--classes=2", "--scales=1"], "--scales are two"),
        (["--classes=2", "--pixel_rate=0"], "--pixel_rate out of range"),
        (["--classes=2", "--statistics=1"], "--statistics means nothing here"),
        (["--classes=2", "--total_variation=-1"], "--total_variation out of range"),
        (["--classes=2", "--translate=5"], "--translate out of range: expected at most 4 pixels"),
        (["--classes=2", "--num_images=0"], "--num_images cannot be this"),
        (["--classes=2", "--out={home}/toy.npz/new.npz"], "--out cannot be written"),
        (["--classes=2", "--out=/dev/null/new.npz"], "--out cannot be written"),
        (["--classes=2", "--out={home}/sheet.npz"], "--out exists: .*sheet.png"),
    ],
)
def test_bad_input_of_synthesize(launch, home, toy, made, words, message):
    places = {"made": made[0], "toy": toy.folder, "home": home}
    (home / "sheet.png").touch()
    before = snapshot(home)
    words = [f"--out={home}/new.npz", *(word.format(**places) for word in words)]
    outcome = launch("synthesize", toy.folder, *words)
    assert outcome.status == 2 and re.fullmatch(f"error: .*({message}).*\n", outcome.err), outcome.err
    assert snapshot(home) == before


def test_no_teacher_to_make_images_from(launch, home):
    for words, message in (((), "expected synthesize RUN"), ((f"{home}/none",), "no teacher: expected")):
        outcome = launch("synthesize", *words, "--classes=2", f"--out={home}/new.npz")
        assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "words, message",
    [
        (["--transfer=own+{home}/toy.npz"], "--transfer names no images of a teacher|is the dataset itself"),
        (["--transfer=own+mnist"], "--transfer names no images of a teacher"),
        (["--transfer=own+{home}/none.npz"], "none.npz"),
        (["--transfer=own+{made}", "--alphas=0.5"], "a transfer set without labels"),
        (["--transfer=own+{made}", "--transfer_shares=1.5"], "--transfer_shares out of range"),
        (["--transfer_shares=0.5"], "--transfer_shares mean nothing here"),
        (["--transfer=own+{made}", "--teacher_seeds=first"], "teachers cannot be paired with images"),
        (["--transfer=generator"], "cannot draw them: .*multiples of 4; given 6 x 5"),
        (["--generator_rate=1"], "--generator_rate means nothing here"),
    ],
)
def test_bad_input_of_students(launch, home, toy, made, words, message):
    before = snapshot(home)
    words = [word.format(home=home, made=made[0]) for word in words]
    words = [*toy.words[:4], f"--teacher={toy.folder}", *words, f"--out={home}/new"]
    outcome = launch("distill", *words)
    assert outcome.status == 2 and re.fullmatch(f"error: .*({message}).*\n", outcome.err), outcome.err
    assert snapshot(home) == before
