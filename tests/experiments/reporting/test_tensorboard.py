"""tensorboard/ as TensorBoard itself reads it: scalars and hparams against numbers by hand."""

import json
import math

import pytest
import scipy.stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from experiments.reporting import tensorboard
from kd_jax.io import run_config, run_folder
from kd_jax.stats.rows import HistoryRow, ResultRow
from tests.io.test_run_folder import write_tested

SOFT, SLASH = "T=4 omit=3", "labels transfer=a/../b"
SETTINGS = [
    {"name": SOFT, "omitted": [3, 7], "temperature": 4.0, "alpha": 1.0, "weight_decay": 0.0},
    {"name": SLASH, "omitted": [], "temperature": None, "alpha": 0.0, "weight_decay": 0.0},
]
VALUES = {
    (SOFT, 1): (0.5, 0.6, 0.4),
    (SOFT, 2): (0.7, 0.8, 0.9),
    (SLASH, 1): (0.25, 0.25, 0.25),
    (SLASH, 2): (math.inf, 0.5, 0.5),
}
"""Validation accuracies of three seeds after two epochs."""


def config_of(teachers):
    runs = [
        {"run": run, "setting": setting["name"], "seed": seed, "teacher_seed": seed % teachers}
        for run, (setting, seed) in enumerate((s, n) for s in SETTINGS for n in range(3))
    ]
    flags = {"dataset": "toy", "model": "mlp-8", "epochs": 2, "batch_size": 4, "seeds": 3, "teacher": None}
    data = {"name": "toy", "fingerprint": "ab", "num_classes": 9, "class_names": list("abcdefghi")}
    data |= {"train": 1, "validation": 1, "test": 1}
    fixed = {"format": 2, "experiment": "distill", "command": "", "versions": {}, "device": ""}
    fixed |= {"teacher": None, "flags": flags, "data": data, "settings": SETTINGS, "runs": runs}
    return run_config.parse(fixed)


def history_of(*epochs):
    return [
        HistoryRow(seed, setting, seed, epoch, "validation", "accuracy", value)
        for (setting, epoch), values in VALUES.items()
        if epoch in epochs
        for seed, value in enumerate(values)
    ]


@pytest.fixture
def run(tmp_path):
    """A finished run folder, as far as it is read here."""
    run_config.write(tmp_path, config_of(teachers=3))
    undefined = lambda value: value if math.isfinite(value) else math.nan  # noqa: E731
    run_folder.write_history(tmp_path, [row._replace(value=undefined(row.value)) for row in history_of(1, 2)])
    runs = [(setting, seed) for setting in (SOFT, SLASH) for seed in range(3)]
    tested = [ResultRow(*run, "test", "none", "all", "accuracy", 0.5) for run in runs]
    write_tested(tmp_path, tested, classes=9)
    entry = {"setting": SOFT, "split": "test", "correction": "none", "class": "all", "metric": "accuracy"}
    one = {"low": None, "high": None, "n": 1}
    tested = [
        entry | {"mean": 0.875, "low": 0.75, "high": 1.0, "n": 3},
        entry | one | {"class": "omitted", "correction": "prior_matched", "mean": 0.5},
        entry | one | {"class": "3", "mean": 0.1},
        entry | one | {"setting": "teacher", "mean": 0.9},
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"format": 1, "results": tested, "paired": []}))
    return tmp_path


def read(folder):
    """setting's folder -> an accumulator of all its events, none dropped for their number."""
    found = {}
    for place in sorted((folder / "tensorboard").iterdir()):
        found[place.name] = EventAccumulator(str(place), size_guidance={"scalars": 0})
        found[place.name].Reload()
    return found


def points(accumulator, tag):
    """{step: value} of a tag that has each step once."""
    events = accumulator.Scalars(tag)
    assert len({event.step for event in events}) == len(events)
    return {event.step: event.value for event in events}


