"""--help of every entry point, the names that are near a mistyped one, and `info`."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import info
from experiments.cli import flags, help
from kd_jax import data, models
from kd_jax.data import tfds
from kd_jax.errors import InputError, nearest_name, nearest_path
from tests.experiments.launcher import Launcher

ROOT = Path(__file__).parents[3]
ENTRY_POINTS = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if re.search("^def main", path.read_text(), re.MULTILINE)
)


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        with Launcher(tmp_path_factory.mktemp("usage")) as launcher:
            yield launcher


@pytest.fixture(scope="module")
def texts(launch):
    """What --help prints where the output is no terminal."""
    outcomes = {name: launch(name, "--help") for name in ENTRY_POINTS}
    assert all(outcome.status == 0 and outcome.err == "" for outcome in outcomes.values())
    return {name: outcome.out for name, outcome in outcomes.items()}


DEFINED = "sorted(flag.name for module, own in flags.FLAGS.flags_by_module_dict().items() for flag in own "
DEFINED += "if module.startswith('experiments.') or module == 'runpy')"  # which runs the entry point
GROUPED = "sum(__import__('experiments.cli.flags', fromlist=['x']).GROUPS.values(), [])"


def test_each_flag_is_listed_in_one_group_or_refused(launch, texts):
    for name, text in texts.items():
        listed = re.findall(r"^  --(\w+)", text, re.MULTILINE)
        defined = launch(name, ask=DEFINED).value
        assert len(set(listed)) == len(listed) and set(listed) <= set(defined)
        if others := set(defined) - set(listed):
            words = {
                "optimizer": "=sgd",
                "schedule": "=constant",
                "normalize": "=data",
                "precision": "=bfloat16",
                "figure_formats": "=svg",
            }
            words |= dict.fromkeys(("flip", "full", "skip_unreadable", "tensorboard"), "")
            outcome = launch(name, *(f"--{flag}{words.get(flag, '=1')}" for flag in others))
            assert outcome.status == 2 and outcome.out == "", outcome
            assert outcome.err.startswith("error: a flag that means nothing here: ")
            named = re.findall(r"--(\w+)(?=[,=\s])", outcome.err)  # a long list is cut in its middle
            assert len(named) > min(9, len(others) - 1) and set(named) <= others
        grouped = launch(name, ask=GROUPED).value
        assert len(grouped) == len(set(grouped)) and set(grouped) == set(defined)


def test_help_is_short(texts):
    for name, text in texts.items():
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100 and len(lines) < 125, name
        for entry in re.split(r"^(?=  --)", text.partition("\n\nIn CAPITALS")[0], flags=re.MULTILINE)[1:]:
            lists_methods = re.match(r"  --(loss|feature_loss)=", entry)  # each with its paper
            assert len(entry.partition("\n\n")[0].splitlines()) <= (8 if lists_methods else 2), entry
        first = re.search('^"""(.*)', (ROOT / "experiments" / f"{name}.py").read_text())
        assert first and " ".join(text.split()).startswith(" ".join(first[1].removesuffix('"""').split()))


def test_examples_parse(launch, texts):
    for name, text in texts.items():
        example = re.search(r"^  (\./launch\.sh (.|\n)*?)\n\n", text, re.MULTILINE)
        assert example
        program, entry, *words = shlex.split(example[1].replace("\\\n", ""))
        assert (program, entry) == ("./launch.sh", name) and words
        own = set(re.findall(r"^  --(\w+)", text, re.MULTILINE))
        assert set(re.findall(r"--(\w+)", example[1])) <= own
        assert launch(name, *words, ask="1").value == 1


def test_defaults_are_told(texts):
    assert re.search(r"^  --epochs=40 ", texts["distill"], re.MULTILINE)
    assert re.search(r"^  --learning_rate=0.001 ", texts["train_teacher"], re.MULTILINE)
    assert re.search(r"^  --seeds=100 ", texts["subliminal"], re.MULTILINE)  # its own
    assert re.search(r"^  --teacher_setting=SETTING ", texts["distill"], re.MULTILINE)
    assert re.search(r"^  --flip  ", texts["distill"], re.MULTILINE)
    assert "adam | adamw | sgd. " in texts["distill"] and "--dropout" not in texts["subliminal"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setattr(flags, "listed", lambda: ["model", "seeds", "quiet", "validation_fraction"])
    text = help.text("distill --model=mlp-8-8-8-8 --seeds=3 --epochs=30 --batch_size=64", columns)
    assert max(map(len, text.splitlines())) <= columns
    assert ("\\\n" in text) == (columns < 100)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--epocs=3"], "given --epocs (did you mean --epochs?)"),
        (["--optimizer=adaw"], "expected adam | adamw | sgd; given adaw (did you mean adamw?)"),
        (["--loss=hard_lable"], "given 'hard_lable' (did you mean hard_label?)"),
        (["--teacher_ablations=top1,shufled"], "(did you mean shuffled?)"),
        (["--dataset=Digits"], "nearest: digits"),
        (["--flagfile=quickstrat.flags"], "(did you mean experiments/recipes/quickstart.flags?)"),
        (["--noquiet=1"], "--noquiet=1 does not take an argument"),
        (["--flagfile=a\0b"], "embedded null byte"),
        (["--model=mpl-800-800"], "given mpl-800-800 (did you mean mlp-800-800?)"),
    ],
)
def test_a_mistyped_name_costs_one_line_with_the_nearest(launch, words, expected):
    outcome = launch("distill", "--model=mlp-8", "--loss=labels", "--out=x", *words)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1
    assert expected in outcome.err, outcome.err


