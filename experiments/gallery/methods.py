"""The table of methods: what each brings back of an omitted class, and its difference to plain
distillation."""

import json
import math
from pathlib import Path

from experiments.reporting.markdown import difference_cells, show, table
from kd_jax.stats.intervals import Difference, holm
from kd_jax.stats.summary import Summary

RUNS = ("methods_logits", "methods_features")
PLAIN = "T=4 omit=3"
"""Plain distillation, a setting of each run."""

COMPARED = "prior_matched"
HEAD = ("setting", "seen classes", "the 3s", f"the 3s, `{COMPARED}`")
HEAD_OF_DIFFERENCE = ("less `T=4`, points", "95 % interval", "p", "n", "p, Holm")


def block(results: Path) -> str:
    """All settings of both runs in Markdown; the differences are of the 3s under COMPARED, and Holm's
    correction is over all of them."""
    folders = [results / run for run in RUNS]
    if not all((folder / "summary.json").is_file() for folder in folders):
        return "No result yet."
    rows: list[list[str]] = []
    differences: list[Difference | None] = []
    for folder in folders:
        summary = Summary.from_json(json.loads((folder / "summary.json").read_text()))
        for setting in json.loads((folder / "config.json").read_text())["settings"]:
            name = setting["name"]
            if name == PLAIN and folder != folders[0]:
                continue
            keys = (("seen", "none"), ("omitted", "none"), ("omitted", COMPARED))
            cells = [show(summary.accuracy(name, *key), half=" ± ") for key in keys]
            rows.append([f"`{name}`", *cells])
            differences.append(difference_to_plain(summary, name))
    adjusted = holm([math.nan if one is None else one.p for one in differences])
    for row, one, p in zip(rows, differences, adjusted, strict=True):
        row += ["", "", "", "", ""] if one is None else [*difference_cells(one), as_p(p)]
    return "\n".join(table([*HEAD, *HEAD_OF_DIFFERENCE], rows))


def difference_to_plain(summary: Summary, name: str) -> Difference | None:
    """The setting less PLAIN; None where they are not compared."""
    for pair in summary.paired:
        what = pair.correction, pair.class_, pair.metric
        if what != (COMPARED, "omitted", "accuracy") or {pair.a, pair.b} != {name, PLAIN} or name == PLAIN:
            continue
        mean, low, high, p, n = pair.difference
        return Difference(-mean, -high, -low, p, n) if pair.a == PLAIN else pair.difference
    return None


def as_p(p: float) -> str:
    """A corrected p as the report shows one."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
