"""The settings that the flags of distill name."""

import itertools

import pytest

MODULE = "__import__('experiments.settings.distill', fromlist=['x'])"
PARSED = f"{MODULE}.parse_settings(shared.read({MODULE}.Lists), '0123456789')"


@pytest.fixture
def settings(launch):
    """settings(flags...) -> [(name, missing, temperature, alpha, learning rate, weight decay)], or error."""
    ask = f"[setting[:6] for setting in {PARSED}]"
    return lambda *words: launch("distill", *words, ask=ask).value


def test_settings_are_the_product_of_the_lists(settings):
    found = settings("--temperatures=1,4", "--alphas=0.5,1", "--omit=none,3,7+8", "--weight_decays=0,1e-4")
    names = [name for name, *_ in found]
    assert len(found) == len(set(names)) == 2 * 2 * 3 * 2
    assert {tuple(rest) for _, omitted, *rest in found} == set(
        itertools.product((1.0, 4.0), (0.5, 1.0), (1e-3,), (0.0, 1e-4))
    )
    assert ["T=4 alpha=0.5 wd=0.0001 omit=7+8", [7, 8], 4.0, 0.5, 1e-3, 1e-4] in found
    assert names[0] == "T=1 alpha=0.5 wd=0"  # no word about what does not vary


def test_settings_by_default(settings):
    assert settings() == [["T=4", [], 4.0, 1.0, 1e-3, 0.0]]


def test_settings_that_are_the_same_come_once(settings):
    assert [name for name, *_ in settings("--temperatures=1,4", "--alphas=0,1")] == ["labels", "T=1", "T=4"]
    assert [name for name, *_ in settings("--temperatures=1,4", "--alphas=0,1", "--loss=labels")] == [
        "labels"
    ]
    found = settings("--temperatures=1,4", "--alphas=0.5,1", "--loss=hard_label")
    assert [name for name, *_ in found] == ["hard_label alpha=0.5", "hard_label"]


def test_settings_say_nothing_of_what_has_no_part_in_them(settings):
    found = settings("--temperatures=4,9", "--alphas=0,1", "--omit=none,3")
    assert [(name, t) for name, _, t, *_ in found] == [
        ("labels", None),
        ("T=4", 4.0),
        ("T=9", 9.0),
        ("labels omit=3", None),
        ("T=4 omit=3", 4.0),
        ("T=9 omit=3", 9.0),
    ]
    assert settings("--loss=labels") == [["labels", [], None, 0.0, 1e-3, 0.0]]
    # The argmax has no temperature; the mean of an ensemble is taken at 1.
    found = settings("--loss=hard_label", "--temperatures=9", "--alphas=0.5")
    assert found == [["hard_label alpha=0.5", [], 1.0, 0.5, 1e-3, 0.0]]


def test_settings_that_differ_little_stay_apart(settings):
    found = settings("--temperatures=4,4.0000019", "--learning_rates=0.1,0.10000001")
    assert len(found) == len({name for name, *_ in found}) == 4


def test_shots_and_teacher_ablations_are_settings(launch):
    ask = f"[{{'name': one.name, **one.info().values}} for one in {PARSED}]"
    words = ["--omit=none,3", "--shots=0,5", "--teacher_ablations=full,top1", "--alphas=0,1"]
    found = launch("distill", *words, ask=ask).value
    assert [(s["name"], s.get("shots"), s.get("teacher_ablation")) for s in found] == [
        ("labels", None, None),
        ("T=4", None, None),
        ("T=4 top1", None, "top1"),
        ("labels omit=3", None, None),
        ("T=4 omit=3", None, None),
        ("T=4 omit=3 top1", None, "top1"),
        ("labels omit=3 shots=5", 5, None),
        ("T=4 omit=3 shots=5", 5, None),
        ("T=4 omit=3 shots=5 top1", 5, "top1"),
    ]
    # Where nothing is missing, nothing can be removed.
    words = ["--omit=none,3", "--teacher_ablations=full,omitted_removed"]
    assert [s["name"] for s in launch("distill", *words, ask=ask).value] == [
        "T=4",
        "T=4 omit=3",
        "T=4 omit=3 omitted_removed",
    ]


def test_omit_and_keep_together(settings):
    found = settings("--omit=none,3", "--seen=7+8")
    rest = [0, 1, 2, 3, 4, 5, 6, 9]
    assert [(name, omitted) for name, omitted, *_ in found] == [
        ("T=4", []),
        ("T=4 omit=3", [3]),
        ("T=4 seen=7+8", rest),
    ]
    assert [(name, omitted) for name, omitted, *_ in settings("--seen=7+8")] == [("T=4 seen=7+8", rest)]
    assert settings("--omit=8+7, 3")[0][:2] == ["T=4 omit=7+8", [7, 8]]  # in any order, spaces allowed
