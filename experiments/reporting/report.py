"""The report of a run: its files, drawn and written beside those of the run, and what the terminal shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.reporting import html, text
from experiments.reporting.content import Content, class_parts, grid, read, report_sections, run_facts
from experiments.reporting.markdown import Section, lines_of, plain, tabulate
from experiments.reporting.sections import learning_speed
from experiments.reporting.sentences import (
    answer,
    answer_note,
    answer_table,
    question,
    table_notes,
    used_corrections,
)
from kd_jax import plots
from kd_jax.io import run_files


class Options(NamedTuple):
    """target_accuracy: in %, of the learning-speed table; None: 90 % of the best. figure_formats: png, svg or
    both, comma list. full: whether the terminal shows every setting, correction and class."""

    target_accuracy: float | None = None
    figure_formats: str = "png"
    full: bool = False


DEFAULT = Options()


def build(run_dir: str | Path, options: Options = DEFAULT) -> str:
    """Writes report.html, report.md, summary.json and figures/ of a run folder; returns the terminal's text.

    Errors: InputError for a folder that is no run folder or a damaged file; then nothing is written.
    """
    files, shown = render(Path(run_dir), options)
    write(files)
    return shown


def write(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        run_files.write(path, content)


def render(folder: Path, options: Options = DEFAULT) -> tuple[dict[Path, bytes], str]:
    """(the report's files, what the terminal shows); nothing is written."""
    content, percent = read(folder), options.target_accuracy
    figures, sections = draw(content, options), report_sections(folder, content, percent)
    files = {folder / "figures" / name: drawn for name, drawn in figures.items()}
    files[folder / "summary.json"] = run_files.to_json(content.summary.to_json())
    files[folder / "report.md"] = _markdown(folder.resolve().name, content, sections, list(figures)).encode()
    files[folder / "report.html"] = html.render(folder, content, sections)
    soon = learning_speed.section(content.run.history, content.run.description, percent) if percent else []
    lines = [line for section in soon for line in text.section_lines(section)]
    shown = text.terminal(content, options.full)
    return files, "\n".join([shown, "", *lines, f"Report: {folder / 'report.html'}"])


def draw(content: Content, options: Options = DEFAULT) -> dict[str, bytes]:
    """The files of figures/ by their names."""
    kinds, drawn = options.figure_formats.split(","), _figures(content, options.target_accuracy)
    return {f"{name}.{kind}": plots.render(figure, kind) for kind in kinds for name, figure in drawn.items()}


def _figures(content: Content, target_accuracy: float | None) -> dict[str, Any]:
    """The figures by their names."""
    description, summary, matrices = content.run.description, content.summary, content.run.confusions
    if description.experiment == "subliminal":  # of a hundred models, and of noise, the others say little
        return {"axis": plots.axis(summary, description)}
    corrections = {s.name: summary.preferred_correction(s.name) for s in content.settings}
    figures = {"class_bars": plots.class_bars(summary, description, corrections)}
    if content.run.history:
        figures["learning_curves"] = plots.learning_curves(content.run.history, description)
        target = learning_speed.target_of(content.run.history, description, target_accuracy)
        if plots.is_grid(description.settings):
            figures["learning_grid"] = plots.learning_grid(content.run.history, description, target)
    curved = {row.setting for row in content.run.bias_curve}
    if curved:
        shown = [setting.name for setting in content.settings if setting.name in curved]
        figures["bias_curve"] = plots.bias_curve(content.run.bias_curve, summary, description, shown)
    name, correction = content.head
    if any(row.setting == name for row in matrices):
        shown = list(dict.fromkeys(["none", correction]))
        figures["confusion_matrix"] = plots.confusion_matrix(matrices, description, name, shown)
    return figures


def _markdown(title: str, content: Content, sections: Sequence[Section], figures: Sequence[str]) -> str:
    description = content.run.description
    parts, heads = class_parts(description)
    table = list(grid(content, ["all", *parts], half=" ± "))
    lines = [f"# {plain(title)}", "", plain(question(description)), "", f"**{plain(answer(content))}**", ""]
    lines += [*tabulate(*answer_table(content)), plain(answer_note(content)), ""]
    lines += [
        "## Accuracy of each class",
        "",
        f"Test split, in %; errors of {description.data.test} examples.",
        "",
    ]
    lines += tabulate(["setting", "correction", "errors", "all classes", *heads, "n"], table)
    lines += [line for note in table_notes(content) for line in (plain(note), "")]
    lines += [*(f"- {plain(correction)}: {how}" for correction, how in used_corrections(content)), ""]
    lines += [line for section in sections for line in lines_of(section)]
    lines += ["## Figures", ""]
    for name, kind in (figure.split(".") for figure in figures):
        if f"{name}.png" not in figures or kind == "png":
            lines += [f"![{name.replace('_', ' ')}](figures/{name}.{kind})", ""]
    lines += ["## How it was made", "", "```sh", description.command, "```", ""]
    return "\n".join([*lines, *(f"- {what}: {plain(value)}" for what, value in run_facts(description)), ""])
