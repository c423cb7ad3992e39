"""The error of bad input: one line, with the nearest of the known names where one was mistyped."""

import difflib
import importlib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

LONGEST = 240  # characters of a part of an error's line
MOST_COMPARED = 10_000  # entries of a folder


class InputError(ValueError):
    """What a user gave cannot be used. One line: what is wrong, what was expected, what was given; what comes
    from a file may be of any length, and its middle is left out."""

    def __init__(self, wrong: str, expected: str, given: object):
        wrong, expected, given = _short(wrong), _short(expected, 2 * LONGEST), _short(str(given))
        super().__init__(f"{wrong}: expected {expected}; given {given}")


def _short(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 60]}...{text[-57:]}"


def import_extra(module: str, user: str, expected: str, given: object) -> Any:
    """A module of an extra. Errors: InputError where it is not installed.  user: as "parquet files need"."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"{user} a package that is missing", expected, given) from None


def nearest_name(word: str, known: Iterable[str], before: str = "") -> str:
    """ " (did you mean X?)" of the known name X that is nearest to `word`, capitals or not; "" where none is.

    before: what stands before X when it is written out.
    """
    near = _nearest(word, known)
    return f" (did you mean {before}{near}?)" if near else ""


def nearest_path(given: str | os.PathLike) -> str:
    """The same of a path that does not exist: each part of it that is not there, by the nearest beside it; ""
    of one that exists."""
    if os.path.lexists(os.path.expanduser(given)):
        return ""
    near = Path(os.path.expanduser(given)).anchor
    try:
        for part in Path(os.path.expanduser(given)).relative_to(near).parts:
            if not os.path.lexists(os.path.join(near, part)):
                with os.scandir(near or ".") as entries:
                    part = _nearest(part, (entry.name for entry in islice(entries, MOST_COMPARED)))
            if not part:
                return ""
            near = os.path.join(near, part)
    except (OSError, ValueError):  # no folder, none that may be read, or a name that no system has
        return ""
    return f" (did you mean {near}?)" if near else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word.lower(), folded, 1)
    return folded[near[0]] if near else ""
