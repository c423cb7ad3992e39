"""Rebuild the report of a finished run from its files, or compare several: report RUN [RUN... --out=FOLDER]

Reads config.json, history.csv, results.csv, confusions.npz and bias_curve.csv of the run folder, writes
report.html, report.md, summary.json and figures beside them, and prints the table. For several runs it writes
report.html, report.md and comparison.json into --out alone. Everything is read and drawn before anything is
written. The same files give the same report to the byte.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from experiments.reporting import comparison, html
from experiments.reporting.content import Content, class_parts, grid, read, report_sections, run_facts
from experiments.reporting.markdown import Section, lines_of, plain, tabulate
from experiments.reporting.sections import learning_speed
from experiments.reporting.sentences import (
    HOW,
    about_intervals,
    about_validation,
    answer,
    question,
    table_notes,
    used_corrections,
)
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats import summary

FLAGS = flags.FLAGS
EXAMPLE = "report runs/quickstart --target_accuracy=90"
flags.declare_key_flag("out")  # of the shared flags --help lists this one
_target_accuracy = flags.DEFINE_float(
    "target_accuracy",
    None,
    "Accuracy in % of the learning-speed table (default: 90 % of the best).",
    lower_bound=1,  # a fraction is no percentage
    upper_bound=100,
)
shared.group("What is measured", _target_accuracy)
flags.register_validator("target_accuracy", lambda reach: reach is None or reach >= 1)  # which nan is not

WIDTH = 110  # columns of the terminal table
MOST_SETTINGS, MOST_CLASSES = 12, 10


def main(argv: Sequence[str]) -> None:
    """Errors: InputError for a folder that is no run folder or a damaged file; then nothing is written."""
    if not argv[1:]:
        raise InputError(
            "no run to report on", "report RUN, or of several report RUN RUN... --out=FOLDER", "no folder"
        )
    if len(argv) == 2:
        if FLAGS["out"].value is not None:
            expected = "several runs, to be compared there, or no --out"
            raise InputError("--out is of a comparison", expected, argv[1])
        print(build(argv[1]))
        return
    files, text = comparison.render(argv[1:], shared.require_folder("out", "runs/comparison"))
    _write(files)
    print(text)


def build(run_dir: str | Path) -> str:
    """Writes report.html, report.md, summary.json and figures/ of a run folder; returns the terminal's text.

    Errors: InputError as for `main`.
    """
    files, text = _render(Path(run_dir))
    _write(files)
    return text


def _write(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        run_files.write(path, content)


def _render(folder: Path) -> tuple[dict[Path, bytes], str]:
    content, level = read(folder), FLAGS["target_accuracy"].value
    figures, sections = _figures(content), report_sections(folder, content, level)
    files = {
        folder / "figures" / f"{name}.{kind}": drawn
        for name, kinds in figures.items()
        for kind, drawn in kinds.items()
    }
    files[folder / "summary.json"] = run_files.to_json(content.sums)
    files[folder / "report.md"] = _markdown(folder.resolve().name, content, sections, list(figures)).encode()
    files[folder / "report.html"] = html.render(folder, content, sections)
    soon = learning_speed.section(content.run.history, content.run.config, level) if level else []
    lines = [line for section in soon for line in lines_of(section)]
    return files, "\n".join([_terminal(content), "", *lines, f"Report: {folder / 'report.html'}"])


def _figures(content: Content) -> dict[str, dict[str, bytes]]:
    """Of each figure, its file of each kind."""
    from kd_jax import plots

    config, values, matrices = content.run.config, content.values, content.run.confusions
    if config["experiment"] == "subliminal":  # of a hundred models, and of noise, the others say little
        return {"axis": plots.render(plots.axis(values, config))}
    corrections = {s["name"]: summary.preferred_correction(s["name"], values) for s in content.settings}
    figures = {"class_bars": plots.class_bars(values, config, corrections)}
    if content.run.history:
        figures["learning_curves"] = plots.learning_curves(content.run.history, config)
        level = learning_speed.level_of(content.run.history, config, FLAGS["target_accuracy"].value)
        if plots.is_grid(config["settings"]):
            figures["learning_grid"] = plots.learning_grid(content.run.history, config, level)
    curved = {row.setting for row in content.run.bias_curve}
    if curved:
        shown = [setting["name"] for setting in content.settings if setting["name"] in curved]
        figures["bias_curve"] = plots.bias_curve(content.run.bias_curve, values, config, shown)
    name, correction = content.head
    if any(row.setting == name for row in matrices):
        shown = list(dict.fromkeys(["none", correction]))
        figures["confusion_matrix"] = plots.confusion_matrix(matrices, config, name, shown)
    return {name: plots.render(figure) for name, figure in figures.items()}


def _terminal(content: Content) -> str:
    """The answer, and a table of at most WIDTH columns."""
    config = content.run.config
    data = config["data"]
    full = len(content.settings) <= MOST_SETTINGS and data["num_classes"] <= MOST_CLASSES
    parts = ["all", "omitted", *(str(index) for index in range(data["num_classes"]))]
    parts = parts if full else ["all", "omitted", "seen"]
    longest = 0 if full else min(max(len(setting["name"]) for setting in content.settings), 42) + 1
    heads = {"all": "all classes", "omitted": "omitted *"} | {part: f"{part} " for part in parts[2:] if full}
    lines = [f"{'':{longest + 17}}{'errors':>7}{_aligned([heads.get(part, part) for part in parts], parts)}"]
    lines[0] += "" if full else f"{'n':>4}"
    last = None
    for name, correction, errors, *cells, n in grid(content, parts, half=None):
        if full and name != last:
            unit = summary.unit_of(config, name)
            lines.append(f"{name}  (n = {n}{unit}{_lost(content, name)})"[:WIDTH])
        last = name
        label = f"{name if len(name) < longest else name[: longest - 2] + '…':{longest}}" if longest else " "
        label += f"{correction}{'!' * (correction == 'test_tuned')}"
        line = f"{label:{longest + 17}}{errors:>7}{_aligned(cells, parts)}"
        lines.append(line if full else f"{line}{n:>4}")
    if full and data["class_names"] != parts[2:]:
        lines += _classes("Classes", data["class_names"], range(data["num_classes"]))
    elif not full:
        absent = sorted({k for setting in content.settings for k in setting["omitted"]})
        lines += _classes("Classes left out", data["class_names"], absent)
    notes = f"Test accuracy in % ({data['name']}, {data['test']} examples)."
    if any(setting["omitted"] for setting in content.settings):
        notes += f" * {summary.describe_omitted(content.settings)}."
    notes += f" ! {HOW['test_tuned']}." if any("test_tuned!" in line for line in lines) else ""
    notes = f"{notes} {about_intervals(content)} {about_validation(config)}".strip()
    if full and "±" in "".join(lines):
        notes += " The interval of each class is in report.md."
    return "\n".join([*textwrap.wrap(answer(content), WIDTH), "", *lines, "", *textwrap.wrap(notes, WIDTH)])


def _lost(content: Content, setting: str) -> str:
    lost = sum(entry["setting"] == setting for entry in content.sums["diverged"])
    return f"; {lost} diverged" if lost else ""


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


def _markdown(title: str, content: Content, sections: Sequence[Section], figures: Sequence[str]) -> str:
    config = content.run.config
    parts, heads = class_parts(config)
    table = list(grid(content, ["all", *parts], half=" ± "))
    lines = [f"# {plain(title)}", "", plain(question(config)), "", f"**{plain(answer(content))}**", ""]
    lines += [
        "## Accuracy of each class",
        "",
        f"Test split, in %; errors of {config['data']['test']} examples.",
        "",
    ]
    lines += tabulate(["setting", "correction", "errors", "all classes", *heads, "n"], table)
    lines += [line for note in table_notes(content) for line in (plain(note), "")]
    lines += [*(f"- {plain(correction)}: {how}" for correction, how in used_corrections(content)), ""]
    lines += [line for section in sections for line in lines_of(section)]
    lines += ["## Figures", ""]
    for name in figures:
        lines += [f"![{name.replace('_', ' ')}](figures/{name}.png)", ""]
    lines += ["## How it was made", "", "```sh", config["command"], "```", ""]
    return "\n".join([*lines, *(f"- {what}: {plain(value)}" for what, value in run_facts(config)), ""])


if __name__ == "__main__":
    run(main, EXAMPLE)
