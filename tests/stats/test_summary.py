"""What rows come to, by hand: intervals, pairs, and the setting and correction that the report speaks of."""

import json
import math

import pytest

from kd_jax.io import run_files
from kd_jax.io.run_folder import ResultRow
from kd_jax.stats import summary
from tests.io.test_run_folder import LABELS, NAN, SOFT, accuracies, make_config


def summary_of(rows, **config):
    content = summary.summarise(rows, make_config(**config))
    assert json.loads(run_files.to_json(content)) == content  # JSON-ready: no nan, no NumPy
    return content


def test_summary_by_hand():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9]) + accuracies(SOFT, [0.2, NAN, 0.4])
    rows += accuracies("teacher", [0.95], class_="2")
    rows += [ResultRow(LABELS, 0, "test", "none", "0", "predicted_as_1", 3.0)]
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
    (entry,) = summary_of(accuracies(LABELS, [0.7, 0.4, 0.9]), num_teachers=2)["results"]
    assert (entry["mean"], entry["n"]) == (pytest.approx(0.6), 2)
    # The teacher's own rows are one a teacher: nothing is shared.
    (entry,) = summary_of(accuracies("teacher", [0.7, 0.9]), num_teachers=2)["results"]
    assert (entry["mean"], entry["n"]) == (pytest.approx(0.8), 2)


def test_lookup_inverts_the_summary():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9]) + accuracies("teacher", [0.95])
    values = summary.lookup(summary_of(rows))
    assert values[LABELS, "test", "none", "all", "accuracy"] == pytest.approx(
        (0.8, 0.551586, 1.048414, 3), abs=1e-6
    )
    assert values["teacher", "test", "none", "all", "accuracy"] == pytest.approx(
        (0.95, NAN, NAN, 1), nan_ok=True
    )


def pairs_of(content):
    return {(p["a"], p["b"], p["correction"], p["class"], p["metric"]): p for p in content["paired"]}


def test_pairs_by_hand():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9]) + accuracies(SOFT, [0.6, 0.8, 0.7])
    rows += accuracies(SOFT, [0.2, 0.4, 0.6], class_="missing")
    rows += accuracies(SOFT, [0.9, 0.7, 0.8], "prior_matched") + accuracies(SOFT, [0.5], "test_tuned")
    rows += accuracies(SOFT, [0.9, 0.9, 0.9], "prior_matched", "missing")
    pairs = pairs_of(summary_of(rows))
    # Nothing for the missing classes of a setting that has none, nothing for the single seed of test_tuned.
    assert set(pairs) == {
        (SOFT, SOFT, "prior_matched", "all", "accuracy"),
        (SOFT, SOFT, "prior_matched", "missing", "accuracy"),
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
    assert pairs[SOFT, SOFT, "prior_matched", "missing", "accuracy"]["difference"] == pytest.approx(0.5)


def test_pairs_go_by_seed_not_by_order():
    rows = accuracies(LABELS, [0.7, 0.8, 0.9])[::-1] + accuracies(SOFT, [0.6, 0.7, 0.8])
    (pair,) = summary_of(rows)["paired"]
    assert (pair["low"], pair["high"]) == pytest.approx((0.1, 0.1))


def test_pairs_of_shared_teachers_count_teachers():
    rows = accuracies(LABELS, [0.7, 0.4, 0.9, 0.5]) + accuracies(SOFT, [0.6, 0.2, 0.8, 0.2])
    (pair,) = summary_of(rows, seeds=4, num_teachers=2)["paired"]
    assert (pair["difference"], pair["n"]) == (pytest.approx(0.175), 2)


def test_classes_missing_from_one_setting_only_are_not_compared():
    settings = [{"name": "a", "missing": [1]}, {"name": "b", "missing": [2]}, {"name": "c", "missing": [2]}]
    rows = [row for s in "abc" for row in accuracies(s, [0.1, 0.5, 0.3], class_="missing")]
    assert set(pairs_of(summary_of(rows, settings=settings))) == {("b", "c", "none", "missing", "accuracy")}


def test_of_many_settings_only_close_ones_are_compared():
    settings = [{"name": f"{t} {a}", "t": t, "a": a, "missing": []} for t in range(5) for a in range(4)]
    rows = [row for s in settings for row in accuracies(s["name"], [0.1, 0.5, 0.3])]
    # 5 temperatures x 4 alphas: 4 * C(5, 2) pairs differ in t alone and 5 * C(4, 2) in a alone.
    assert len(summary_of(rows, settings=settings)["paired"]) == 4 * 10 + 5 * 6
    few = settings[:16]
    assert len(summary_of(rows[: 16 * 3], settings=few)["paired"]) == 16 * 15 // 2


def test_a_value_that_a_setting_does_not_have_is_no_difference():
    distilled = [{"name": f"{t} {a}", "t": t, "a": a, "missing": []} for t in range(5) for a in range(1, 4)]
    plain = [{"name": f"plain {m}", "t": None, "a": 0, "missing": m} for m in ([], [2])]
    rows = [row for s in distilled + plain for row in accuracies(s["name"], [0.1, 0.5, 0.3])]
    pairs = set(pairs_of(summary_of(rows, settings=distilled + plain)))
    # Without temperature, what misses nothing differs from each of the 15 in alpha alone; what misses a class
    # differs from them in that as well, and from the other plain one in that alone.
    assert sum("plain []" in pair[:2] for pair in pairs) == 16
    assert sum("plain [2]" in pair[:2] for pair in pairs) == 1


def test_the_best_setting_is_that_of_the_validation_split():
    settings = [
        {"name": name, "missing": missing} for name, missing in zip("abcd", ([], [2], [2], [2]), strict=True)
    ]
    rows = [
        row for name, value in zip("abc", (0.9, 0.5, 0.7), strict=True) for row in accuracies(name, [value])
    ]
    held_out = [row._replace(split="validation") for row in rows]
    test = accuracies("a", [0.1]) + accuracies("b", [0.8]) + accuracies("c", [0.2]) + accuracies("d", [1.0])
    values = summary.lookup(summary_of(held_out + test, settings=settings, seeds=1))
    assert summary.best_setting(settings, values) == "c"  # a misses nothing, d was not judged
    assert summary.best_setting(settings[:1], values) == "a"


def test_the_preferred_correction_needs_the_fewest_labels():
    rows = accuracies(SOFT, [0.5])
    preferred = []
    for correction in ("none", "test_tuned", "validation_tuned", "teacher_matched", "prior_matched"):
        rows += accuracies(SOFT, [0.5], correction) if correction != "none" else []
        preferred.append(summary.preferred_correction(SOFT, summary.lookup(summary_of(rows))))
    assert preferred == ["none", "none", "validation_tuned", "teacher_matched", "teacher_matched"]
    without = summary.lookup(summary_of([row for row in rows if row.correction != "teacher_matched"]))
    assert summary.preferred_correction(SOFT, without) == "prior_matched"
    assert summary.corrections_of(SOFT, without) == [
        "none",
        "test_tuned",
        "validation_tuned",
        "prior_matched",
    ]


def test_units_in_words():
    assert summary.units_of(make_config(seeds=1)) == "1 seed"
    assert summary.units_of(make_config(seeds=3)) == "3 seeds"
    assert summary.units_of(make_config(seeds=4, num_teachers=2)) == "4 seeds of 2 teachers"
