"""Random command lines against the flag parser of every entry point, and random text against list flags.

Flags have one home in a process and two entry points may have one of the same name: each is taken up and
forgotten in turn, in the process of a `Launcher`.
"""

import random
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from kd_jax.errors import InputError
from tests.faults.mutations import ODD
from tests.faults.tried import Tried

ENTRY_POINTS = (
    "benchmark", "compression", "distill", "export", "info", "predict", "report", "representation",
    "subliminal", "synthesize", "tables", "train_teacher",
)  # fmt: skip
REFUSED = "parsed, or refused in one line"
SIGNS = "0123456789abcnone,+-=. '\"\\\0\n\t#/~%é٣ſ\U0001f600_T"


def text_of(draw: random.Random) -> str:
    """Some text that a list flag may be given."""
    if draw.randrange(3) == 0:
        return str(draw.choice(ODD))
    words = (
        "none",
        "0",
        "3",
        "7+8",
        "1e-3",
        "4",
        "1e400",
        "nan",
        "-0",
        "cat",
        "a+b",
        "1+1",
        "",
        "full",
    )
    if draw.randrange(2):
        return draw.choice((",", ",,", "+", ", ", ";")).join(draw.choices(words, k=draw.randint(1, 5)))
    return "".join(draw.choices(SIGNS, k=draw.randint(0, 12)))


def words_of(draw: random.Random, names: list[str]) -> list[str]:
    """A command line of one to four words, most of them flags of this entry point or nearly so."""
    words = []
    for _ in range(draw.randint(1, 4)):
        name, value = draw.choice(names), text_of(draw)
        how = draw.randrange(8)
        name = name.replace(draw.choice(name), draw.choice(SIGNS), 1) if how == 0 else name
        dashes = draw.choice(("--", "--", "--", "-", "---", "--no", ""))
        words.append(value if how == 1 else f"{dashes}{name}" if how == 2 else f"{dashes}{name}={value}")
    return words


def told(parse: Callable[[], object]) -> str:
    """What is wrong with how it ended; nothing where it ended or was refused."""
    try:
        parse()
    except InputError as error:
        return "" if len(str(error)) < 1000 else f"a refusal of {len(str(error))} characters"
    except SystemExit:  # the help
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]!a}"
    return ""


def parse_randomly(name: str, times: int, seed: int) -> list[str]:
    """What was wrong, of so many command lines to an entry point that is taken up here."""
    from absl import flags

    from experiments.cli import flags as shared
    from experiments.cli import help, main
    from experiments.cli.provenance import ROOT

    with mock.patch.object(main, "run", lambda *_, **__: None), mock.patch.object(sys, "argv", ["x"]):
        module = ROOT / "experiments" / f"{name}.py"
        sys.argv = [str(module)]
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
        draw, failures = random.Random(f"{seed} {name}"), []
        names = [*shared.listed(), "flagfile", "undefok", "helpfull", "colour"]
        assert len(names) > 5, names
        for number in range(times):
            words = words_of(draw, names)
            flags.FLAGS.unparse_flags()
            with mock.patch("builtins.print"):
                if found := told(lambda words=words: help.parse([str(module), *words], "EXAMPLE")):  # type: ignore[misc]
                    failures.append(f"{name}, number {number}: {found}")
        return failures


def list_randomly(times: int, seed: int) -> list[str]:
    """What was wrong, of so many texts to the functions that read list flags."""
    from experiments.cli import parse

    draw, failures = random.Random(seed), []
    classes = ["cat", "dog", "none", "a+b", "3", "", "big dog", "c,d", "\U0001f600", "10"]
    readers: list[Callable[[str], Any]] = [
        lambda text: parse.parse_numbers("x", text),
        lambda text: parse.parse_numbers("x", text, high=1.0, positive=True),
        lambda text: parse.parse_words("x", text, ("full", "none", "a")),
        lambda text: parse.parse_classes("x", text, classes),
    ]
    for number in range(times):
        text, read = text_of(draw), readers[number % len(readers)]
        if found := told(lambda text=text, read=read: read(text)):  # type: ignore[misc]
            failures.append(f"number {number}, {text[:40]!a}: {found}")
    return failures


def command_lines(launch: Any, times: int, seed: int = 0) -> Tried:
    """So many for each entry point."""
    failures = []
    for name in ENTRY_POINTS:
        call = f"parse_randomly({name!r}, {times}, {seed})"
        answer = launch("cli.places", ask=f"__import__('tests.faults.fuzz_flags', fromlist=['x']).{call}")
        failures += [f"{name}: {answer.err[-300:]}"] if answer.status else answer.value
    total = times * len(ENTRY_POINTS)
    what = f"random command lines to {len(ENTRY_POINTS)} entry points"
    return Tried(what, total, total - len(failures), REFUSED, tuple(failures))


def campaign() -> list[Tried]:
    from tests.experiments.launcher import Launcher

    with tempfile.TemporaryDirectory() as name, Launcher(Path(name)) as launch:
        lines = command_lines(launch, 2000)
    failures = list_randomly(20_000, 0)
    lists = Tried("random text to list flags", 20_000, 20_000 - len(failures), REFUSED, tuple(failures))
    return [lines, lists]
