"""The report's chapter on what the students' features hold, where `representation` has looked."""

from pathlib import Path
from typing import Any

from experiments.markdown import Grid, Section, show, tabulate
from kd_jax import results, summary
from kd_jax.results import RANDOM

FIGURE = "figures/features.png"
SHOWN = (
    ("probe", "missing", "linear probe", 100, 1),
    ("probe", "kept", "the others", 100, 1),
    ("neighbours", "missing", "10 neighbours", 100, 1),
    ("cka", "missing", "CKA to the teacher", 1, 3),
    ("cka", "kept", "the others", 1, 3),
    ("silhouette", "missing", "silhouette", 1, 3),
    ("centroid_distance", "missing", "distance of the centre", 1, 2),
)
EXPLAINED = (
    "Of each network's features, as the next layer sees them (large maps averaged), test split. Linear "
    "probe and neighbours: recall in %, fitted on validation images of all classes, the one that was left "
    "out too: what could be read off, not what is. CKA (0 to 1): with the same layer of the student's "
    "teacher, on images of the class and of the others. Silhouette (-1 to 1) and distance of the centre "
    "(in root mean square distances from it): how apart the class lies. "
    f"{RANDOM!r}: the same networks before training."
)


def last_layer(folder: Path) -> str:
    """The table of a run's last hidden layer, which stands first in the file."""
    config = results.read_config(folder)
    rows = results.read_representation(folder, config)
    return "\n".join(tabulate(*_table(rows, rows[0].layer, config))).strip()


def _table(rows: list[results.RepresentationRow], layer: str, config: dict[str, Any]) -> Grid:
    taught, table = summary.teachers_of(config), []
    # An untrained network is compared with the teacher of its seed's students.
    taught |= {(RANDOM, seed): teacher for (_, seed), teacher in taught.items()}
    for setting in dict.fromkeys(row.setting for row in rows):
        own = [row for row in rows if (row.setting, row.layer) == (setting, layer)]
        cells, units = [], 0
        for measure, classes, _, scale, digits in SHOWN:
            found = {row.seed: row.value for row in own if (row.measure, row.class_) == (measure, classes)}
            interval = summary.interval_of(setting, found, taught)
            units = max(units, interval.n)
            cells.append(show(interval, scale, digits, " ± "))
        table.append([setting, *cells, str(units)])
    return Grid(["", *(head for *_, head, _, _ in SHOWN), "n"], table)


def section(folder: Path, config: dict[str, Any]) -> list[Section]:
    """The report's chapter; none where nobody has looked."""
    if not (folder / "representation.csv").is_file():
        return []
    rows = results.read_representation(folder, config)
    blocks: list[str | Grid] = [EXPLAINED]
    for layer in dict.fromkeys(row.layer for row in rows):
        blocks += [f"Layer {layer}:", _table(rows, layer, config)]
    return [Section("Hidden signals", blocks, FIGURE if (folder / FIGURE).is_file() else "")]
