"""The report's sections on ensembles: the accuracy of several models together, and each teacher alone."""

from collections.abc import Sequence

from experiments.reporting.markdown import Grid, Section, show
from kd_jax.io.run_folder import Run
from kd_jax.stats.rows import TEACHER
from kd_jax.stats.summary import Summary

MOST_TEACHERS = 30
EXPLAINED = (
    "Test split, as trained; members answer together by the mean of their probabilities (T = 1), accuracy in "
    "%. n counts ensembles: where it is 1, this is one ensemble, without an interval."
)


def section(settings: Sequence[str], run: Run, summary: Summary) -> list[Section]:
    """What the students of a setting, or the teachers of a student, come to together, if there is such."""
    rows = []
    for name in settings:
        if (errors := summary.get(name, "ensemble_errors")) is None:
            continue
        accuracies = [
            show(summary.get(name, "ensemble_accuracy", part), half=" ± ") for part in ("all", "omitted")
        ]
        one_by_one, together = (show(one, 1, 1, half=" ± ") for one in (summary.errors(name), errors))
        rows.append([name, _num_members(name, run), one_by_one, together, *accuracies, str(errors.n)])
    if not rows:
        return []
    heads = ["setting", "members", "errors, one by one", "errors together", "all classes", "omitted", "n"]
    explained = EXPLAINED
    if run.description.flags.get("loss") == "logits" and TEACHER in [row[0] for row in rows]:
        explained += " What these students learn from is the mean of the teachers' logits."
    return [Section("Ensembles", [explained, Grid(heads, rows)])]


def _num_members(setting: str, run: Run) -> str:
    if setting == TEACHER and (teacher := run.description.teacher):
        all_ = teacher.get("teacher_seeds") == "ensemble"
        return f"{teacher['num_teachers'] if all_ else len(teacher['members'])} teachers"
    count = sum(one.setting == setting for one in run.description.runs)
    return f"{count} {'teachers' if setting == TEACHER else 'students'}"


def teachers_section(run: Run, summary: Summary) -> list[Section]:
    """Each teacher alone, where a student learns from several."""
    teacher, errors, rows = run.description.teacher or {}, {}, []
    if not teacher or summary.get(TEACHER, "ensemble_errors") is None:
        return []
    for row in run.results:
        if row[:1] + row[2:6] == (TEACHER, "test", "none", "all", "errors"):
            errors[row.seed] = row.value
    total = run.description.data.test
    folders = [about for about in teacher.get("members", [teacher]) for _ in range(about["num_teachers"])]
    for number, about in enumerate(folders[:MOST_TEACHERS]):
        place = ", ".join([about["path"], *([about["setting"]] if "setting" in about else [])])
        accuracy = f"{100 * (1 - errors[number] / total):.2f}"
        rows.append([str(number), place, about["model"], f"{errors[number]:.0f}", accuracy])
    note = f"Test split; {len(rows)} of {len(folders)}."
    heads = ["number", "folder", "model", "errors", "all classes, %"]
    return [Section("Teachers", [note, Grid(heads, rows)])]
