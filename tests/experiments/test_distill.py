"""What the flags of distill do to the students."""

import re

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_jax import data
from kd_jax.io import checkpoint
from kd_jax.stats.corrections import CORRECTIONS
from tests.experiments.runs import (
    SEEDS,
    TRAINING,
    Run,
    arrays_of,
    config_of,
    done,
    logits_of,
    read_csv,
    results_of,
    same_arrays,
    undecided,
)


def test_students_see_what_they_may_see_and_no_more(launch, home, toy, tmp_path):
    """Other pixels in what is left out, and in the test set, change nothing but what is measured there."""
    with np.load(home / "toy.npz") as held:
        changed = dict(held)
        original = held["train_images"]
    train, validation = data.split_validation(changed["train_labels"], 0.1)
    hidden = train[changed["train_labels"][train] == 1]
    for name, index in (("train_images", hidden), ("test_images", slice(None))):
        changed[name][index] = 255 - changed[name][index]
    np.savez(tmp_path / "changed.npz", **changed)
    # The very same teachers, said to be of the changed data, for they are not to change with them.
    variables, about = checkpoint.load(toy.folder / "teachers")
    about["data"]["fingerprint"] = data.load(tmp_path / "changed.npz").fingerprint
    checkpoint.save(tmp_path / "teacher" / "teachers", variables, about)
    runs = []
    places = {"as_was": ("toy.npz", toy.folder), "changed": (tmp_path / "changed.npz", tmp_path / "teacher")}
    for name, (path, teacher) in places.items():
        words = [f"--dataset={path}", *toy.words[1:4], "--seeds=2", "--learning_rates=0.05"]
        words += [f"--teacher={teacher}", "--omit=none,1"]
        run = Run(tmp_path / name, words, launch("distill", *words, f"--out={tmp_path / name}", draw=False))
        done(run)
        runs.append((arrays_of(run.folder / "students"), results_of(run.folder)))
    (arrays, results), (changed_arrays, changed_results) = runs
    for name, array in arrays.items():
        assert np.array_equal(array[2:], changed_arrays[name][2:])  # T=4 omit=1
        assert not np.array_equal(array[:2], changed_arrays[name][:2])  # T=4
    for seed in SEEDS:
        for key, value in results.items():
            if key[:3] == ("T=4 omit=1", seed, "validation") and key[3] != "test_tuned":
                assert changed_results[key] == value
        biases = [
            [found["T=4 omit=1", seed, "test", correction, "omitted", "bias"] for correction in CORRECTIONS]
            for found in (results, changed_results)
        ]
        others = [position for position, name in enumerate(CORRECTIONS) if name != "test_tuned"]
        assert [biases[0][position] for position in others] == [biases[1][position] for position in others]
        assert (
            biases[0][list(CORRECTIONS).index("test_tuned")]
            != biases[1][list(CORRECTIONS).index("test_tuned")]
        )
        # The prior is that of the classes, not the same for each: half of the six are of class 1.
        logits = logits_of(arrays, 2 + seed, original[validation])
        logits[:, 1] += biases[0][list(CORRECTIONS).index("prior_matched")]
        assert len(validation) == 6 and np.sum(logits.argmax(axis=1) == 1) == 3


def test_labels_need_no_teacher(launch, home, toy, tmp_path):
    words = [
        *toy.words[:4],
        "--loss=labels",
        "--seeds=2",
        "--omit=1",
        "--seen=0+1",
        f"--out={tmp_path / 'run'}",
    ]
    run = Run(tmp_path / "run", words, launch("distill", *words))
    done(run)
    config, results = config_of(run.folder), results_of(run.folder)
    assert config["teacher"] is None and {r["teacher_seed"] for r in config["runs"]} == {None}
    assert {s["temperature"] for s in config["settings"]} == {None}
    assert {key[0] for key in results} == {"labels omit=1", "labels seen=0+1"}
    assert {key[3] for key in results} == {*CORRECTIONS} - {"teacher_matched"}
    assert "agreement" not in {row["metric"] for row in read_csv(run.folder / "history.csv")}


def test_hard_label_follows_the_teachers_answers(distil, toy):
    run = distil("--loss=hard_label", "--alphas=0,1", "--omit=none")
    done(run)
    assert [s["name"] for s in config_of(run.folder)["settings"]] == ["labels", "hard_label"]
    kernels = arrays_of(run.folder / "students")["logits/kernel"]
    # The toy teachers err, so their answers are not the labels.
    assert not np.array_equal(kernels[0], kernels[2])


