"""Reproduce studies by name: run what is missing, then compare with the committed results.

A name is a recipe, a study (all of its recipes with committed results), or a pattern as 'hidden_*'; --list
shows them. The teachers that a recipe names are run first. What is complete is skipped; what was stopped is
continued. Without --out, runs are in runs/, where the recipes' own commands put them.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
EXAMPLE = "reproduce quickstart"
for _name in ("data_dir", "out"):
    flags.declare_key_flag(_name)  # of the shared flags these mean something here
shared.find("out").help = "Folder of the run folders (default: runs; with --quick: runs/quick)."
shared.group(
    "Where it goes, and how the work is done",
    flags.DEFINE_bool("list", False, "Print all studies, their recipes, data and time, and run nothing."),
    flags.DEFINE_bool(
        "quick",
        False,
        "Run each recipe with 1 epoch and at most 2 seeds, into runs/quick: it shows that it runs, no more.",
    ),
)


def main(argv: Sequence[str]) -> None:
    """Errors: InputError for an unknown name, and for a dataset that is not there; then nothing is run."""
    from experiments.studies import reproduce

    if FLAGS["list"].value:
        if argv[1:]:
            raise InputError("--list shows all studies", "no name beside it", " ".join(argv[1:]))
        print(reproduce.table_of_contents(FLAGS.data_dir))
        return
    if not argv[1:]:
        raise InputError("no study to reproduce", "reproduce NAME [NAME...], or --list", "no name")
    default = "runs/quick" if FLAGS.quick else "runs"
    out = shared.require_folder("out", default) if FLAGS["out"].value is not None else Path(default)
    reproduce.run(argv[1:], out, FLAGS.quick, FLAGS.data_dir)


if __name__ == "__main__":
    run(main, EXAMPLE, computes=False)
