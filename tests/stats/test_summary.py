"""What rows come to, by hand: intervals, pairs, and the setting and correction that the report speaks of."""

import json
import math

import numpy as np
import pytest

from kd_jax.io import run_config, run_files
from kd_jax.stats import summary
from kd_jax.stats.description import candidates
from kd_jax.stats.rows import ResultRow
from tests.io.test_run_folder import LABELS, NAN, SOFT, accuracies, describe, make_config


def summary_of(rows, **config):
    content = summary.summarise(rows, describe(**config)).to_json()
    assert json.loads(run_files.to_json(content)) == content  # JSON-ready: no nan, no NumPy
    return content


def test_summary_by_hand():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9]) + accuracies(SOFT, [0.2, NAN, 0.4])
    rows += accuracies("teacher", [0.95], class_="2")
    first, second, third = summary_of(rows)["results"]
    # sd 0.1: half width 4.302653 * 0.1 / sqrt(3) = 0.248414.
    assert first == {
        "setting": LABELS, "split": "test", "correction": "none", "class": "all", "metric": "accuracy",
        "mean": pytest.approx(0.8), "low": pytest.approx(0.551586, abs=1e-6),
        "high": pytest.approx(1.048414, abs=1e-6), "n": 3,
    }  # fmt: skip
    # The undefined value is left out: sd = 0.1 sqrt(2), standard error 0.1, t quantile 12.706205.
    assert (second["mean"], second["low"], second["n"]) == pytest.approx((0.3, 0.3 - 1.2706205, 2), abs=1e-6)
    assert (third["setting"], third["class"], third["mean"], third["low"], third["high"], third["n"]) == (
        "teacher", "2", 0.95, None, None, 1,
    )  # fmt: skip


def test_a_run_that_diverged_is_counted_and_in_no_mean():
    rows = [*accuracies(LABELS, [0.7, 0.8]), ResultRow(LABELS, 2, "test", "none", "all", "diverged", 4)]
    content = summary_of(rows)
    (entry,) = content["results"]
    assert (entry["mean"], entry["n"]) == (pytest.approx(0.75), 2)
    assert content["diverged"] == [{"setting": LABELS, "seed": 2, "epoch": 4}]


def test_summary_counts_teachers_where_seeds_share_them():
    # Teacher 0 taught the seeds 0 and 2, teacher 1 the seed 1: the units are (0.7 + 0.9) / 2 and 0.4.
    (entry,) = summary_of(accuracies(SOFT, [0.7, 0.4, 0.9]), num_teachers=2)["results"]
    assert (entry["mean"], entry["n"]) == (pytest.approx(0.6), 2)
    # The teacher's own rows are one a teacher: nothing is shared.
    (entry,) = summary_of(accuracies("teacher", [0.7, 0.9]), num_teachers=2)["results"]
    assert (entry["mean"], entry["n"]) == (pytest.approx(0.8), 2)


def test_a_summary_is_read_back_and_looked_up_by_name():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9]) + accuracies("teacher", [0.95])
    rows += [*accuracies(SOFT, [0.6, 0.8, 0.7]), ResultRow(SOFT, 3, "test", "none", "all", "diverged", 4)]
    content = summary_of(rows)
    found = summary.Summary.from_json(content)
    assert found.to_json() == content and len(found.paired) == len(found.diverged) == 1
    assert found.accuracy(LABELS) == pytest.approx((0.8, 0.551586, 1.048414, 3), abs=1e-6)
    assert found.accuracy("teacher") == pytest.approx((0.95, NAN, NAN, 1), nan_ok=True)
    assert found.accuracy(LABELS, "omitted") is found.errors(LABELS) is found.bias(LABELS, "none") is None
    assert found.only(lambda key: key.setting == SOFT).intervals.keys() == {
        summary.Key(SOFT, "test", "none", "all", "accuracy")
    }


def pairs_of(content):
    return {(p["a"], p["b"], p["correction"], p["class"], p["metric"]): p for p in content["paired"]}


