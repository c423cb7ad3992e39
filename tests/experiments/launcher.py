"""Entry points one after another in one process, each as by `python -m experiments.NAME`: Python and JAX
start once."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from kd_jax import plots
from kd_jax.errors import InputError

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What an entry point left: exit status (minus the signal that killed it), streams, what was asked."""

    status: int
    out: str = ""
    err: str = ""
    value: Any = None


class Launcher:
    """A process that runs entry points one after another, this file being its program."""

    def __init__(self, folder: Path):
        # Compiling is most of the time.
        quick = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": quick}
        command = [sys.executable, "-P", __file__]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.communicate()

    def __call__(
        self,
        name: str,
        *words: object,
        ask: str = "",
        die: str = "",
        before: str = "",
        draw: bool = True,
    ) -> Outcome:
        """Runs experiments.`name` with these flags.

        ask: instead of running its main, evaluate this in the module, its flags being parsed.
        die, before: send the process this signal when it is about to put a file of that name in place.
        draw: whether figures are rendered, which takes longer than all the rest; else their files are empty.
        """
        request: dict[str, Any] = {"name": name, "words": list(map(str, words)), "draw": draw}
        request |= {"ask": ask, "die": die, "before": before}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        return Outcome(**json.loads(reply)) if reply else Outcome(self.process.wait())


def serve() -> None:
    """The launcher's other end: a request a line from stdin, a reply a line to what was stdout at first."""
    app.define_help_flags()
    builtin = set(flags.FLAGS)
    rename, render = os.replace, plots.render
    with os.fdopen(os.dup(1), "w") as replies:
        for line in sys.stdin:
            request = json.loads(line)

            def replace(source: Any, target: Any, request: dict[str, Any] = request) -> None:
                if Path(target).name == request["before"]:
                    os.kill(os.getpid(), signal.Signals[request["die"]])
                rename(source, target)

            os.replace = replace  # type: ignore[assignment]
            plots.render = render if request["draw"] else lambda figure, kind="png": b""
            print(json.dumps(_captured(request)), file=replies, flush=True)
            # As if never imported: both entry points have a flag --omit.
            for module in [module for module in sys.modules if module.split(".")[0] == "experiments"]:
                del sys.modules[module]
            for flag in set(flags.FLAGS) - builtin:
                delattr(flags.FLAGS, flag)
            flags.FLAGS.unparse_flags()


def _captured(request: dict[str, Any]) -> dict[str, Any]:
    """Whatever is written to file descriptors 1 and 2, by Python or not."""
    seen = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        status, value = _execute(request)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(seen, 1):
            os.dup2(old, number)
            os.close(old)
        out.seek(0)
        err.seek(0)
        return {"status": status, "out": out.read().decode(), "err": err.read().decode(), "value": value}


def _execute(request: dict[str, Any]) -> tuple[int, Any]:
    module = f"experiments.{request['name']}"
    try:
        if request["ask"]:
            namespace = runpy.run_module(module)
            flags.FLAGS([module, *request["words"]])
            return 0, eval(request["ask"], namespace)
        sys.argv = [module, *request["words"]]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0, None
    except SystemExit as exit:
        return (exit.code if isinstance(exit.code, int) else int(exit.code is not None)), None
    except InputError as error:
        return 2, str(error)
    except BaseException:
        traceback.print_exc()
        return 1, None


if __name__ == "__main__":
    # Started in the background, a process inherits that SIGINT is ignored; here it is to be what a user has.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve()
