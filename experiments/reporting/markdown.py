"""What the reports share: an interval as text, and sections that Markdown shows as they are meant."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_jax.stats.intervals import Interval


class Grid(NamedTuple):
    """A table: its head, and rows of as many cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A part of a report before it is Markdown or HTML. blocks: paragraphs and tables; figure: the picture
    that ends it, by its path within the run folder, or nothing."""

    title: str
    blocks: Sequence[str | Grid]
    figure: str = ""


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


def lines_of(section: Section) -> list[str]:
    """The section's lines, the last one empty."""
    lines = [f"## {section.title}", ""]
    for block in section.blocks:
        lines += [plain(block), ""] if isinstance(block, str) else tabulate(*block)
    if section.figure:
        lines += [f"![{Path(section.figure).stem.replace('_', ' ')}]({section.figure})", ""]
    return lines


def tabulate(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(cell) for cell in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *(line(row) for row in rows), ""]


def aligned(grid: Grid) -> list[str]:
    """The lines of a table for the terminal, each column as wide as its widest cell."""
    rows = [grid.head, *grid.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def plain(text: str) -> str:
    """Text that Markdown leaves alone."""
    for mark in "\\|*<`[":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