def test_the_answer_of_an_ensemble_has_no_temperature(launch, teacher, tmp_path):
    words = [*TRAINING, "--learning_rates=1e-2", f"--teacher={teacher.folder}", "--epochs=1"]
    words += ["--loss=hard_label", "--teacher_seeds=ensemble"]
    for name in ("0.01", "100"):
        outcome = launch("distill", *words, f"--temperatures={name}", f"--out={tmp_path / name}", draw=False)
        assert outcome.status == 0
    assert same_arrays(tmp_path / "0.01" / "students", tmp_path / "100" / "students")


@pytest.mark.slow
def test_validation_that_the_teacher_trained_on_is_not_shown_as_such(distil, toy, tmp_path):
    def rows(run):
        done(run)
        splits = {key[2] for key in results_of(run.folder) if key[0] == "teacher"}
        return splits, config_of(run.folder)["teacher"]["saw_validation"]

    assert rows(distil("--omit=none")) == ({"validation", "test"}, False)
    assert rows(distil("--omit=none", "--validation_fraction=0.3")) == ({"test"}, True)
    assert rows(distil("--omit=none", "--validation_fraction=0")) == ({"test"}, False)
    # A teacher that does not say what it was trained on.
    variables, about = checkpoint.load(toy.folder / "teachers")
    assert re.fullmatch("[0-9a-f]{64}", about.pop("validation_split"))
    checkpoint.save(tmp_path / "old" / "teachers", variables, about)
    assert rows(distil("--omit=none", f"--teacher={tmp_path / 'old'}")) == ({"test"}, True)


@pytest.mark.slow
def test_a_class_that_the_teacher_never_saw_either_is_noted(launch, distil, toy, tmp_path):
    words = [*toy.words, "--epochs=1", "--omit=2", f"--out={tmp_path / 'teacher'}"]
    assert launch("train_teacher", *words, draw=False).status == 0
    for omit, note in (
        ("none,1,1+2", "note: the teacher never saw class 2 either\n"),
        ("none,1", ""),
    ):
        outcome = distil("--epochs=1", f"--omit={omit}", f"--teacher={tmp_path / 'teacher'}").outcome
        assert (outcome.status, outcome.err) == (0, note)


def test_which_teacher_a_student_learns_from(distil):
    kernels = []
    expected: dict[str, tuple] = {
        "paired": ([0, 1, 0, 1], 2),
        "first": ([0] * 4, 1),
        "ensemble": ([None] * 4, 2),
    }
    for how, (seeds, count) in expected.items():
        run = distil(f"--teacher_seeds={how}", "--optimizer=sgd")  # Adam would enlarge rounding
        done(run)
        config = config_of(run.folder)
        assert [r["teacher_seed"] for r in config["runs"]] == seeds
        assert config["teacher"]["num_teachers"] == count
        assert {key[1] for key in results_of(run.folder) if key[0] == "teacher"} == set(range(count))
        kernels.append(arrays_of(run.folder / "students")["logits/kernel"])
    for run in range(4):
        assert np.allclose(kernels[0][run], kernels[1][run], atol=1e-4) == (run % 2 == 0)
        assert not np.allclose(kernels[0][run], kernels[2][run], atol=1e-4)


def test_a_shift_queries_the_teacher(launch, distil, toy):
    ask = """(lambda study, plan: [
        study.students.with_teachers(plan.tables[0], plan.teacher, plan.queried).teacher_logits is None,
        study.students.with_teachers(plan.tables[0], plan.teacher, plan.queried).teacher_variables is None,
    ])(STUDY, STUDY.make_plan(
        shared.run_config('', ''),
        shared.read(STUDY.Lists),
        shared.read(STUDY.DistillConfig),
        shared.values(),
    ))""".replace("STUDY", "__import__('experiments.studies.distill', fromlist=['x'])")
    words = [*toy.words[:4], f"--teacher={toy.folder}", "--model=mlp-8", "--out=x"]
    assert launch("distill", *words, ask=ask).value == [False, True]
    assert launch("distill", *words, "--translate=1", ask=ask).value == [True, False]
    # Student and teacher stand still, so that they agree on other examples because the images are shifted.
    agreements = []
    for words in ([], ["--translate=2"]):
        run = distil("--learning_rates=1e-30", "--epochs=1", *words)
        done(run)
        agreements.append(
            [r["value"] for r in read_csv(run.folder / "history.csv") if r["metric"] == "agreement"]
        )
    assert agreements[0] != agreements[1]


