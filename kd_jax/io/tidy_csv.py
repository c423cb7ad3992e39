"""Tidy csv files, one measurement a row: written from NamedTuples, read strictly (host side).

A column has its field's name, without a `_` at the end. The last one is the measured value; the others say of
what it is.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats.rows import DIVERGED, FRACTIONS


def _columns(row_type: type) -> list[str]:
    return [field.rstrip("_") for field in row_type._fields]  # type: ignore[attr-defined]


def _cell(value: Any) -> Any:
    """Numbers of NumPy and JAX too become Python's, whose repr is the shortest that reads back the same."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return value


def render(row_type: type, rows: Iterable[tuple[Any, ...]]) -> bytes:
    """The content of the file; nan is an empty cell, numbers read back as the same float64."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_columns(row_type))
    writer.writerows([v if type(v) is str else _cell(v) for v in row] for row in rows)
    return buffer.getvalue().encode()


Parser = Callable[[str], Any]
"""Of a cell; raises ValueError with what it expected."""


def read(path: Path, row_type: Any, parsers: dict[str, Parser]) -> list[Any]:
    """The file's rows, as `row_type`.  parsers: by column.

    Errors: InputError that names the line of what is malformed, out of range or measured twice: rows that
    differ in their last column alone.
    """
    text = run_files.read_text(path)
    columns, name = _columns(row_type), str(path)
    if not text.endswith("\n"):
        raise InputError(f"{path} is cut off", "a line end at its end", repr(text[-20:]))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[Any, Any] = {}
    parsed = [_Cells(parsers[column]) for column in columns]
    in_range: set[Any] = set()
    try:
        header = next(reader, [])
        if header != columns:
            raise InputError(f"{path}, line 1", ",".join(columns), ",".join(header))
        for cells in reader:
            where = f"{name}, line {reader.line_num}"
            if len(cells) != len(columns):
                raise InputError(where, f"{len(columns)} columns", len(cells))
            try:
                row = row_type._make([known[cell] for known, cell in zip(parsed, cells, strict=True)])
            except ValueError:
                _refuse_cell(where, zip(columns, cells, strict=True), parsers)
            measured = getattr(row, "metric", columns[-1]), row[-1]
            if measured not in in_range:
                if expected := _out_of_range(*measured):
                    raise InputError(f"{where}, column {columns[-1]}", expected, repr(cells[-1]))
                in_range.add(measured)
            if row[:-1] in rows:
                raise InputError(where, f"each {', '.join(columns[:-1])} once", f"{row[:-1]} again")
            rows[row[:-1]] = row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}", "comma-separated values", error) from None
    return list(rows.values())


def _out_of_range(metric: str, value: float) -> str:
    """What was expected of a measured value that cannot be; else nothing."""
    fraction = "accuracy" in metric or metric in FRACTIONS
    if fraction and not (math.isnan(value) or 0 <= value <= 1 + 1e-6):  # sums are rounded
        return "a fraction from 0 to 1"
    count = metric.endswith(("errors", "support", DIVERGED))
    return "a count" if count and not (value >= 0 and value == int(value)) else ""


class _Cells(dict[str, Any]):
    """The values of a column by their text, each parsed once: of a million rows most say the same."""

    def __init__(self, parser: Parser):
        self.parser = parser

    def __missing__(self, text: str) -> Any:
        value = self[text] = self.parser(text)
        return value


def _refuse_cell(where: str, cells: Iterable[tuple[str, str]], parsers: dict[str, Parser]) -> NoReturn:
    """Of the first cell that is malformed.  cells: (column, text)."""
    for column, cell in cells:
        try:
            parsers[column](cell)
        except ValueError as error:
            raise InputError(f"{where}, column {column}", str(error), repr(cell)) from None
    raise AssertionError("not reached")


def whole(text: str) -> int:
    """A parser, as the functions below."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # of thousands, int() raises
        raise ValueError("a whole number, 0 or more")
    return int(text)


def number(text: str) -> float:
    """May be infinite, but not nan."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value) or "_" in text or text != text.strip():
        raise ValueError("a number")
    return value


def finite(text: str) -> float:
    """Neither infinite nor nan."""
    value = number(text)
    if math.isinf(value):
        raise ValueError("a finite number")
    return value


def or_empty(parser: Callable[[str], float]) -> Callable[[str], float]:
    """The parser of a cell that may be empty, which is nan."""
    return lambda text: parser(text) if text else math.nan


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """The parser of a cell that holds one of these names."""
    names = list(names)
    known = frozenset(names)
    shown = " | ".join(names if len(names) <= 12 else [*names[:11], "..."])

    def parse(text: str) -> str:
        if text not in known:
            raise ValueError(shown)
        return text

    return parse
