"""The report's section on what accuracy does not say: of each setting as trained, on the test split."""

from collections.abc import Sequence

from experiments.reporting.markdown import Grid, Section, show
from kd_jax.stats.summary import Summary

# Metric, its head, scale and decimals.
COLUMNS = (
    ("macro_precision", "precision", 100, 2),
    ("macro_recall", "recall", 100, 2),
    ("macro_f1", "F1", 100, 2),
    ("top5_accuracy", "top-5", 100, 2),
    ("nll", "NLL", 1, 3),
    ("ece", "ECE", 100, 2),
    ("agreement", "agreement", 100, 2),
    ("kl_to_teacher", "KL", 1, 3),
)
EXPLAINED = (
    "Test split, as trained. Precision, recall and F1 (%) are means over the classes; NLL (nats) and the "
    "calibration error (ECE, %, 15 bins) are at T = 1. ECE is larger where examples are few: "
    "compare it on one test split alone."
)
OF_TEACHER = "Agreement (%) and KL(teacher ‖ student) (nats) are with the teacher that the student was given."


def section(settings: Sequence[str], summary: Summary) -> list[Section]:
    """None for a run of before these were measured."""
    shown = [column for column in COLUMNS if any(key.metric == column[0] for key in summary.intervals)]
    rows = []
    for name in settings:
        if nll := summary.get(name, "nll"):
            cells = [
                show(summary.get(name, metric), scale, digits, " ± ") for metric, _, scale, digits in shown
            ]
            rows.append([name, *cells, str(nll.n)])
    if not rows:
        return []
    taught = any(metric == "kl_to_teacher" for metric, *_ in shown)
    note = f"{EXPLAINED} {OF_TEACHER}" if taught else EXPLAINED
    heads = ["setting", *(head for _, head, *_ in shown), "n"]
    return [Section("Beyond accuracy", [note, Grid(heads, rows)])]