def test_pairs_by_hand():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9]) + accuracies(SOFT, [0.6, 0.8, 0.7])
    rows += accuracies(SOFT, [0.2, 0.4, 0.6], class_="omitted")
    rows += accuracies(SOFT, [0.9, 0.7, 0.8], "prior_matched") + accuracies(SOFT, [0.5], "test_tuned")
    rows += accuracies(SOFT, [0.9, 0.9, 0.9], "prior_matched", "omitted")
    pairs = pairs_of(summary_of(rows))
    # Nothing for the omitted classes of a setting that has none, nothing for the single seed of test_tuned.
    assert set(pairs) == {
        (SOFT, SOFT, "prior_matched", "all", "accuracy"),
        (SOFT, SOFT, "prior_matched", "omitted", "accuracy"),
        (LABELS, SOFT, "none", "all", "accuracy"),
    }
    # labels - soft: 0.1, 0.0, 0.2: mean 0.1, sd 0.1, t = sqrt(3); with 2 degrees of freedom
    # p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(3 / 5).
    pair = pairs[LABELS, SOFT, "none", "all", "accuracy"]
    assert (pair["difference"], pair["low"], pair["p"], pair["n"]) == pytest.approx(
        (0.1, 0.1 - 0.248414, 1 - math.sqrt(0.6), 3), abs=1e-6
    )
    assert pair["split"] == "test"
    # prior_matched - none, for the missing: 0.7, 0.5, 0.3.
    assert pairs[SOFT, SOFT, "prior_matched", "omitted", "accuracy"]["difference"] == pytest.approx(0.5)


def test_pairs_go_by_seed_not_by_order():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9])[::-1] + accuracies(SOFT, [0.6, 0.7, 0.8])
    (pair,) = summary_of(rows)["paired"]
    assert pair["difference"] == pytest.approx(0.1)
    assert pair["low"] is pair["high"] is pair["p"] is None  # by seed it is the same in all: no spread


def test_pairs_of_shared_teachers_count_teachers():
    rows = accuracies(LABELS, [0.7, 0.4, 0.9, 0.5]) + accuracies(SOFT, [0.6, 0.2, 0.8, 0.2])
    (pair,) = summary_of(rows, seeds=4, num_teachers=2)["paired"]
    assert (pair["difference"], pair["n"]) == (pytest.approx(0.175), 2)


def test_classes_omitted_by_one_setting_only_are_not_compared():
    settings = [{"name": "a", "omitted": [1]}, {"name": "b", "omitted": [2]}, {"name": "c", "omitted": [2]}]
    rows = [row for s in "abc" for row in accuracies(s, [0.1, 0.5, 0.3], class_="omitted")]
    assert set(pairs_of(summary_of(rows, settings=settings))) == {("b", "c", "none", "omitted", "accuracy")}


def test_of_many_settings_only_close_ones_are_compared():
    settings = [{"name": f"{t} {a}", "t": t, "a": a, "omitted": []} for t in range(5) for a in range(4)]
    rows = [row for s in settings for row in accuracies(s["name"], [0.1, 0.5, 0.3])]
    # 5 temperatures x 4 alphas: 4 * C(5, 2) pairs differ in t alone and 5 * C(4, 2) in a alone.
    assert len(summary_of(rows, settings=settings)["paired"]) == 4 * 10 + 5 * 6
    few = settings[:16]
    assert len(summary_of(rows[: 16 * 3], settings=few)["paired"]) == 16 * 15 // 2


def test_a_value_that_a_setting_does_not_have_is_no_difference():
    distilled = [{"name": f"{t} {a}", "t": t, "a": a, "omitted": []} for t in range(5) for a in range(1, 4)]
    plain = [{"name": f"plain {m}", "t": None, "a": 0, "omitted": m} for m in ([], [2])]
    rows = [row for s in distilled + plain for row in accuracies(s["name"], [0.1, 0.5, 0.3])]
    pairs = set(pairs_of(summary_of(rows, settings=distilled + plain)))
    # Without temperature, what misses nothing differs from each of the 15 in alpha alone; what misses a class
    # differs from them in that as well, and from the other plain one in that alone.
    assert sum("plain []" in pair[:2] for pair in pairs) == 16
    assert sum("plain [2]" in pair[:2] for pair in pairs) == 1


