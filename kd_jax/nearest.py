"""The nearest of the known names, for the end of an error's line (host side)."""

import difflib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MOST = 10_000  # entries of a folder that are compared


def name(word: str, known: Iterable[str], before: str = "") -> str:
    """ " (did you mean X?)" of the known name X that is nearest to `word`, capitals or not; "" where none is.

    before: what stands before X when it is written out.
    """
    near = _nearest(word, known)
    return f" (did you mean {before}{near}?)" if near else ""


def path(given: str | os.PathLike) -> str:
    """The same of a path that does not exist: each part of it that is not there, by the nearest beside it."""
    found = Path(os.path.expanduser(given)).anchor
    try:
        for part in Path(os.path.expanduser(given)).relative_to(found).parts:
            if not os.path.lexists(os.path.join(found, part)):
                with os.scandir(found or ".") as entries:
                    part = _nearest(part, (entry.name for entry in islice(entries, _MOST)))
            if not part:
                return ""
            found = os.path.join(found, part)
    except (OSError, ValueError):  # no folder, none that may be read, or a name that no system has
        return ""
    return f" (did you mean {found}?)" if found else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word.lower(), folded, 1)
    return folded[near[0]] if near else ""
