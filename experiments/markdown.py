"""What the reports share: an interval as text, and tables that Markdown shows as they are meant."""

import math
from collections.abc import Iterable, Sequence

from kd_jax.stats import Interval


def show(interval: Interval | None, scale: float = 100, digits: int = 2, half: str | None = " ±") -> str:
    """Mean and, where there is one and `half` says how to join it, the half width of the interval."""
    if interval is None or math.isnan(interval.mean):
        return "-"
    width = scale * (interval.high - interval.mean)
    decimals = digits if width < 10 else min(digits, 1)
    text = (
        f"{width:.{decimals}f}" if scale != 100 or width <= 100 else ">100"
    )  # which says all there is to say
    joined = "" if half is None or math.isnan(width) else f"{half}{text}"
    return f"{scale * interval.mean:.{digits}f}{joined}"


def tabulate(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(cell) for cell in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *(line(row) for row in rows), ""]


def plain(text: str) -> str:
    """Text that Markdown leaves alone."""
    for mark in "\\|*<`[":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
