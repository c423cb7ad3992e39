"""Rewrite the tables of README.md and experiments/results/*.md from the committed results.

--add=RUN first copies the small files of a run to experiments/results/.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import refuse_arguments, run

FLAGS = flags.FLAGS
EXAMPLE = "tables --add=runs/quickstart"
shared.group(
    "Where it goes, and how the work is done",
    flags.DEFINE_multi_string("add", [], "Run folder whose small files are copied to experiments/results/."),
)


def main(argv: Sequence[str]) -> None:
    refuse_arguments(argv)
    from experiments.gallery import committed, pages
    from kd_jax.io import run_files

    folders = [Path(folder) for folder in FLAGS.add]
    outcomes = {folder: committed.outcome(folder) for folder in folders}  # all are read before one is written
    for folder, files in outcomes.items():
        committed.write(pages.RESULTS / folder.resolve().name, files)
    known = pages.blocks(pages.RECIPES, pages.RESULTS)
    texts = {path: pages.fill(path.read_text(), known, path.name) for path in pages.paths()}
    for path, text in texts.items():
        run_files.write(path, text.encode())


if __name__ == "__main__":
    run(main, EXAMPLE)