@pytest.mark.parametrize(
    "given, meant",
    [
        ("mpl-800-800", "mlp-800-800"),
        ("mlp_30", "mlp-30"),
        ("resnet18", "resnet-18"),
        ("resnet-19", "resnet-18"),
        ("Resnet-32x4", "resnet-32x4"),
        ("vgg16-bn", "vgg-16-bn"),
        ("shuflenet-1.0", "shufflenet-x1.0"),
        ("wnr-40-2", "wrn-40-2"),
        ("transformer-9", None),
    ],
)
def test_the_nearest_model(given, meant):
    with pytest.raises(InputError) as caught:
        models.build(given, 10)
    assert str(caught.value).endswith(f"{given} (did you mean {meant}?)" if meant else f"given {given}")
    if meant:
        models.build(meant, 10)


def test_the_nearest_name_and_path(tmp_path, monkeypatch):
    assert nearest_name("Cat", ["cat", "dog"]) == " (did you mean cat?)"
    assert nearest_name("--x", ["cat", "dog"]) == ""
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    (tmp_path / "pictures" / "train" / "numbers.npz").touch()
    monkeypatch.chdir(tmp_path)
    assert nearest_path("picturs/tarin/number.npz") == " (did you mean pictures/train/numbers.npz?)"
    assert nearest_path(tmp_path / "picture") == f" (did you mean {tmp_path / 'pictures'}?)"
    for nothing in (
        "pictures",
        "pictures/../pictures",
        "else/tarin",
        "pictures/train/numbers.npz/x",
        "",
        "a\0b",
    ):
        assert nearest_path(nothing) == ""
    for given, meant in (
        ("./picturs", "pictures"),
        ("pictures/train/number.npz", "pictures/train/numbers.npz"),
    ):
        with pytest.raises(InputError, match=rf"did you mean {meant}\?"):
            data.load(given)
    with pytest.raises(InputError, match="nearest: pictures"):
        data.load("picturse", tmp_path)


def test_info_says_what_is_there(launch, tmp_path, monkeypatch):
    import jax
    import numpy as np

    set_ = tmp_path / "toy" / "1.0.0"
    set_.mkdir(parents=True)
    (set_ / "features.json").write_text("{}")
    splits = '[{"name": "train", "shardLengths": ["1200", "34"]}, {"name": "test", "shardLengths": ["5"]}]'
    (set_ / "dataset_info.json").write_text(f'{{"splits": {splits}}}')
    (set_ / "toy.array_record").write_bytes(bytes(3 * 2**20))
    (tmp_path / "half" / "1.0.0").mkdir(parents=True)
    (tmp_path / "odd" / "plain" / "2.0.0").mkdir(parents=True)
    for name in ("features.json", "dataset_info.json"):
        (tmp_path / "odd" / "plain" / "2.0.0" / name).write_text("[")
    outcome = launch("info", f"--data_dir={tmp_path}")
    assert outcome.status == 0 and outcome.err == ""
    for chapter in ("Devices", "Versions", "Caches", f"Datasets in {tmp_path}", "Free"):
        assert f"{chapter}\n  " in outcome.out
    assert re.search(rf"^  jax +{re.escape(jax.__version__)}$", outcome.out, re.MULTILINE)
    assert re.search(rf"^  numpy +{re.escape(np.__version__)}$", outcome.out, re.MULTILINE)
    assert re.search(r"^  toy:1.0.0 +1,234 train, 5 test; 3.0 MiB in 3 files$", outcome.out, re.MULTILINE)
    assert re.search(r"^  odd/plain:2.0.0 +examples unknown; 2 B in 2 files$", outcome.out, re.MULTILINE)
    assert "half" not in outcome.out.replace(str(tmp_path), "")
    assert re.search(r"^  memory +\d[\d.]* GiB$", outcome.out, re.MULTILINE)


def test_info_without_data(tmp_path):
    assert info.prepared(tmp_path)[0][0] == "none" and list(tfds.prepared(tmp_path)) == []
    assert "no such folder" in info.prepared(tmp_path / "nowhere")[0][1]
    assert info.size(tmp_path / "nowhere") == "empty"
    assert [info.shown(n) for n in (5, 2048, 3 * 2**29)] == ["5 B", "2.0 KiB", "1.5 GiB"]
