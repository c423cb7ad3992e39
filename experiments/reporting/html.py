"""report.html: a run's report as a page that needs no network, with curves and a bias to move."""

import base64
import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting import sentences
from experiments.reporting.content import Content, class_parts, grid, run_facts, show_part
from experiments.reporting.markdown import Grid, Section, show
from experiments.reporting.sections import misclassified
from kd_jax.io import examples
from kd_jax.stats import corrections, curves, learning_speed
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.description import SettingInfo
from kd_jax.stats.intervals import Interval

TEMPLATES = Path(__file__).parent / "templates"
LINES = {"omitted": 0, "seen": 1, "all": 2}  # the number of each one's colour in COLOURS, as in the figure
MOST_CURVED, MOST_EPOCHS, MOST_CONFUSED, MOST_NAMED = 12, 500, 15, 20


def render(folder: Path, content: Content, sections: Sequence[Section]) -> bytes:
    """The page of a run; the same run gives the same bytes.

    Errors: InputError for a damaged examples.npz.
    """
    description = content.run.description
    shown = examples.read(folder, description.data.num_classes)
    learnt, biases = learning_curves(content), bias_curves(content)
    figures = {s.figure: _data_uri(folder / s.figure) for s in sections if s.figure}
    return fill(
        "report.html",
        {"curves": learnt, "biases": biases},
        title=folder.resolve().name,
        question=sentences.question(description),
        answer=sentences.answer(content),
        answer_table=sentences.answer_table(content),
        answer_note=sentences.answer_note(content),
        test=f"{description.data.name}, {description.data.test} examples",
        table=class_table(content),
        notes=sentences.table_notes(content),
        corrections=sentences.used_corrections(content),
        learnt=learnt,
        biases=biases,
        maps=heat_maps(content),
        confusion=confusion(content),
        examples=shown,
        pictures=misclassified.pictures(shown, description.data.class_names) if shown else [],
        sections=sections,
        figures=figures,
        command=description.command,
        facts=run_facts(description),
    )


