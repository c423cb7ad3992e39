"""Break the mathematics line by line, and see whether the tests of that file notice.

    .venv/bin/python -P -m tests.faults.mutation [--files=stats/intervals,train/sampling] [--per_line=2]

A mutant is one of the FILES of kd_jax with one expression changed, in a private copy of the library; the
tests of that file run on it. All run in forks of one process, so that JAX is imported once,
and share one compilation cache. What changes nothing that can be seen is in equivalent.py.
"""

import argparse
import ast
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.equivalent import EQUIVALENT
from tests.faults.tried import Tried

ROOT = Path(__file__).resolve().parents[2]
FILES = ("losses/logits", "train/sampling", "evaluate/bias_correction", "stats/intervals")
PER_LINE = 2
SECONDS = 120  # of CPU: a mutant whose tests need more does not end
OPERATORS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
OPPOSITE = {
    "max": "min", "min": "max", "argmax": "argmin", "argmin": "argmax", "any": "all", "all": "any",
    "round": "floor", "sum": "max", "mean": "sum", "expm1": "exp", "maximum": "minimum", "cummax": "cummin",
}  # fmt: skip
DROPPED = (
    "stop_gradient", "exp", "expm1", "log", "log_softmax", "sqrt", "abs", "round", "sort", "cumsum",
    "maximum", "cummax", "_or_zero", "fsum", "example_mask", "lexsort",
)  # fmt: skip


class Mutant(NamedTuple):
    """A file of kd_jax with one expression changed: `after` in place of the bytes begin to end."""

    file: str
    function: str
    begin: int
    end: int
    after: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.begin] + self.after.encode() + source[self.end :]


def described(mutant: Mutant) -> str:
    """Where it is, and its line as it has become."""
    whole = source_of(mutant.file)
    line = mutant.applied(whole)[whole.rfind(b"\n", 0, mutant.begin) + 1 :].split(b"\n")[0]
    return f"{mutant.file}.{mutant.function}: {line.decode().strip()}"


def source_of(file: str) -> bytes:
    return (ROOT / f"kd_jax/{file}.py").read_bytes()


def changed(node: ast.AST, **fields) -> ast.AST:
    """A copy of the node with other fields."""
    return type(node)(**{name: getattr(node, name) for name in node._fields} | fields)


def other_calls(node: ast.Call) -> Iterator[ast.AST]:
    """The first argument alone, the opposite function, the branches of a `where` swapped."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name in DROPPED:
        yield node.args[0]
    if name in OPPOSITE:
        field = "attr" if isinstance(node.func, ast.Attribute) else "id"
        yield changed(node, func=changed(node.func, **{field: OPPOSITE[name]}))
    if name == "where":
        yield changed(node, args=[node.args[0], node.args[2], node.args[1]])


def others(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in this node's place."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield changed(node, ops=[OPERATORS[type(op)]()])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
            yield changed(node, op=OPERATORS[type(op)]())
            if isinstance(op, ast.Sub | ast.Div):
                yield changed(node, left=node.right, right=node.left)
        case ast.UnaryOp():
            yield node.operand
        case ast.IfExp():
            yield changed(node, body=node.orelse, orelse=node.body)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value - 1 if value else 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(0.9 * value if value else 1.0)
        case ast.keyword(arg="axis"):
            yield ast.keyword("axis", ast.Constant(-1 if ast.unparse(node.value) == "0" else 0))
        case ast.If():
            yield ast.UnaryOp(ast.Not(), node.test)
        case ast.Expr(value=ast.Call()):
            yield ast.Constant(None)
        case ast.Call():
            yield from other_calls(node)


def inside(node: ast.AST) -> Iterator[ast.AST]:
    """Every node within that computes: no annotation, no docstring, no part of an axis."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or name in ("annotation", "returns", "decorator_list"):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            yield child
            if not (isinstance(child, ast.keyword) and child.arg == "axis"):
                yield from inside(child)