def test_scalars_by_hand(run):
    tensorboard.write(run)
    found = read(run)
    assert set(found) == {SOFT, "labels transfer=a%2F..%2Fb"}
    soft = found[SOFT]
    assert points(soft, "accuracy/validation") == pytest.approx({1: 0.5, 2: 0.8})
    half = scipy.stats.t.ppf(0.975, 2) * 0.1 / 3**0.5  # of three values whose deviation is 0.1
    assert points(soft, "accuracy_low/validation") == pytest.approx({1: 0.5 - half, 2: 0.8 - half})
    assert points(soft, "accuracy_high/validation") == pytest.approx({1: 0.5 + half, 2: 0.8 + half})
    # After the last epoch, the test split: neither a class of its own nor the teacher; no interval of one.
    assert points(soft, "test/accuracy") == {2: 0.875} and points(soft, "test_high/accuracy") == {2: 1.0}
    assert points(soft, "test/accuracy_omitted_prior_matched") == {2: 0.5}
    assert sum("test" in tag for tag in soft.Tags()["scalars"]) == 4


def test_seeds_of_one_teacher_are_one(run):
    scalars = tensorboard.of_history(history_of(1), config_of(teachers=2))
    # Teacher 0 taught seeds 0 and 2: 0.45; teacher 1 seed 1: 0.6. t with 1 degree of freedom: 12.706.
    tags = scalars[SOFT][1]
    assert tags["accuracy/validation"] == pytest.approx(0.525)
    assert tags["accuracy_high/validation"] == pytest.approx(0.525 + 12.706 * 0.075, abs=1e-4)


def test_what_is_not_finite_is_left_out():
    scalars = tensorboard.of_history(history_of(2), config_of(teachers=3))
    assert scalars[SLASH][2] == {}


def test_hparams_are_what_the_tab_reads(run):
    tensorboard.write(run)
    values, metrics = {}, {}
    for name, accumulator in read(run).items():
        plugin = accumulator.PluginTagToContent(hparams_metadata.PLUGIN_NAME)
        start = hparams_metadata.parse_session_start_info_plugin_data(
            plugin[hparams_metadata.SESSION_START_INFO_TAG]
        )
        experiment = hparams_metadata.parse_experiment_plugin_data(plugin[hparams_metadata.EXPERIMENT_TAG])
        kinds = {key: value.WhichOneof("kind") for key, value in start.hparams.items()}
        values[name] = {key: getattr(value, kinds[key]) for key, value in start.hparams.items()}
        metrics[name] = [info.name.tag for info in experiment.metric_infos]
        assert {info.name for info in experiment.hparam_infos} == set(start.hparams)
    common = {"dataset": "toy", "model": "mlp-8"}
    # What differs; a column that has no number somewhere is one of words.
    assert values == {
        SOFT: common | {"omitted": "3+7", "temperature": "4", "alpha": 1.0},
        "labels transfer=a%2F..%2Fb": common | {"omitted": "none", "temperature": "none", "alpha": 0.0},
    }
    assert set(map(tuple, metrics.values())) == {("test/accuracy", "test/accuracy_omitted_prior_matched")}


def test_epochs_are_added_and_none_comes_twice(run):
    config = config_of(teachers=3)
    tensorboard.add(run, history_of(1), config, 1, 1)
    assert points(read(run)[SOFT], "accuracy/validation") == pytest.approx({1: 0.5})
    for _ in range(2):  # the second time as after an end before the checkpoint
        tensorboard.add(run, history_of(2), config, 2, 2)
    assert points(read(run)[SOFT], "accuracy/validation") == pytest.approx({1: 0.5, 2: 0.8})
    tensorboard.add(run, history_of(1, 2), config, 1, 2)  # a resumed run begins with all that there was
    assert len(list((run / "tensorboard" / SOFT).iterdir())) == 1
    tensorboard.write(run)
    assert len(list((run / "tensorboard" / SOFT).iterdir())) == 1
    assert points(read(run)[SOFT], "accuracy/validation") == pytest.approx({1: 0.5, 2: 0.8})


def test_long_names_stay_apart(run):
    long = ["omit=" + "+".join(map(str, range(start, 400))) for start in (0, 1)]
    long.append(long[0] + "+400")
    names = [tensorboard._folder_name(name) for name in long]
    assert len(set(names)) == 3 and max(map(len, names)) < 200
