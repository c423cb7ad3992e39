"""Where an entry point may write: not where another one's files would be lost or miscounted."""

import json
import os
from pathlib import Path

from experiments.cli import provenance
from kd_jax.data.image_folder import split_folders
from kd_jax.errors import InputError


def refuse_inside(out: Path) -> None:
    """Refuses a folder to write within another run, a checkpoint or a folder of images: what counts the files
    there would find it changed."""
    if os.path.isfile(out / "config.json"):  # a run's own folder, whatever lies around it
        return
    for parent in out.absolute().parents:
        of_a_run = (parent / "config.json").exists() and (
            (parent / "results.csv").exists() or (parent / "checkpoints").exists()
        )
        if of_a_run or ((parent / "manifest.json").exists() and (parent / "arrays").exists()):
            expected = "a folder of its own: the other run counts its files and clears up"
            raise InputError("--out lies inside another run", expected, f"{out}, inside {parent}")
        below = out.absolute().relative_to(parent).parts
        splits = split_folders(parent)
        of_data = "train" in splits and len(splits) > 1
        if of_data and len(below) > 1 and any(below[0] in names for names in splits.values()):
            expected = "a folder elsewhere: each one there is a class"
            raise InputError("--out lies inside a dataset", expected, f"{out}, inside {parent}")


def refuse_taken(out: Path, report: str) -> None:
    """Refuses --out within a run or a dataset, one that is no folder, and one with the like of `report`, a
    JSON file with its command, that another command wrote."""
    refuse_inside(out)
    if out.exists() and not out.is_dir():
        raise InputError("--out cannot be written", "a folder", out)
    before = out / report
    if before.is_file():
        try:
            command = json.loads(before.read_text())["command"]
        except (ValueError, KeyError, TypeError, RecursionError):
            command = "something else"
        if command != provenance.command():
            raise InputError("--out is taken", "a folder without another report", f"{before}, by {command}")


def refuse_existing(out: Path) -> None:
    """Refuses a file to write that exists, that lies within a run or a dataset, or that cannot be written."""
    try:
        out.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # of a name that no system has
        raise InputError("--out cannot be written", "a new file", error) from None
    else:
        raise InputError("--out exists", "a new file", out)
    refuse_inside(out)
    parent = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise InputError("--out cannot be written", "a file in a folder that this user may write", out)
