"""The report's chapter on hidden signals, by hand: what comes back through each channel, and when."""

import pytest

from experiments.reporting.sections import hidden_signals
from kd_jax.io import run_folder
from kd_jax.stats.rows import HistoryRow, RepresentationRow
from kd_jax.stats.summary import summarise
from tests.experiments.reporting.toy_run import rows_of, write_run

FULL, CUT = "T=20 omit=2", "T=20 omit=2 top1"
SETTINGS = [{"name": FULL, "omitted": [2]}, {"name": CUT, "omitted": [2], "teacher_ablation": "top1"}]


@pytest.fixture
def chapter(tmp_path):
    """chapter(settings, history) -> the tables below the chapter's paragraphs, as (head, rows)."""

    def read(settings, history=()):
        rows = []
        for setting in settings:
            right = (0, 0, 0) if "teacher_ablation" in setting else (2, 4, 6)
            for seed in range(3):
                rows += rows_of(setting["name"], seed, "none", [10, 10, right[seed]], (2,))
                rows += rows_of(setting["name"], seed, "prior_matched", [10, 8, 9], (2,), 2.0)
        folder = write_run(tmp_path / "run", settings, rows, history)
        run = run_folder.read_run(folder)
        sections = hidden_signals.section(folder, run, summarise(run.results, run.description))
        return [block for one in sections for block in one.blocks if not isinstance(block, str)]

    return read


def test_what_comes_back_through_each_channel(chapter):
    (table,) = chapter(SETTINGS)
    assert table.head[1:4] == ["as trained", "teacher_matched", "prior_matched"]
    # 20, 40 and 60 %: mean 40, sd 20; half the interval is 4.302653 * 20 / sqrt(3) = 49.68. Three times 9 of
    # 10, 27 of 30: 73.47 to 97.89; three times 27 of 30: 81.86 to 95.32. Of 30 none: 0 to 1 - 0.025^(1/30).
    assert table.rows[0] == [FULL, "40.00 ± 49.7", "-", "90.00 ± 16.5", "90.00 ± 8.14", "3"]
    assert table.rows[1][:2] == [CUT, "0.00, at most 11.58"]


def test_no_chapter_where_the_channel_is_the_same_everywhere(chapter):
    assert chapter(SETTINGS[:1]) == []
    omitted = [{"name": f"omit={k}", "omitted": [k]} for k in range(3)]
    assert len(chapter(omitted)) == 1  # each class in turn


def test_a_cka_below_0_is_read_and_shown(tmp_path):
    """The unbiased estimate of unrelated features has either sign; -0.0004 to three places is 0.000."""
    rows = [row for seed in range(2) for row in rows_of(FULL, seed, "none", [10, 10, 4], (2,))]
    folder = write_run(tmp_path / "run", SETTINGS[:1], rows, seeds=2)
    measured = [("omitted", 0, -0.03), ("omitted", 1, -0.03), ("seen", 0, -0.0004), ("seen", 1, -0.0004)]
    run_folder.write_representation(
        folder, [RepresentationRow(FULL, seed, "hidden_0", "cka", part, v) for part, seed, v in measured]
    )
    run = run_folder.read_run(folder)
    (section,) = hidden_signals.section(folder, run, summarise(rows, run.description))
    explained, _, table = section.blocks
    assert "0 to 1" not in explained
    row = dict(zip(table.head[1:], table.rows[0][1:], strict=True))
    assert row["CKA to the teacher"].split()[0] == "-0.030"
    assert table.rows[0][5].split()[0] == "0.000"