@pytest.mark.parametrize("flag", ["--rotate=1", "--stretch=0.1", "--flip", "--cutout=1", "--mixup=1"])
def test_every_augmentation_but_the_flip_queries_the_teacher(launch, toy, flag):
    """Of the flip alone, the logits on each image and on its mirror image are cached."""
    words = [*toy.words[:4], f"--teacher={toy.folder}", "--model=mlp-8", "--out=x"]
    module = "__import__('experiments.settings.augmentation', fromlist=['x'])"
    ask = f"(lambda a, o: [a.queries(o), a.only_flips(o)])({module}, shared.run_config('', ''))"
    only_flips = flag == "--flip"
    assert launch("distill", *words, ask=ask).value == [False, False]
    assert launch("distill", *words, flag, ask=ask).value == [not only_flips, only_flips]
    assert launch("distill", *words, flag, "--translate=1", "--flip", ask=ask).value == [True, False]


def test_students_may_begin_as_their_teachers_did(launch, toy, distil, tmp_path):
    """Adam at a rate of 1e-12 moves nothing: what is saved is where each run began."""
    words = [*toy.words[:4], "--learning_rate=1e-12", "--seeds=2", f"--out={tmp_path / 'teacher'}"]
    done(Run(tmp_path / "teacher", words, launch("train_teacher", *words, draw=False)))
    still = [f"--teacher={tmp_path / 'teacher'}", "--learning_rates=1e-12", "--omit=1"]
    run = distil(*still, "--student_init=random,teacher")
    done(run)
    assert [s.get("student_init") for s in config_of(run.folder)["settings"]] == [None, "teacher"]
    theirs, ours = arrays_of(tmp_path / "teacher" / "teachers"), arrays_of(run.folder / "students")
    for name in ("hidden_0/kernel", "logits/kernel"):
        own, shared = ours[name][:2], ours[name][2:]
        np.testing.assert_allclose(shared, theirs[name], atol=1e-8)
        assert np.abs(own - theirs[name]).max(axis=(1, 2)).min() > 0.1
    alone = arrays_of(
        distil(*still, "--student_init=random").folder / "students"
    )  # a word changes no other's draws
    np.testing.assert_allclose(alone["logits/kernel"], ours["logits/kernel"][:2], atol=1e-6)
    refused = distil(*still, "--student_init=teacher", "--model=mlp-9")
    assert refused.outcome.status == 2
    assert (
        "--student_init=teacher needs its network: expected --model=mlp-8; given mlp-9" in refused.outcome.err
    )


def test_teacher_and_student_have_a_normalisation_each(launch, home, toy, distil, tmp_path):
    """The teacher's is in its checkpoint, with which distil asks it; the student's is none."""
    words = [*toy.words, "--normalize=data", f"--out={tmp_path / 'teacher'}"]
    done(Run(tmp_path / "teacher", words, launch("train_teacher", *words, draw=False)))
    with np.load(home / "toy.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
        train, _ = data.split_validation(file["train_labels"], 0.1)
        pixels = file["train_images"][train] / 255.0
    _, metadata = checkpoint.load(tmp_path / "teacher" / "teachers")
    mean, std = metadata["model_options"]["normalize"]
    np.testing.assert_allclose([mean, std], [[pixels.mean()], [pixels.std()]], rtol=1e-12)
    run = distil("--normalize=none", f"--teacher={tmp_path / 'teacher'}")
    done(run)
    _, metadata = checkpoint.load(run.folder / "students")
    assert metadata["model_options"]["normalize"] is None
    arrays = arrays_of(tmp_path / "teacher" / "teachers")
    normalised = (images - 255 * mean[0]) / std[0]  # `logits_of` divides by 255
    for folder in (tmp_path / "teacher", run.folder):
        for seed in range(2):
            logits = logits_of(arrays, seed, normalised)
            errors = results_of(folder)["teacher", seed, "test", "none", "all", "errors"]
            assert abs(errors - np.sum(np.argmax(logits, axis=-1) != labels)) <= undecided(logits)


def test_no_validation_split(distil):
    run = distil("--validation_fraction=0", draw=True)
    assert " train accuracy " in done(run).out
    config, results = config_of(run.folder), results_of(run.folder)
    assert (config["data"]["train"], config["data"]["validation"]) == (60, 0)
    assert {key[2] for key in results} == {"test"}
    assert {key[3] for key in results} == {"none", "test_tuned", "teacher_matched"}
    assert {row["split"] for row in read_csv(run.folder / "history.csv")} == {"train"}


def test_any_number_of_runs_vmapped_gives_the_same_students(distil):
    """But for rounding, which Adam would enlarge."""
    one, *others = (distil("--optimizer=sgd", f"--vmap_size={size}") for size in (1, 0, 3))
    expected = arrays_of(one.folder / "students")
    for run in others:
        done(run)
        for name, array in arrays_of(run.folder / "students").items():
            np.testing.assert_allclose(array, expected[name], atol=1e-4)
        assert results_of(run.folder).keys() == results_of(one.folder).keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        # More than the data hold, which are wrapped around; and no hidden layer.
        ["--batch_size=1000", "--schedule=constant", "--model=mlp"],
        ["--batch_size=7", "--epochs=3", "--checkpoint_every=2", "--optimizer=sgd", "--schedule=steps"],
        ["--rotate=10", "--stretch=0.1", "--translate=1", "--max_norm=1"],
        [
            "--flip",
            "--cutout=2",
            "--mixup=0.4",
            "--translate=1",
            "--normalize=data",
            "--teacher_seeds=ensemble",
        ],
        ["--precision=bfloat16", "--optimizer=adamw", "--schedule=warmup_cosine", "--dropout=0.5"],
        ["--seen=0", "--omit=none", "--temperatures=1e-2,1e4", "--weight_decays=1e-3"],
    ],
    ids=lambda words: words[0],
)
def test_flags_that_are_to_work(distil, words):
    run = distil(*words, draw=True)
    done(run)
    assert all(np.isfinite(leaf).all() for leaf in arrays_of(run.folder / "students").values())