def fill(template: str, data: dict[str, Any], **variables: Any) -> bytes:
    """A template as bytes. Text is escaped, and so is the JSON of `data`, which the
    page's script reads; of scripts the page runs that one alone, known by its hash."""
    import jinja2
    from markupsafe import Markup

    from kd_jax.plots.style import COLOURS

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["numeric_columns"] = _numeric_columns
    script = (TEMPLATES / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    common = {"script": Markup(script), "digest": digest, "colours": COLOURS, "data": data}
    return environment.get_template(template).render(common | variables).encode()


def _numeric_columns(table: Grid) -> list[Any]:
    """Of each column the attribute that aligns it: numbers, or none, in all its cells stand to the right."""
    from markupsafe import Markup

    columns = zip(table.head, *table.rows, strict=True)
    numeric = [all(re.match(r"[+\->]?\d|-?$", cell) for cell in column[1:]) for column in columns]
    return [Markup(' class="number"') if is_numeric else "" for is_numeric in numeric]


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def class_table(content: Content) -> dict[str, Any]:
    """The table of the classes: its heads, and the settings, each with a row a correction; of a cell the
    mean, what stands below it, and whether its class is omitted."""
    parts, heads = class_parts(content.run.description)
    rows = grid(content, ["all", *parts], half=" ± ")
    groups = [
        {"setting": setting, "rows": [_row(*row[1:]) for row in rows_of]}
        for setting, rows_of in itertools.groupby(rows, key=lambda row: row[0])
    ]
    return {"heads": heads, "groups": groups}


def _row(correction: str, errors: str, *cells: str) -> dict[str, Any]:
    *accuracies, n = cells
    split = [(*_below(cell.rstrip(" *")), cell.endswith("*")) for cell in accuracies]
    bound = not corrections.is_result(correction)
    return {"correction": correction, "bound": bound, "errors": errors, "cells": split, "n": n}


def _below(cell: str) -> tuple[str, str]:
    """(mean, what stands below it): "± 0.20", "at least 99.2" or nothing."""
    mean, bounded, bound = cell.partition(", ")
    if bounded:
        return mean, bound
    mean, sign, half = cell.partition(" ± ")
    return mean, f"±\N{NO-BREAK SPACE}{half}" if sign else ""


def learning_curves(content: Content) -> list[dict[str, Any]]:
    """A panel a metric: what it is of, and its lines; those that the figure colours have a colour."""
    from kd_jax.plots.curves import MOST_CURVES

    split = learning_speed.judged_split(content.run.history)
    by_epoch = curves.by_epoch(content.run.history, content.run.description, split)
    settings = [s.name for s in content.run.description.settings if (s.name, "accuracy") in by_epoch]
    coloured = curves.most_worth(by_epoch, settings, MOST_CURVES)
    return [
        {
            "title": f"{'validation' if split == 'validation' else 'training'} accuracy (%), {title}",
            "lines": [
                {
                    "name": name,
                    "colour": coloured.index(name) if name in coloured else None,
                    "points": _points(_thinned(by_epoch[name, metric])),
                }
                for name in settings
                if (name, metric) in by_epoch
            ],
        }
        for metric, title in curves.TITLES.items()
        if any((name, metric) in by_epoch for name in settings)
    ]


def _thinned(points: np.ndarray) -> np.ndarray:
    """At most about 500 of them, the last one among them."""
    return points[:: -max(1, len(points) // MOST_EPOCHS)][::-1]


def _points(array: np.ndarray) -> list[list[float | None]]:
    """Numbers for JSON, which has no nan; 0.001 % is finer than a screen."""
    return [[None if math.isnan(value) else round(float(value), 3) for value in row] for row in array]


def bias_curves(content: Content) -> list[dict[str, Any]]:
    """Of each setting with a bias curve: the biases, the accuracies under each as the tables print them, the
    lines of the chart, and what each correction chose."""
    description = content.run.description
    curved = {row.setting for row in content.run.bias_curve}
    settings = [s for s in description.settings if s.name in curved]
    settings.sort(key=lambda setting: setting.name != content.head[0])
    return [_bias_curve(content, setting) for setting in settings[:MOST_CURVED]]


def _bias_curve(content: Content, setting: SettingInfo) -> dict[str, Any]:
    description, name, omitted = content.run.description, setting.name, set(setting.omitted)
    shown, heads = class_parts(description)
    parts = list(dict.fromkeys(["omitted", "seen", "all", *shown]))
    by_bias = curves.by_bias(content.run.bias_curve, content.summary, description, name, parts)
    rows = zip(["all", *shown], ["all classes", *heads], strict=True)
    absent = {"omitted", *map(str, omitted)}
    return {
        "name": name,
        "biases": list(by_bias["all"]),
        "lines": [
            {"name": f"{part} classes", "colour": colour, "points": _points(curves.in_percent(by_bias[part]))}
            for part, colour in LINES.items()
        ],
        "rows": [
            {
                "part": part,
                "name": head,
                "omitted": part in absent,
                "colour": LINES["all" if part == "all" else "omitted" if part in absent else "seen"],
                "texts": [show_part(interval, part, " ± ") for interval in by_bias[part].values()],
                "means": [point[1] for point in _points(curves.in_percent(by_bias[part]))],
            }
            for part, head in rows
        ],
        "chosen": _chosen(content, name),
    }


def _chosen(content: Content, setting: str) -> list[dict[str, Any]]:
    """The bias that each correction chose: its mean, and how far the seeds are apart."""
    by_seed: dict[str, list[float]] = {}
    for row in content.run.results:
        if (row.setting, row.split, row.class_, row.metric) == (setting, "test", "omitted", "bias"):
            by_seed.setdefault(row.correction, []).append(row.value)
    chosen = [c for c in content.summary.corrections_of(setting) if c != "none"]
    return [
        {
            "correction": correction,
            "dash": " ".join(map(str, CORRECTIONS[correction].dashes)) or "none",
            "mean": bias.mean,
            "low": min(by_seed[correction]),
            "high": max(by_seed[correction]),
            "seeds": len(by_seed[correction]),
        }
        for correction in chosen
        if (bias := content.summary.bias(setting, correction))
        and not any(map(math.isnan, by_seed.get(correction, [math.nan])))
    ]


def heat_maps(content: Content) -> list[dict[str, Any]]:
    """T x alpha, where settings that differ in nothing else have several values of both: test accuracies, of
    the omitted classes too where there are such."""
    groups: dict[str, list[SettingInfo]] = {}
    for setting in content.run.description.settings:
        rest = setting.without("temperature", "alpha")
        groups.setdefault(repr(sorted(rest.items())), []).append(setting)
    return [one for group in groups.values() for one in _heat_maps(content, group)]


def _heat_maps(content: Content, group: list[SettingInfo]) -> list[dict[str, Any]]:
    places = {(s.get("temperature"), s.get("alpha")): s.name for s in group}
    taught = [(t, alpha) for t, alpha in places if t is not None and alpha is not None]
    temperatures, alphas = (sorted({place[axis] for place in taught}) for axis in (0, 1))
    if min(len(temperatures), len(alphas)) < 2:
        return []
    omitted = group[0].omitted
    shown = [("all", "none")] if not omitted else [("omitted", "none")]
    after = content.summary.preferred_correction(places[taught[0]])
    shown += [("omitted", after), ("all", after)] if omitted and after != "none" else []
    plain = [s.name for s in group if s.get("alpha") == 0]
    names = content.run.description.data.class_names
    of = f", {', '.join(names[k] for k in omitted)} left out" if omitted else ""
    maps = []
    for part, correction in shown:
        at = lambda name, part=part, c=correction: content.summary.accuracy(name, part, c)  # noqa: E731
        cells = {place: at(name) for place, name in places.items() if place in taught}
        means = [cell.mean for cell in cells.values() if cell and not math.isnan(cell.mean)]
        low, width = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
        maps.append(
            {
                "title": f"{part} classes, {corrections.title(correction)}{of}",
                "alphas": [f"{alpha:g}" for alpha in alphas],
                "rows": [
                    (f"{t:g}", [_shaded(cells.get((t, alpha)), low, width) for alpha in alphas])
                    for t in temperatures
                ],
                "plain": f"{plain[0]}: {show(at(plain[0]), half=' ± ')}" if plain else "",
            }
        )
    return maps


def _shaded(interval: Interval | None, low: float, width: float) -> tuple[str, str, float]:
    """(mean, what stands behind ±, shade from 0 to 1)."""
    mean, _, half = show(interval, half=" ± ").partition(" ± ")
    known = interval is not None and not math.isnan(interval.mean)
    return mean, half, round((interval.mean - low) / width, 3) if known and width else 0.0  # type: ignore[union-attr]


def confusion(content: Content) -> dict[str, Any] | None:
    """The matrices of the answer's setting, as trained and corrected, in %; of many classes, the confusions
    that come most often."""
    description, (name, correction) = content.run.description, content.head
    data, rows = description.data, content.run.confusions
    if not any(row.setting == name for row in rows):
        return None
    shown = list(dict.fromkeys(["none", correction]))
    shares = [curves.confusion(rows, data.num_classes, name, c) for c in shown]
    names, omitted = data.class_names, description.setting(name).omitted
    heads = [corrections.title(correction) for correction in shown]
    labels = [f"{called} *" if k in omitted else called for k, called in enumerate(names)]
    section: dict[str, Any] = {"setting": name, "heads": heads, "labels": labels, "matrices": [], "most": []}
    if data.num_classes <= MOST_NAMED:
        text = lambda share: "" if share < 0.05 else f"{share:.0f}" if share >= 9.95 else f"{share:.1f}"  # noqa: E731
        section["matrices"] = [
            [[(text(share), round(share / 100, 3)) for share in row] for row in one] for one in shares
        ]
        return section
    wrong = shares[0] * (1 - np.eye(data.num_classes))
    most = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    places = [divmod(int(k), data.num_classes) for k in most]
    section["most"] = [
        (labels[true], labels[called], [f"{one[true, called]:.1f}" for one in shares])
        for true, called in places
        if wrong[true, called] > 0
    ]
    return section