def test_what_a_probe_reads_off_the_last_layer(tmp_path):
    """The last layer stands first in the file. 80 and 90 %: mean 85, t(1) * 5 = 12.706 * 5 = 63.5."""
    rows = [row for seed in range(2) for row in rows_of(FULL, seed, "none", [10, 10, 4], (2,))]
    folder = write_run(tmp_path / "run", SETTINGS[:1], rows, seeds=2)
    assert hidden_signals.probed(folder) == {}
    measured = [
        ("hidden_1", "probe", "omitted", 0, 0.8), ("hidden_1", "probe", "omitted", 1, 0.9),
        ("hidden_1", "probe", "seen", 0, 0.1), ("hidden_1", "neighbours", "omitted", 0, 0.2),
        ("hidden_0", "probe", "omitted", 0, 0.3), ("hidden_0", "probe", "omitted", 1, 0.3),
    ]  # fmt: skip
    run_folder.write_representation(
        folder,
        [
            RepresentationRow(FULL, seed, layer, measure, part, v)
            for layer, measure, part, seed, v in measured
        ],
    )
    found = hidden_signals.probed(folder)
    assert list(found) == [FULL]
    assert found[FULL].mean == pytest.approx(0.85) and found[FULL].n == 2
    assert (found[FULL].high - found[FULL].low) / 2 == pytest.approx(0.635, abs=1e-3)


def test_synthesised_images_have_columns_where_they_were_looked_at(tmp_path):
    """Shares 0.45 and 0.55: mean 50 %, sd 7.071 %, half the interval 12.7062 * 7.071 / sqrt(2) = 63.53."""
    rows = [row for seed in range(2) for row in rows_of(FULL, seed, "none", [10, 10, 4], (2,))]
    teachers = [{"run": seed, "setting": FULL, "seed": seed, "teacher_seed": seed} for seed in range(2)]
    folder = write_run(tmp_path / "run", SETTINGS[:1], rows, seeds=2, runs=teachers)
    run = run_folder.read_run(folder)
    real = [RepresentationRow(FULL, seed, "hidden_0", "probe", "omitted", 0.5) for seed in range(2)]
    made = [
        RepresentationRow(FULL, seed, "hidden_0", f"{measure}_synthesised", "omitted", value)
        for measure, values in (("probe", (0.45, 0.55)), ("cka", (0.5, 0.5)), ("centroid_distance", (1, 1)))
        for seed, value in enumerate(values)
    ]
    found = []
    for measured in (real, real + made):
        run_folder.write_representation(folder, measured)
        (section,) = hidden_signals.section(folder, run, summarise(rows, run.description))
        found.append(section.blocks)
    (explained, _, table), (again, more, _, wider) = found
    assert explained == again == hidden_signals.EXPLAINED and more == hidden_signals.EXPLAINED_SYNTHESISED
    assert wider.head[:8] == table.head[:8] and wider.rows[0][:8] == table.rows[0][:8]
    assert len(wider.head) == len(table.head) + 3 and wider.head[-1] == table.head[-1] == "n"
    row = dict(zip(wider.head[8:], wider.rows[0][8:], strict=True))
    assert row["linear probe, synthesised"] == "50.0 ± 63.5"
    assert row["CKA to the teacher, synthesised"].split()[0] == "0.500"
    assert row["distance of synthesised from real"].split()[0] == "1.00"
    shown = hidden_signals.read_off(folder)
    assert shown.blocks[1].head[-1] == "n" and len(shown.blocks[1].head) == 6


def test_when_it_comes_back(chapter):
    history = [
        HistoryRow(0, FULL, seed, epoch, "validation", metric, 0.1 * epoch + extra)
        for seed in range(3)
        for epoch in range(1, 6)
        for metric, extra in (
            ("accuracy_omitted", 0.0),
            ("accuracy_omitted_corrected", 0.2),
            ("accuracy_omitted_probe", 0.4),
        )
    ]
    (table,) = chapter(SETTINGS[:1], history)
    assert table.head[1:4] == ["classified, epoch 1", "classified, epoch 3", "classified, epoch 5"]
    cells = ["10.00", "30.00", "50.00", "30.00", "50.00", "70.00", "50.00", "70.00", "90.00"]
    assert table.rows == [[FULL, *(f"{cell} (no spread seen)" for cell in cells), "3"]]
    # Without the probe, which only --track has, the learning curves say it all.
    assert chapter(SETTINGS[:1], [row for row in history if "probe" not in row.metric]) == []
    # A history of which somebody has cut lines is no crash.
    assert chapter(SETTINGS[:1], [row for row in history if row.metric != "accuracy_omitted"]) == []
