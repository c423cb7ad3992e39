"""Rebuild the report of a finished run from its files, or compare several: report RUN [RUN... --out=FOLDER]

Reads config.json, history.csv, results.csv, confusions.npz and bias_curve.csv of the run folder, writes
report.html, report.md, summary.json and figures beside them, and prints the table. For several runs it writes
report.html, report.md and comparison.json into --out alone. Everything is read and drawn before anything is
written. The same files give the same report to the byte.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from experiments.reporting import comparison, html, text
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
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats import summary

FLAGS = flags.FLAGS
EXAMPLE = "report runs/quickstart --target_accuracy=90"
flags.declare_key_flag("out")  # of the shared flags --help lists this one
shared.group(
    "What is measured",
    flags.DEFINE_float(
        "target_accuracy",
        None,
        "Accuracy in % of the learning-speed table (default: 90 % of the best).",
        lower_bound=1,  # a fraction is no percentage
        upper_bound=100,
    ),
)
shared.group(
    "Where it goes, and how the work is done",
    flags.DEFINE_enum(
        "figure_formats", "png", ["png", "svg", "png,svg"], "Formats of the files in figures/."
    ),
    flags.DEFINE_bool("full", False, "Print the accuracies of every setting, correction and class."),
)
flags.register_validator("target_accuracy", lambda reach: reach is None or reach >= 1)  # which nan is not


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
    files, shown = comparison.render(argv[1:], shared.require_folder("out", "runs/comparison"))
    _write(files)
    print(shown)


def build(run_dir: str | Path) -> str:
    """Writes report.html, report.md, summary.json and figures/ of a run folder; returns the terminal's text.

    Errors: InputError as for `main`.
    """
    files, shown = _render(Path(run_dir))
    _write(files)
    return shown


def _write(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        run_files.write(path, content)


def _render(folder: Path) -> tuple[dict[Path, bytes], str]:
    content, level = read(folder), FLAGS["target_accuracy"].value
    figures, sections = _figures(content), report_sections(folder, content, level)
    files = {folder / "figures" / name: drawn for name, drawn in figures.items()}
    files[folder / "summary.json"] = run_files.to_json(content.sums)
    files[folder / "report.md"] = _markdown(folder.resolve().name, content, sections, list(figures)).encode()
    files[folder / "report.html"] = html.render(folder, content, sections)
    soon = learning_speed.section(content.run.history, content.run.config, level) if level else []
    lines = [line for section in soon for line in text.section_lines(section)]
    shown = text.terminal(content, bool(FLAGS["full"].value))
    return files, "\n".join([shown, "", *lines, f"Report: {folder / 'report.html'}"])


def _figures(content: Content) -> dict[str, bytes]:
    """The files of figures/ by their names."""
    from kd_jax import plots

    kinds = str(FLAGS["figure_formats"].value).split(",")
    drawn = _drawn(content)
    return {f"{name}.{kind}": plots.render(figure, kind) for kind in kinds for name, figure in drawn.items()}


def _drawn(content: Content) -> dict[str, Any]:
    """The figures by their names."""
    from kd_jax import plots

    config, values, matrices = content.run.config, content.values, content.run.confusions
    if config["experiment"] == "subliminal":  # of a hundred models, and of noise, the others say little
        return {"axis": plots.axis(values, config)}
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
    return figures


def _markdown(title: str, content: Content, sections: Sequence[Section], figures: Sequence[str]) -> str:
    config = content.run.config
    parts, heads = class_parts(config)
    table = list(grid(content, ["all", *parts], half=" ± "))
    lines = [f"# {plain(title)}", "", plain(question(config)), "", f"**{plain(answer(content))}**", ""]
    lines += [*tabulate(*answer_table(content)), plain(answer_note(content)), ""]
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
    for name, kind in (figure.split(".") for figure in figures):
        if f"{name}.png" not in figures or kind == "png":
            lines += [f"![{name.replace('_', ' ')}](figures/{name}.{kind})", ""]
    lines += ["## How it was made", "", "```sh", config["command"], "```", ""]
    return "\n".join([*lines, *(f"- {what}: {plain(value)}" for what, value in run_facts(config)), ""])


if __name__ == "__main__":
    run(main, EXAMPLE)
