"""Rebuild the report of finished runs from their files alone: report RUN [RUN...] [--reach=PERCENT]

Reads config.json, history.csv, results.csv and bias_curve.csv of each run folder and writes report.md,
summary.json and figures/*.png and .svg beside them; prints the table. Everything is read and drawn before
anything is written, and the same files give the same report to the byte.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import common, ensembles, hidden_signals, learning, quality
from experiments.markdown import plain, show, tabulate
from kd_jax import results, summary
from kd_jax.stats import Interval
from kd_jax.types import InputError

FLAGS = flags.FLAGS
EXAMPLE = "report runs/quickstart --reach=90"
flags.DEFINE_float(
    "reach",
    None,
    "Accuracy in % of which the report says how soon it is reached (default: 90 % of the best setting's).",
    lower_bound=0,
    upper_bound=100,
)
flags.register_validator("reach", lambda reach: reach is None or reach > 0)  # which nan is not

WIDTH = 110  # columns of the terminal table
MOST_SETTINGS, MOST_CLASSES, MOST_PAIRS = 12, 10, 30
HOW = {
    "none": "as trained",
    "test_tuned": "bias tuned on the TEST set, which shows what is possible and is no result",
    "validation_tuned": "bias tuned on the labels of the validation split",
    "prior_matched": "bias set from unlabelled validation images and the known shares of the classes",
    "teacher_matched": "bias set from the teacher on the transfer set, without an example of what is missing",
}


class Content(NamedTuple):
    """What the renderings share. values: every interval; paired: every difference; head: the setting that the
    answer speaks of, chosen on the validation split, and its correction that needs the fewest labels."""

    run: results.Run
    values: summary.Values
    paired: list[dict[str, Any]]
    settings: list[dict[str, Any]]
    head: tuple[str, str]


def main(argv: Sequence[str]) -> None:
    """Errors: InputError for a folder that is no run folder or a damaged file; then nothing is written."""
    if not argv[1:]:
        raise InputError("no run to report on", "report RUN [RUN...]", "no folder")
    for files, text in [_render(Path(folder)) for folder in argv[1:]]:
        _write(files)
        print(text)


def build(run_dir: str | Path) -> str:
    """Writes report.md, summary.json and figures/*.png and .svg of a run folder; returns the terminal's text.

    Errors: InputError as for `main`.
    """
    files, text = _render(Path(run_dir))
    _write(files)
    return text


def _write(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        results.write_file(path, content)


def _render(folder: Path) -> tuple[dict[Path, bytes], str]:
    run = results.read_run(folder)
    sums, settings = summary.summarise(run.results, run.config), run.config["settings"]
    values = summary.lookup(sums)
    best = summary.best_setting(settings, values)
    head = best, summary.preferred_correction(best, values)
    named = {setting["name"] for setting in settings}
    if results.TEACHER not in named and summary.corrections_of(results.TEACHER, values):
        settings = [{"name": results.TEACHER, "missing": []}, *settings]
    content = Content(run, values, sums["paired"], settings, head)
    figures = _figures(content)
    files = {
        folder / "figures" / f"{name}.{kind}": drawn
        for name, kinds in figures.items()
        for kind, drawn in kinds.items()
    }
    files[folder / "summary.json"] = results.to_json(sums)
    hidden = hidden_signals.section(folder, run.config)
    files[folder / "report.md"] = _markdown(folder.resolve().name, content, hidden, list(figures)).encode()
    level = FLAGS["reach"].value
    soon = learning.section(run.history, run.config, level) if level else []
    return files, "\n".join([_terminal(content), "", *soon, f"Report: {folder / 'report.md'}"])


def _figures(content: Content) -> dict[str, dict[str, bytes]]:
    """Of each figure, its file of each kind."""
    from kd_jax import plots  # matplotlib takes half a second, so only where it is used

    config, values, rows = content.run.config, content.values, content.run.results
    if config["experiment"] == "subliminal":  # of a hundred models, and of noise, the others say little
        return {"axis": plots.render(plots.axis(values, config))}
    corrections = {s["name"]: summary.preferred_correction(s["name"], values) for s in content.settings}
    figures = {"class_bars": plots.class_bars(values, config, corrections)}
    if content.run.history:
        figures["learning_curves"] = plots.learning_curves(content.run.history, config)
        level = learning.level_of(content.run.history, config, FLAGS["reach"].value)
        if plots.is_grid(config["settings"]):
            figures["learning_grid"] = plots.learning_grid(content.run.history, config, level)
    curved = {row.setting for row in content.run.bias_curve}
    if curved:
        shown = [setting["name"] for setting in content.settings if setting["name"] in curved]
        figures["bias_curve"] = plots.bias_curve(content.run.bias_curve, values, config, shown)
    name, correction = content.head
    if any(row.metric.startswith("predicted_as_") and row.setting == name for row in rows):
        shown = list(dict.fromkeys(["none", correction]))
        figures["confusion_matrix"] = plots.confusion_matrix(rows, config, name, shown)
    return {name: plots.render(figure) for name, figure in figures.items()}


# Sentences


def _question(config: dict[str, Any]) -> str:
    if config.get("question"):
        return str(config["question"])
    if config["experiment"] == "train_teacher":
        return "How accurate is the teacher?"
    if any(setting["missing"] for setting in config["settings"]):
        return "Can a student classify what it never saw, from what its teacher says about other examples?"
    return "How much of its teacher's accuracy does the student reach?"


def _answer(content: Content) -> str:
    (name, correction), values, config = content.head, content.values, content.run.config
    missing = next(setting["missing"] for setting in content.settings if setting["name"] == name)

    def share(setting: str, correction: str, class_: str) -> str:
        return _in_words(values.get((setting, "test", correction, class_, "accuracy")))

    if not missing:
        sentence = f"{_chosen(content)} gets {share(name, 'none', 'all')} of the test examples right"
        if name != results.TEACHER and content.settings[0]["name"] == results.TEACHER:
            sentence += f", {_its_teacher(config)} {share(results.TEACHER, 'none', 'all')}"
            if together := values.get((results.TEACHER, "test", "none", "all", "ensemble_accuracy")):
                sentence += f", together {_in_words(together)}"
        sentence += _without_teacher(content, name, lambda plain: share(plain, "none", "all"))
        return f"{sentence[0].upper()}{sentence[1:]}; {summary.units_of(config)}."
    classes = [config["data"]["class_names"][index] for index in missing]
    unseen = f"class {classes[0]}" if len(classes) == 1 else f"the classes {', '.join(classes)}"
    left = next(setting.get("left", 0) for setting in content.settings if setting["name"] == name)
    seen = f"Having seen {left} of" if left else "Having never seen"
    sentence = (
        f"{seen} {unseen}, {_chosen(content)} gets {share(name, 'none', 'missing')} "
        "of those test examples right as trained"
    )
    if correction == "none":
        sentence += _without_teacher(content, name, lambda plain: share(plain, "none", "missing"))
    else:
        sentence += f", and {share(name, correction, 'missing')} with its {HOW[correction]} ({correction})"
        sentence += _without_teacher(
            content,
            name,
            lambda plain: f"{share(plain, 'none', 'missing')} and {share(plain, correction, 'missing')}",
        )
    return f"{sentence}; {summary.units_of(config)}."


def _without_teacher(content: Content, name: str, share: Callable[[str], str]) -> str:
    """What the first plain student that misses the same classes comes to, beside one that had a teacher."""
    settings = {setting["name"]: setting for setting in content.run.config["settings"]}
    if settings.get(name, {}).get("alpha", 0) == 0:
        return ""
    plain = [
        other
        for other, setting in settings.items()
        if setting.get("alpha") == 0
        and all(setting.get(key) == settings[name].get(key) for key in ("missing", "left"))
    ]
    return f", without a teacher {share(plain[0])}" if plain else ""


def _its_teacher(config: dict[str, Any]) -> str:
    """Whose accuracy the teacher's rows hold: each teacher's own, not that of an ensemble."""
    teacher = config["teacher"] or {}
    together = teacher.get("teacher_seeds") == "ensemble" and teacher.get("num_teachers", 1) > 1
    together = together or "members" in teacher
    return "its teachers, one by one," if together else "its teacher"


def _chosen(content: Content) -> str:
    """The setting that the answer speaks of, and how it was chosen."""
    name = content.head[0]
    if name == results.TEACHER:
        return "the teacher"
    settings = content.run.config["settings"]
    candidates = [s for s in settings if s["missing"]] or settings
    candidates = [s for s in candidates if s.get("alpha") != 0] or candidates
    judged = (name, "validation", "none", "all", "accuracy") in content.values
    return f"the student ({name}{', best on the validation split' if judged and len(candidates) > 1 else ''})"


def _in_words(interval: Interval | None) -> str:
    if interval is None or math.isnan(interval.mean):
        return "an unknown share"
    mean, low, high = (f"{100 * min(max(value, 0.0), 1.0):.2f}" for value in interval[:3])
    return f"{mean} %" if math.isnan(interval.low) else f"{mean} % (95 % interval {low} to {high})"


def _about_intervals(content: Content) -> str:
    config = content.run.config
    seeds = {run["seed"] for run in config["runs"]}
    teachers = {run["teacher_seed"] for run in config["runs"]} - {None}
    text = f"Means over {summary.units_of(config)}; ± is half the width of the 95 % Student t interval."
    if len(seeds) == 1:
        text = "One seed, so no interval."
    if len(teachers) > 1:
        text += " The intervals cover the luck of the teacher as well."
        if len(teachers) < len(seeds):
            text += " Students of one teacher share its luck: "
            text += "means, intervals and n are those of the teachers."
    elif config["teacher"] is not None:
        text += " There is one teacher (or one ensemble) for all seeds: its luck is not covered."
    return f"{text} The test set is fixed: which examples it happens to hold is not covered."


def _about_validation(config: dict[str, Any]) -> str:
    """A sentence where the validation split was not held out from the teacher, else nothing."""
    if not (config["teacher"] or {}).get("saw_validation"):
        return ""
    teacher = config["teacher"]
    chain = any("teacher" in about for about in teacher.get("members", [teacher]))
    text = f"The teacher{', or one that it learnt from,' if chain else ''} trained on the validation images:"
    return f"{text} the students' validation figures are about labels that it knew."


# Tables


def _grid(content: Content, parts: Sequence[str], half: str | None) -> Iterator[list[str]]:
    """[setting, correction, errors, the test accuracy of each part in %, n]; a part is all, missing, kept or
    a class index: with one decimal, a star where it is missing, an interval only where `half` joins it.
    """
    for setting in content.settings:
        name, missing = setting["name"], setting["missing"]
        for correction in summary.corrections_of(name, content.values):
            cells = [show(content.values.get((name, "test", correction, "all", "errors")), 1, 1, half=None)]
            for part in parts:
                interval = content.values.get((name, "test", correction, part, "accuracy"))
                if part.isdigit():
                    cells.append(show(interval, digits=1, half=half) + " *"[int(part) in missing])
                else:
                    cells.append(show(interval, half=half or " ±"))
            n = content.values[name, "test", correction, "all", "accuracy"].n
            yield [name, correction, *cells, str(n)]


def _terminal(content: Content) -> str:
    """The answer, and a table of at most WIDTH columns."""
    config = content.run.config
    data = config["data"]
    full = len(content.settings) <= MOST_SETTINGS and data["num_classes"] <= MOST_CLASSES
    parts = ["all", "missing", *(str(index) for index in range(data["num_classes"]))]
    parts = parts if full else ["all", "missing", "kept"]
    longest = 0 if full else min(max(len(setting["name"]) for setting in content.settings), 42) + 1
    heads = {"all": "all classes", "missing": "missing *"} | {part: f"{part} " for part in parts[2:] if full}
    lines = [f"{'':{longest + 17}}{'errors':>7}{_aligned([heads.get(part, part) for part in parts], parts)}"]
    lines[0] += "" if full else f"{'n':>4}"
    last = None
    for name, correction, errors, *cells, n in _grid(content, parts, half=None):
        if full and name != last:
            lines.append(f"{name}  (n = {n})"[:WIDTH])
        last = name
        label = f"{name if len(name) < longest else name[: longest - 2] + '…':{longest}}" if longest else " "
        label += f"{correction}{'!' * (correction == 'test_tuned')}"
        line = f"{label:{longest + 17}}{errors:>7}{_aligned(cells, parts)}"
        lines.append(line if full else f"{line}{n:>4}")
    if full and data["class_names"] != parts[2:]:
        lines += _classes("Classes", data["class_names"], range(data["num_classes"]))
    elif not full:
        absent = sorted({k for setting in content.settings for k in setting["missing"]})
        lines += _classes("Classes left out", data["class_names"], absent)
    notes = f"Test accuracy in % ({data['name']}, {data['test']} examples)."
    if any(setting["missing"] for setting in content.settings):
        notes += f" * {summary.absence(content.settings)}."
    notes += f" ! {HOW['test_tuned']}." if any("test_tuned!" in line for line in lines) else ""
    notes = f"{notes} {_about_intervals(content)} {_about_validation(config)}".strip()
    if full and "±" in "".join(lines):
        notes += " The interval of each class is in report.md."
    answer = _answer(content)
    return "\n".join([*textwrap.wrap(answer, WIDTH), "", *lines, "", *textwrap.wrap(notes, WIDTH)])


def _classes(what: str, names: Sequence[str], shown: Sequence[int]) -> list[str]:
    """Numbers and names of the classes that are shown; a number stays with its name."""
    if not shown:
        return []
    text = ", ".join(f"{index} {names[index]}".replace(" ", "\N{NO-BREAK SPACE}") for index in shown)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(f"{what}: {text}", WIDTH)]


def _aligned(cells: Sequence[str], parts: Sequence[str]) -> str:
    """Cells of 6 columns for a class, the last for its star, and of 13 for a mean with its interval."""
    return "".join(
        f"{cell.replace('100.0', '100'):>6}" if part.isdigit() else f"{cell:>13}"
        for cell, part in zip(cells, parts, strict=True)
    ).rstrip()


def _markdown(title: str, content: Content, hidden: Sequence[str], figures: Sequence[str]) -> str:
    """hidden: the chapter on hidden signals, if any."""
    config = content.run.config
    data, teacher = config["data"], config["teacher"]
    many = data["num_classes"] > 2 * MOST_CLASSES
    parts = ["kept", "missing"] if many else [str(index) for index in range(data["num_classes"])]
    heads = parts if many else data["class_names"]
    names = [setting["name"] for setting in content.settings]
    table = list(_grid(content, ["all", *parts], half=" ± "))
    lines = [f"# {plain(title)}", "", plain(_question(config)), "", f"**{plain(_answer(content))}**", ""]
    lines += ["## Accuracy of each class", "", f"Test split, in %; errors of {data['test']} examples.", ""]
    lines += tabulate(["setting", "correction", "errors", "all classes", *heads, "n"], table)
    some = any(setting["missing"] for setting in content.settings)
    starred = f"\\* {summary.absence(content.settings)}. " if some else ""
    lines += [starred + plain(_about_intervals(content)), ""]
    lines += [warning, ""] if (warning := _about_validation(config)) else []
    used = [c for c in HOW if any(row[1] == c for row in table)]
    lines += [*(f"- {plain(c)}: {HOW[c]}" for c in used), ""]
    lines += quality.section(names, content.values)
    lines += _biases(content) + ensembles.section(names, content.run, content.values)
    lines += ensembles.teachers_section(content.run, content.values) + _differences(content)
    lines += learning.section(content.run.history, config, FLAGS["reach"].value)
    lines += hidden
    lines += ["## Figures", ""]
    for name in figures:
        lines += [f"![{name.replace('_', ' ')}](figures/{name}.png)", ""]
    facts = {"data": f"{data['name']}, fingerprint {data['fingerprint']}", "device": config["device"]}
    facts["examples"] = f"{data['train']} train, {data['validation']} validation, {data['test']} test"
    if data.get("skipped"):
        facts["examples"] += f"; files left out, for they cannot be read: {data['skipped']}"
    if teacher is not None:
        facts["teacher"] = ", ".join(f"{k} {v}" for k, v in teacher.items() if isinstance(v, str | int))
    facts["versions"] = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    lines += ["## How it was made", "", "```sh", config["command"], "```", ""]
    lines += [f"- {key}: {plain(value)}" for key, value in facts.items()]
    lines += [f"- continued: {plain(_in_short(entry))}" for entry in config.get("continued", [])]
    return "\n".join([*lines, ""])


def _in_short(value: Any) -> str:
    """An entry of config.json in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_short(item)}" for key, item in value.items())
    return ", ".join(map(_in_short, value)) if isinstance(value, list) else str(value)


def _biases(content: Content) -> list[str]:
    rows = []
    for setting in content.settings:
        for correction in summary.corrections_of(setting["name"], content.values):
            bias = content.values.get((setting["name"], "test", correction, "missing", "bias"))
            if bias is not None and correction != "none":
                rows.append([setting["name"], correction, show(bias, 1, half=" ± "), str(bias.n)])
    if not rows:
        return []
    heads = ["setting", "correction", "added to the missing classes' logits (nats)", "n"]
    return ["## Biases", "", *tabulate(heads, rows)]


def _differences(content: Content) -> list[str]:
    """Of the pairs of summary.json: accuracies as trained and under the answer's correction, and, where there
    are many settings, only against the answer's setting."""
    setting, chosen = content.head
    few, rows = len(content.settings) <= 5, []
    for pair in content.paired:
        a, b, correction = pair["a"], pair["b"], pair["correction"]
        worth = (a == b or correction in ("none", chosen)) and (few or setting in (a, b))
        if pair["metric"] == "accuracy" and worth:
            within = [f"{correction} - none", a]
            between = [f"{a} - {b}", f"correction {correction}"]
            points, low, high = (f"{100 * pair[number]:+.2f}" for number in ("difference", "low", "high"))
            p, n = f"{pair['p']:.2g}", str(pair["n"])
            numbers = [pair["class"], points, f"{low} to {high}", p, n]
            rows.append((within if a == b else between) + numbers)
    if not rows:
        return []
    rows = rows[:MOST_PAIRS]
    heads = ["difference", "within", "classes", "points", "95 % interval", "p", "n"]
    note = f"Paired over seeds, test accuracy in percentage points; {len(rows)} of the"
    note += f" {len(content.paired)} pairs in summary.json; p is not corrected for their number."
    return ["## Paired differences", "", note, "", *tabulate(heads, rows)]


if __name__ == "__main__":
    common.run(main, EXAMPLE)
