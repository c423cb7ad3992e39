"""Several losses by one command: programs one after another, one run folder."""

import pytest

from tests.experiments.runs import arrays_of, config_of, done, results_of

WORDS = ("--alphas=0,1", "--temperatures=4", "--crd_negatives=3", "--epochs=1", "--omit=1")


@pytest.mark.slow
def test_one_command_trains_every_program_into_one_folder(distil):
    """Their students are those of each program alone, and the connector is in no checkpoint of students."""
    run = distil(*WORDS, "--loss=soft", "--feature_loss=none,crd")
    done_quietly = run.outcome
    assert done_quietly.status == 0 and "the teacher's layers are cached" in done_quietly.err
    config = config_of(run.folder)
    names = ["labels omit=1", "T=4 omit=1", "labels crd omit=1", "T=4 crd omit=1"]
    assert [setting["name"] for setting in config["settings"]] == names
    assert [one["run"] for one in config["runs"]] == list(range(8))
    results = results_of(run.folder)
    assert {key[0] for key in results} == {*names, "teacher"}
    together = arrays_of(run.folder / "students")
    alone = arrays_of(done_folder(distil(*WORDS)))
    assert set(together) == set(alone) == {"hidden_0/kernel", "hidden_0/bias", "logits/kernel", "logits/bias"}
    for name, array in alone.items():
        assert array.tobytes() == together[name][:4].tobytes()
    assert not (run.folder / "checkpoints").exists()


def done_folder(run):
    done(run)
    return run.folder / "students"


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--feature_loss=sp", "--teacher_seeds=ensemble"], "one teacher"),
        (["--feature_loss=at"], "places of a map"),
        (["--feature_loss=sp", "--student_layers=hidden_0", "--teacher_layers=hidden_9"], "hidden_0"),
        (["--student_layers=hidden_0"], "mean nothing here"),
        (["--feature_loss=crd", "--transfer=uniform_noise", "--omit=none"], "--transfer=own"),
    ],
)
def test_what_a_feature_loss_cannot_do_costs_one_line(distil, words, expected):
    run = distil(*words)
    assert run.outcome.status == 2 and run.outcome.err.count("\n") == 1 and expected in run.outcome.err
    assert not run.folder.exists()