def test_the_best_setting_is_that_of_the_seen_classes_of_the_validation_split():
    """Whatever comes of the omitted ones, whose labels it must not need, and of the test split."""
    settings = [
        {"name": name, "omitted": omitted} for name, omitted in zip("abcd", ([], [2], [2], [2]), strict=True)
    ]
    rows = []
    for name, seen, omitted in (("a", 0.9, None), ("b", 0.5, 0.9), ("c", 0.7, 0.0)):
        rows += accuracies(name, [seen if omitted is None else 0.6 * seen + 0.4 * omitted])
        if omitted is not None:
            rows += accuracies(name, [seen], class_="seen") + accuracies(name, [omitted], class_="omitted")
    held_out = [row._replace(split="validation") for row in rows]
    test = accuracies("a", [0.1]) + accuracies("b", [0.8], class_="seen") + accuracies("d", [1.0])
    description = describe(settings=settings, seeds=1)
    found = summary.summarise(held_out + test, description)
    assert found.accuracy("b", split="validation").mean > 0.6  # c: 0.42
    assert found.best_setting(description.settings) == "c"  # a misses nothing, d was not judged
    assert found.best_setting(description.settings[:1]) == "a"


def test_the_candidates_are_the_same_students_but_for_what_is_tuned():
    """Nothing of them was ablated, and they are judged on the same classes."""
    plain = {"name": "plain", "omitted": [2], "alpha": 0.0}
    tuned = [{"name": f"T={t}", "omitted": [2], "alpha": 1.0, "temperature": t} for t in (1, 20)]
    others = [
        {"omitted": [], "alpha": 1.0},
        {"omitted": [0, 1], "alpha": 1.0},  # on a single class nothing is easier than to be right
        {"omitted": [1], "alpha": 1.0},
        {"omitted": [2], "alpha": 1.0, "teacher_ablation": "omitted_removed"},
        {"omitted": [2], "alpha": 1.0, "student_init": "teacher"},
        {"omitted": [2], "alpha": 1.0, "shots": 5},
    ]
    others = [{"name": str(number), **other} for number, other in enumerate(others)]
    plain, *others = describe(settings=[plain, *others], seeds=1).settings
    tuned = list(describe(settings=tuned, seeds=1).settings)
    assert candidates([plain, others[0], others[1], *tuned, *others]) == tuned
    assert candidates([plain, others[0]]) == [plain]
    assert candidates([others[0], *others[3:4]]) == others[3:4]


TEACHERS = {"num_teachers": 2, "seeds": 10}
TEN = [0.3, 0.1, 0.25, 0.2, 0.15, 0.3, 0.2, 0.1, 0.3, 0.2]


def n_of(setting, correction="none", metric="accuracy", flags=None, **about):
    """n of ten seeds of two teachers, for a setting that `about` makes, beside a distilled one."""
    own = {"name": "own", "omitted": [2], "alpha": 0.0, "temperature": None} | about
    config = make_config(settings=[own, {"name": SOFT, "omitted": [2], "alpha": 1.0}], **TEACHERS)
    config["flags"] |= flags or {}
    rows = [row._replace(metric=metric) for row in accuracies(setting, TEN, correction)]
    (interval,) = summary.summarise(rows, run_config.parse(config)).intervals.values()
    return interval.n


def test_plain_students_are_not_clustered_by_a_teacher_they_never_had():
    rows = accuracies("own", TEN) + accuracies(SOFT, TEN)
    settings = [{"name": "own", "omitted": [2], "alpha": 0.0}, {"name": SOFT, "omitted": [2], "alpha": 1.0}]
    own, soft = summary_of(rows, settings=settings, **TEACHERS)["results"]
    # sd 0.0775: half width 2.262157 * 0.0775 / sqrt(10) = 0.0554 around 0.21, of ten independent seeds.
    assert (own["mean"], own["n"]) == (pytest.approx(0.21), 10)
    assert own["high"] - own["mean"] == pytest.approx(2.262157 * np.std(TEN, ddof=1) / 10**0.5, rel=1e-6)
    assert soft["n"] == 2
    assert describe(settings=settings, **TEACHERS).unit_of("own") == ""
    assert describe(settings=settings, **TEACHERS).unit_of(SOFT) == " teachers"


