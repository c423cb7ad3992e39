"""What the reports share: an interval as text, and sections that Markdown shows as they are meant."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_jax.stats.intervals import Difference, Interval

NO_SPREAD = "no spread seen"
NO_SPREAD_NOTE = " No spread seen: the difference is the same in all units, which gives no interval and no p."


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
    """Mean and, where there is one and `half` says how to join it, the half width of the interval, or its
    `bound`; of several units without an interval, that they show no spread."""
    if interval is None or math.isnan(interval.mean):
        return "-"
    if half is not None and (text := bound(interval, scale, digits)):
        return f"{scale * interval.mean:z.{digits}f}{text}"
    width = scale * half_width(interval)
    text = rounded_width(width, digits if width < 10 else min(digits, 1))
    text = ">100" if scale == 100 and width > 100 else text  # which says all there is to say
    joined = f"{half}{text}" if not math.isnan(width) else f" ({NO_SPREAD})" if interval.n > 1 else ""
    return f"{scale * interval.mean:z.{digits}f}{'' if half is None else joined}"  # z: no -0.00


def bound(interval: Interval, scale: float, digits: int) -> str:
    """Of an interval that lies on one side of the mean, as of a share of 0 or 1, its other end, rounded away
    from the mean: ", at most 0.73" or ", at least 99.27"; else nothing."""
    if interval.low == interval.mean < interval.high:
        return f", at most {math.ceil(scale * interval.high * 10**digits) / 10**digits:.{digits}f}"
    if interval.low < interval.mean == interval.high:
        return f", at least {math.floor(scale * interval.low * 10**digits) / 10**digits:.{digits}f}"
    return ""


def half_width(interval: Interval) -> float:
    """Of an interval whose ends are not equally far from the mean, the larger side."""
    return max(interval.high - interval.mean, interval.mean - interval.low)


def rounded_width(width: float, decimals: int) -> str:
    """A width as text; one that is smaller than its last decimal is not 0."""
    text = f"{width:.{decimals}f}"
    return f"<{10.0**-decimals:.{decimals}f}" if width > 0 and float(text) == 0 else text


def ends(low: float, high: float, sign: str = "") -> str:
    """The ends of an interval in %, as "1.20 to 3.40", with as many decimals as tell them apart, at least 2.

    sign: "+" shows the sign of a positive end.
    """
    for decimals in range(2, 10):
        texts = [f"{100 * end:{sign}.{decimals}f}" for end in (low, high)]
        if texts[0] != texts[1]:
            break
    return " to ".join(texts)


def difference_cells(pair: Difference) -> list[str]:
    """The cells points, 95 % interval, p and n of a paired difference, given in fractions; without an
    interval, whether that is for want of spread or of a second unit."""
    difference, low, high, p, n = pair
    points = f"{100 * difference:+.2f}"
    if math.isnan(low):
        return [points, NO_SPREAD if n > 1 else "-", "-", str(n)]
    return [points, ends(low, high, "+"), f"{p:.2g}", str(n)]


def lines_of(section: Section) -> list[str]:
    """The section's lines, the last one empty."""
    lines = [f"## {section.title}", ""]
    for block in section.blocks:
        lines += [plain(block), ""] if isinstance(block, str) else tabulate(*block)
    if section.figure:
        lines += [f"![{Path(section.figure).stem.replace('_', ' ')}]({section.figure})", ""]
    return lines


def tabulate(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are plain text, and an empty one."""
    return [*table([plain(cell) for cell in head], [[plain(cell) for cell in row] for row in rows]), ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def plain(text: str) -> str:
    """Text that Markdown leaves alone."""
    for mark in "\\|*<`[":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
