"""Rebuild the report of a finished run from its files, or compare several: report RUN [RUN... --out=FOLDER]

Reads config.json, history.csv, results.csv, confusions.npz and bias_curve.csv of the run folder, writes
report.html, report.md, summary.json and figures beside them, and prints the table. For several runs it writes
report.html, report.md and comparison.json into --out alone. Everything is read and drawn before anything is
written. The same files give the same report to the byte.
"""

from collections.abc import Sequence

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from kd_jax.errors import InputError

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
    folders = argv[1:]
    if not folders:
        expected = "report RUN, or of several report RUN RUN... --out=FOLDER"
        raise InputError("no run to report on", expected, "no folder")
    if len(folders) == 1 and FLAGS["out"].value is not None:
        expected = "several runs, to be compared there, or no --out"
        raise InputError("--out is of a comparison", expected, folders[0])
    from experiments.reporting import comparison, report

    if len(folders) == 1:
        level, formats, full = (FLAGS[name].value for name in ("target_accuracy", "figure_formats", "full"))
        options = report.Options(level, str(formats), bool(full))
        print(report.build(folders[0], options))
    else:
        files, shown = comparison.render(folders, shared.require_folder("out", "runs/comparison"))
        report.write(files)
        print(shown)


if __name__ == "__main__":
    run(main, EXAMPLE, computes=False)
