"""The report's sections on ensembles: what several models come to together, and each teacher alone."""

from collections.abc import Sequence

from experiments.reporting.markdown import Grid, Section, show
from kd_jax.io.run_folder import Run
from kd_jax.stats.rows import TEACHER
from kd_jax.stats.summary import Values

MOST_TEACHERS = 30
EXPLAINED = (
    "Test split, as trained; members answer together by the mean of their probabilities (T = 1), accuracy in "
    "%. n counts ensembles: where it is 1, this is one ensemble, without an interval."
)


def section(settings: Sequence[str], run: Run, values: Values) -> list[Section]:
    """What the students of a setting, or the teachers of a student, come to together, if there is such."""
    rows = []
    for name in settings:
        of = lambda class_, metric, name=name: values.get((name, "test", "none", class_, metric))  # noqa: E731
        if (errors := of("all", "ensemble_errors")) is None:
            continue
        accuracies = [show(of(part, "ensemble_accuracy"), half=" ± ") for part in ("all", "omitted")]
        one_by_one, together = (show(i, 1, 1, half=" ± ") for i in (of("all", "errors"), errors))
        rows.append([name, _num_members(name, run), one_by_one, together, *accuracies, str(errors.n)])
    if not rows:
        return []
    heads = ["setting", "members", "errors, one by one", "errors together", "all classes", "omitted", "n"]
    explained = EXPLAINED
    if run.config["flags"].get("loss") == "logits" and TEACHER in [row[0] for row in rows]:
        explained += " What these students learn from is the mean of the teachers' logits."
    return [Section("Ensembles", [explained, Grid(heads, rows)])]


def _num_members(setting: str, run: Run) -> str:
    if setting == TEACHER and (teacher := run.config["teacher"]):
        all_ = teacher.get("teacher_seeds") == "ensemble"
        return f"{teacher['num_teachers'] if all_ else len(teacher['members'])} teachers"
    count = sum(entry["setting"] == setting for entry in run.config["runs"])
    return f"{count} {'teachers' if setting == TEACHER else 'students'}"


def teachers_section(run: Run, values: Values) -> list[Section]:
    """Each teacher alone, where a student learns from several."""
    teacher, errors, rows = run.config["teacher"] or {}, {}, []
    if (TEACHER, "test", "none", "all", "ensemble_errors") not in values or not teacher:
        return []
    for row in run.results:
        if row[:1] + row[2:6] == (TEACHER, "test", "none", "all", "errors"):
            errors[row.seed] = row.value
    total = run.config["data"]["test"]
    folders = [about for about in teacher.get("members", [teacher]) for _ in range(about["num_teachers"])]
    for number, about in enumerate(folders[:MOST_TEACHERS]):
        place = ", ".join([about["path"], *([about["setting"]] if "setting" in about else [])])
        accuracy = f"{100 * (1 - errors[number] / total):.2f}"
        rows.append([str(number), place, about["model"], f"{errors[number]:.0f}", accuracy])
    note = f"Test split; {len(rows)} of {len(folders)}."
    heads = ["number", "folder", "model", "errors", "all classes, %"]
    return [Section("Teachers", [note, Grid(heads, rows)])]
