"""The report in a terminal of 80 columns: the answer with a small table and, if wanted, the full ones."""

import textwrap
from collections.abc import Sequence

from experiments.reporting import sentences
from experiments.reporting.content import Content, grid
from experiments.reporting.markdown import Grid, Section

WIDTH = 80  # columns
MOST_CLASSES = 10


def wrapped(text: str) -> list[str]:
    """Lines of at most WIDTH columns."""
    return textwrap.wrap(text, WIDTH)


def grouped(table: Grid, gap: str = "  ") -> list[str]:
    """The lines of a table: a line for each different first cell, below it the other cells of its rows, in
    columns. What is too wide is cut at its end, of a row its first column."""
    rows = [row[1:] for row in (table.head, *table.rows)]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    first = min(first, WIDTH - sum(len(gap) + width for width in widths) - 1)
    lines = []
    for row in rows:
        cells = [_cut(row[0], first).ljust(first), *map(str.rjust, row[1:], widths)]
        lines.append(f" {gap.join(cells)}".rstrip())
    shown, last = lines[:1], None
    for row, line in zip(table.rows, lines[1:], strict=True):
        shown += [line] if row[0] == last else [_cut(row[0], WIDTH), line]
        last = row[0]
    return shown


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def section_lines(section: Section) -> list[str]:
    """The section's lines, the last one empty."""
    lines = [section.title, ""]
    for block in section.blocks:
        lines += [*(wrapped(block) if isinstance(block, str) else grouped(block)), ""]
    return lines


def terminal(content: Content, full: bool = False) -> str:
    """The answer and its small table; if `full`, the table of all settings and classes as well."""
    lines = [*wrapped(sentences.answer(content)), "", *grouped(sentences.answer_table(content)), ""]
    more = "" if full else " All settings and classes: report.md, or report --full."
    lines += wrapped(sentences.answer_note(content) + more)
    return "\n".join([*lines, *(["", *_full(content)] if full else [])])


def _full(content: Content) -> list[str]:
    description = content.run.description
    names = list(description.data.class_names)
    head = ["setting", "correction", "errors", "all classes", "omitted *", "seen"]
    rows = [
        [f"{row[0]}  (n = {row[-1]}{_details(content, row[0])})", row[1], *map(_narrow, row[2:-1])]
        for row in grid(content, ["all", "omitted", "seen"], half=None)
    ]
    lines = [*grouped(Grid(head, rows)), ""]
    absent = sorted({k for setting in content.settings for k in setting.omitted})
    parts = [str(index) for index in range(len(names))]
    if len(parts) <= MOST_CLASSES:
        of_class = [
            [row[0], row[1], *(cell.replace("100.0", "100") for cell in row[3:-1])]
            for row in grid(content, parts, half=None)
        ]
        lines += [*grouped(Grid(["setting", "correction", *parts], of_class), gap=" "), ""]
        absent = list(range(len(names))) if names != parts else []
    if absent:
        what = "Classes" if len(parts) <= MOST_CLASSES else "Omitted classes"
        lines += [*_classes(what, names, absent), ""]
    notes = [*sentences.table_notes(content), "The interval of each class is in report.md."]
    notes += [f"{correction}: {how}." for correction, how in sentences.used_corrections(content)]
    return [*lines, *(line for note in notes for line in wrapped(note))]


def _narrow(cell: str) -> str:
    """A bound as a sign, so that names of corrections are not cut."""
    return cell.replace(", at least ", " ≥").replace(", at most ", " ≤")


def _details(content: Content, setting: str) -> str:
    """What n counts, where that is not seeds, and how many runs diverged."""
    lost = sum(run.setting == setting for run in content.summary.diverged)
    return content.run.description.unit_of(setting) + (f"; {lost} diverged" if lost else "")


def _classes(what: str, names: Sequence[str], shown: Sequence[int]) -> list[str]:
    """Numbers and names of classes; a number stays with its name."""
    text = ", ".join(f"{index} {names[index]}".replace(" ", "\N{NO-BREAK SPACE}") for index in shown)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrapped(f"{what}: {text}")]