@pytest.mark.parametrize(
    "n, words",
    [
        (10, {}),
        (
            10,
            {"teacher_ablation": "omitted_removed", "omitted": [0, 2], "alpha": 1.0},
        ),  # one class is always named
        (2, {"teacher_ablation": "omitted_removed", "alpha": 1.0}),
        (2, {"alpha": 0.01}),
        (2, {"alpha": None}),  # subliminal learning has none
        (2, {"student_init": "teacher"}),  # it begins with the teacher's weights
        (2, {"flags": {"transfer": "gaussian"}}),  # whose answers stand for labels
        (10, {"flags": {"transfer": "own"}}),
        (10, {"correction": "prior_matched"}),
        (2, {"correction": "teacher_matched"}),  # asks the teacher what to add
        (2, {"metric": "agreement"}),
        (2, {"metric": "kl_to_teacher"}),
        (10, {"metric": "nll"}),
    ],
)
def test_what_depends_on_the_teacher_is_clustered_by_it(n, words):
    assert n_of("own", **words) == n


def test_a_difference_is_over_teachers_as_soon_as_one_side_depends_on_them():
    settings = [
        {"name": name, "omitted": [2], "alpha": alpha}
        for name, alpha in zip("abc", (0.0, 0.0, 1.0), strict=True)
    ]
    shifted = {"a": TEN, "b": TEN[::-1], "c": [0.5 * value for value in TEN]}
    rows = [row for c in ("none", "teacher_matched") for s in "abc" for row in accuracies(s, shifted[s], c)]
    pairs = pairs_of(summary_of(rows, settings=settings, **TEACHERS))
    found = {key[:3]: pair["n"] for key, pair in pairs.items() if key[0] != key[1]}
    assert found == {
        ("a", "b", "none"): 10, ("a", "c", "none"): 2, ("b", "c", "none"): 2,
        ("a", "b", "teacher_matched"): 2, ("a", "c", "teacher_matched"): 2, ("b", "c", "teacher_matched"): 2,
    }  # fmt: skip


def test_the_mean_over_all_settings_depends_on_every_teacher_of_one_of_them():
    assert describe(**TEACHERS).teachers_of_seeds() == [0, 1] * 5
    plain = [setting | {"alpha": 0.0} for setting in make_config()["settings"]]
    assert describe(settings=plain, **TEACHERS).teachers_of_seeds() == [None] * 10


def test_shares_without_spread_have_a_floor_and_nothing_else_has_an_interval():
    """Of ten seeds, none of 30 examples right: of 300 none, up to 1 - 0.025^(1/300) = 1.22 %."""
    rows = []
    for metric, value in (("accuracy", 0.0), ("errors", 30.0), ("support", 30.0), ("f1", 0.0), ("nll", 1.5)):
        rows += [row._replace(metric=metric) for row in accuracies(LABELS, [value] * 10, "none", "2")]
    sums = summary_of(rows, seeds=10)
    found = {entry["metric"]: (entry["low"], entry["high"], entry["n"]) for entry in sums["results"]}
    high = 1 - 0.025 ** (1 / 300)
    assert found["accuracy"] == pytest.approx((0, high, 10), rel=1e-9)
    assert found["errors"] == pytest.approx((30 * (1 - high), 30, 10), rel=1e-9)
    assert all(found[metric] == (None, None, 10) for metric in ("support", "f1", "nll"))


def test_the_preferred_correction_needs_the_fewest_labels():
    rows = accuracies(SOFT, [0.5])
    preferred = []
    for correction in ("none", "test_tuned", "validation_tuned", "teacher_matched", "prior_matched"):
        rows += accuracies(SOFT, [0.5], correction) if correction != "none" else []
        preferred.append(summary.summarise(rows, describe()).preferred_correction(SOFT))
    assert preferred == ["none", "none", "validation_tuned", "teacher_matched", "teacher_matched"]
    without = summary.summarise([row for row in rows if row.correction != "teacher_matched"], describe())
    assert without.preferred_correction(SOFT) == "prior_matched"
    assert without.corrections_of(SOFT) == [
        "none",
        "test_tuned",
        "validation_tuned",
        "prior_matched",
    ]


def test_units_in_words():
    assert describe(seeds=1).describe_units() == "1 seed"
    assert describe(seeds=3).describe_units() == "3 seeds"
    assert describe(seeds=4, num_teachers=2).describe_units() == "4 seeds of 2 teachers"


def test_teachers_of_several_folders_are_one_unit_without_an_interval():
    config = make_config()
    config["teacher"]["members"] = [{"path": "a"}, {"path": "b"}]
    found = summary.summarise(accuracies("teacher", [0.7, 0.9]), run_config.parse(config))
    assert found.accuracy("teacher") == pytest.approx((0.8, NAN, NAN, 1), nan_ok=True)