def mutants(file: str) -> list[Mutant]:
    """All of a file, in the order of its lines."""
    source = source_of(file)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for top in (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.Assign)):
        for node in inside(top):
            part = node.test if isinstance(node, ast.If) else node
            for other in others(node):
                begin = starts[part.lineno - 1] + part.col_offset
                end = starts[part.end_lineno - 1] + part.end_col_offset
                text = ast.unparse(other)
                after = text if isinstance(other, ast.keyword | ast.Constant) else f"({text})"
                if isinstance(node, ast.Expr):
                    after = f"None  # {source[begin:end].decode()}"
                found.append(Mutant(file, getattr(top, "name", "module"), begin, end, after))
    return sorted(found, key=lambda mutant: mutant.begin)


def chosen(file: str, per_line: int) -> list[Mutant]:
    """So many of each line at random, the same each time."""
    lines: dict[int, list[Mutant]] = {}
    for mutant in mutants(file):
        lines.setdefault(source_of(file).count(b"\n", 0, mutant.begin), []).append(mutant)
    draw = random.Random(0)
    return [one for of_line in lines.values() for one in draw.sample(of_line, min(per_line, len(of_line)))]


def status(test: str) -> int:
    """pytest's status in a fork of this process; minus the signal that ended it."""
    import pytest

    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the parent says the status
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", test]))


def serve() -> None:
    """In the copy: a line of standard input names tests, a line of standard output is their status."""
    import chex
    import flax.linen
    import optax
    import scipy.stats
    import sklearn.metrics

    del chex, flax, optax, scipy, sklearn  # not the library: each fork imports its own
    for line in sys.stdin:
        print(status(line.strip()), flush=True)


class Suite:
    """The library's own copy and the process that forks in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("kd_jax", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        own = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
        own |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        own |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from tests.faults.mutation import serve; serve()"],
            cwd=folder,
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Suite":
        return self

    def __exit__(self, *_) -> None:
        self.process.communicate()  # the end of its input ends it

    def status(self, file: str) -> int:
        package, _, name = file.partition("/")
        self.process.stdin.write(f"tests/{package}/test_{name}.py\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def caught(self, mutant: Mutant) -> bool:
        path = self.folder / f"kd_jax/{mutant.file}.py"
        whole = path.read_bytes()
        path.write_bytes(mutant.applied(whole))
        found = self.status(mutant.file)
        path.write_bytes(whole)
        # Passed; failed; not importable by the tests or by conftest; without end. Else nothing was tried.
        assert found in (0, 1, 2, 4, -signal.SIGXCPU), f"{described(mutant)}: status {found}"
        return found != 0


def survivors(wanted: list[Mutant], report=lambda line: None) -> list[Mutant]:
    """Those of the mutants on which the tests of their file pass."""
    with tempfile.TemporaryDirectory() as name, Suite(Path(name)) as suite:
        for file in {mutant.file for mutant in wanted}:
            assert suite.status(file) == 0, f"the tests of {file}.py fail as it is: nothing would be shown"
        found = []
        for number, mutant in enumerate(wanted):
            if not suite.caught(mutant):
                found.append(mutant)
            verdict = "survives" if mutant in found else "caught"
            report(f"{number + 1}/{len(wanted)} {verdict}: {described(mutant)}")
        return found


def of_file(file: str) -> Tried:
    every = chosen(file, PER_LINE)
    wanted = [mutant for mutant in every if described(mutant) not in EQUIVALENT]
    left = [described(mutant) for mutant in survivors(wanted)]
    unseen = [described(mutant) for mutant in every if mutant not in wanted]
    outcome = (
        f"its tests fail ({len(unseen)} more changes, which alter no outcome, are left out with the reason)"
    )
    reasons = [f"left out: {one}: {EQUIVALENT[one]}" for one in unseen]
    what = f"an expression of {file}.py replaced, up to {PER_LINE} of each line"
    return Tried(what, len(wanted), len(wanted) - len(left), outcome, (*left, *reasons), least=0.95)


def campaign() -> list[Tried]:
    return [of_file(file) for file in FILES]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", default=",".join(FILES))
    parser.add_argument("--per_line", type=int, default=PER_LINE)
    given = parser.parse_args()
    wanted = [mutant for file in given.files.split(",") for mutant in chosen(file, given.per_line)]
    survivors(wanted, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
