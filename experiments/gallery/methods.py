"""The tables of methods: what each brings back of an omitted class, what a linear probe reads off, what it
gains with all classes, and its difference to plain distillation."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.reporting.markdown import difference_cells, show, table
from experiments.reporting.sections import hidden_signals
from kd_jax.stats.intervals import Difference, holm
from kd_jax.stats.summary import Summary

PLAIN = "T=4"
"""Plain distillation, with all classes a setting of each run; with an omitted class its name goes on."""

OMITTED = " omit=3"
"""What ends the name of a setting without class 3."""

COMPARED = "prior_matched"
HEAD_OF_DIFFERENCE = (f"less `{PLAIN}`, points", "95 % interval", "p", "n", "p, Holm")
MNIST = ("methods_logits", "methods_features")
CIFAR10 = ("methods_cifar10_reduced_logits", "methods_cifar10_reduced_features")


class Quantity(NamedTuple):
    """A column: its head, and of which classes the accuracy is, under which bias correction."""

    head: str
    class_: str
    correction: str = "none"


def blocks(results: Path) -> dict[str, Callable[[], str]]:
    """The tables by name."""
    return {
        "methods": partial(omission, results, MNIST, "3s"),
        "methods_cifar10": partial(omission, results, CIFAR10, "cats"),
        "methods_all": partial(block, results, CIFAR10, "", [Quantity("all classes", "all")]),
    }


def omission(results: Path, runs: tuple[str, ...], plural: str) -> str:
    """The settings without class 3, whose images are `plural`; the differences are of them under COMPARED."""
    quantities = [
        Quantity("seen classes", "seen"),
        Quantity(f"the {plural}", "omitted"),
        Quantity(f"the {plural}, `{COMPARED}`", "omitted", COMPARED),
    ]
    return block(results, runs, OMITTED, quantities, f"the {plural}, linear probe")


def block(
    results: Path, runs: tuple[str, ...], ending: str, quantities: list[Quantity], probe: str = ""
) -> str:
    """The settings of these runs in Markdown; the differences are of the last quantity, and Holm's correction
    is over all of them.

    ending: OMITTED, or "" for the settings with all classes.  probe: the head of the column on what a linear
    probe reads off; "" for no such column.
    """
    folders = [results / run for run in runs]
    if not all((folder / "summary.json").is_file() for folder in folders):
        return "No result yet."
    rows: list[list[str]] = []
    differences: list[Difference | None] = []
    plain, shown = PLAIN + ending, set()
    for folder in folders:
        summary = Summary.from_json(json.loads((folder / "summary.json").read_text()))
        probed = hidden_signals.probed(folder) if probe else {}
        for setting in json.loads((folder / "config.json").read_text())["settings"]:
            name = setting["name"]
            omits = name.endswith(OMITTED)
            if omits != bool(ending) or name in shown:  # what both runs have is shown of the first
                continue
            shown.add(name)
            cells = [
                show(summary.accuracy(name, one.class_, one.correction), half=" ± ") for one in quantities
            ]
            if probe:
                cells.append(show(probed.get(name), half=" ± "))
            rows.append([f"`{name}`", *cells])
            differences.append(difference(summary, name, plain, quantities[-1]))
    adjusted = holm([math.nan if one is None else one.p for one in differences])
    for row, one, p in zip(rows, differences, adjusted, strict=True):
        row += ["", "", "", "", ""] if one is None else [*difference_cells(one), as_p(p)]
    heads = [one.head for one in quantities] + [probe] * bool(probe)
    return "\n".join(table(["setting", *heads, *HEAD_OF_DIFFERENCE], rows))


def difference(summary: Summary, name: str, plain: str, quantity: Quantity) -> Difference | None:
    """The setting less plain distillation, paired over seeds; None where they are not compared."""
    for pair in summary.paired:
        what = pair.correction, pair.class_, pair.metric
        wanted = quantity.correction, quantity.class_, "accuracy"
        if what != wanted or {pair.a, pair.b} != {name, plain} or name == plain:
            continue
        mean, low, high, p, n = pair.difference
        return Difference(-mean, -high, -low, p, n) if pair.a == plain else pair.difference
    return None


def as_p(p: float) -> str:
    """A corrected p as the report shows one."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