def test_a_run_that_diverges_is_left_out_and_leaves_the_others_alone(distil):
    run = distil("--learning_rates=0.05,1e30", "--omit=1", "--tensorboard", draw=True)
    assert run.outcome.status == 0
    assert run.outcome.err.startswith("note: 2 of 4 runs diverged")
    said = " ".join(run.outcome.out.split())
    assert "2 of 4 runs diverged and are left out of all means: T=4 lr=1e+30 omit=1 (2)." in said
    calm = distil("--learning_rates=0.05,0.06", "--omit=1")
    done(calm)
    results, undisturbed = results_of(run.folder), results_of(calm.folder)
    same = {key: value for key, value in results.items() if "lr=0.05" in key[0]}
    assert same and all(undisturbed[key] == value for key, value in same.items())
    bad = {key: value for key, value in results.items() if "lr=1e+30" in key[0]}
    row = ("test", "none", "all", "diverged")
    assert bad == {("T=4 lr=1e+30 omit=1", seed, *row): 1 for seed in range(2)}
    seen, beside = (arrays_of(folder.folder / "students") for folder in (run, calm))
    for name, leaf in seen.items():
        assert np.isfinite(leaf).all()
        np.testing.assert_array_equal(leaf[:2], beside[name][:2])
    for name in ("history.csv", "bias_curve.csv"):
        assert {row["setting"] for row in read_csv(run.folder / name)} == {"T=4 lr=0.05 omit=1"}
    refused = distil(f"--teacher={run.folder}", "--teacher_setting=T=4 lr=1e+30 omit=1").outcome
    assert refused.status == 2 and "diverged" in refused.err and refused.err.count("\n") == 1
    assert distil(f"--teacher={run.folder}", "--teacher_setting=T=4 lr=0.05 omit=1").outcome.status == 0


def test_where_all_diverge_the_report_says_so(distil):
    run = distil("--learning_rates=1e30", draw=True)
    assert run.outcome.status == 0 and "There is no answer: all 4 runs diverged." in run.outcome.out
    assert "There is no answer" in (run.folder / "report.html").read_text()


def test_quietly_and_for_tensorboard(launch, distil):
    """Nothing on stdout, all the files; TensorBoard's are made anew, not added to, by the same command."""
    run = distil("--quiet", "--tensorboard", "--checkpoint_every=1")
    assert done(run).out == "" and (run.folder / "report.md").is_file()
    seeds: dict[tuple[str, str, int], list[float]] = {}
    for row in read_csv(run.folder / "history.csv"):
        if row["metric"] == "accuracy":
            key = row["setting"], f"accuracy/{row['split']}", int(row["epoch"])
            seeds.setdefault(key, []).append(float(row["value"]))
    for (setting, _, *rest), value in results_of(run.folder).items():
        if rest == ["test", "none", "all", "accuracy"] and setting != "teacher":
            seeds.setdefault((setting, "test/accuracy", 2), []).append(value)
    expected = {key: pytest.approx(np.mean(values)) for key, values in seeds.items()}
    assert len(expected) == 2 * (2 + 2 + 1)
    for _ in range(2):
        found = []
        for folder in (run.folder / "tensorboard").iterdir():
            events = EventAccumulator(str(folder))
            events.Reload()
            for tag in ("accuracy/train", "accuracy/validation", "test/accuracy"):
                found += [((folder.name, tag, event.step), event.value) for event in events.Scalars(tag)]
        assert len(found) == len(expected) and dict(found) == expected
        again = launch("distill", *run.words, f"--out={run.folder}", draw=False)
        assert again.status == 0 and again.out == "" and again.err == ""
