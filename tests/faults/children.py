"""Entry points as children of one process that has imported what is slow, stopped or killed where one says.

Each child is forked before JAX starts a device, and runs as `python -P -m experiments.NAME` would. It counts
its steps on the disk (a file opened to be written, renamed or removed, a folder made or removed, a lock), of
which Python's audit events tell, Orbax's own included. Just before the step that it is told, it sends itself
a signal.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from tests.quick_compile import QUICK

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock")
SLOW = (
    "jax", "optax", "orbax.checkpoint", "scipy.stats", "matplotlib.backends.backend_agg",
    "kd_jax.evaluate.representation", "kd_jax.evaluate.evaluate", "kd_jax.evaluate.ensemble",
    "kd_jax.io.checkpoint", "kd_jax.io.examples", "kd_jax.data", "kd_jax.plots",
)  # fmt: skip


class Ended(NamedTuple):
    """A child that ended or stopped: its exit status (minus the signal that killed it, the one that stopped
    it), its streams, the seconds that it took, its steps in words, and its process."""

    status: int
    out: str
    err: str
    seconds: float
    steps: list[str]
    pid: int


class Children:
    """The parent of the children; they work in `folder`, whose .streams it uses. Root's too are denied what
    permissions deny."""

    def __init__(self, folder: Path, **environment: str):
        self.folder = folder
        (folder / ".streams").mkdir(parents=True, exist_ok=True)
        quick = f"--xla_force_host_platform_device_count=2 {QUICK}"
        own = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": quick, "PYTHONDONTWRITEBYTECODE": "1"}
        environment = os.environ | own | environment
        pipe = subprocess.PIPE
        as_anyone = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
        self.process = subprocess.Popen(
            [*as_anyone, sys.executable, "-P", "-m", "tests.faults.children"],
            stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment,
        )  # fmt: skip

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.communicate()

    def __call__(self, name: str, *words: object, **where: Any) -> Ended:
        """Runs experiments.`name` with these flags until it ends or stops.

        where: step=n (from 1) or words of a step, signal="SIGKILL" or "SIGSTOP": sent just before the n-th
        or the first that has these words; after=seconds: SIGKILL, or the signal, then; draw=True: figures are
        rendered, else their files are empty.
        """
        return self._ask({"name": name, "words": list(map(str, words)), **where})

    def resume(self, stopped: Ended) -> Ended:
        """Lets a child that stopped go on until it ends."""
        return self._ask({"pid": stopped.pid, "then": "SIGCONT"})

    def kill(self, stopped: Ended) -> Ended:
        return self._ask({"pid": stopped.pid, "then": "SIGKILL"})

    def _ask(self, request: dict[str, Any]) -> Ended:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return Ended(**json.loads(self.process.stdout.readline()))


def serve() -> None:
    """The parent's own program: a request a line from stdin, a reply a line to stdout."""
    for slow in SLOW:
        importlib.import_module(slow)
    stopped = set()
    for line in sys.stdin:
        request = json.loads(line)
        begun = time.monotonic()
        if "pid" in request:
            pid = request["pid"]
            os.kill(pid, signal.Signals[request["then"]])
        else:
            pid = os.fork()
            if pid == 0:
                run(request)
        if "after" in request:
            time.sleep(request["after"])
            os.kill(pid, signal.Signals[request.get("signal", "SIGKILL")])
        status = os.waitpid(pid, os.WUNTRACED)[1]
        stopped = stopped | {pid} if os.WIFSTOPPED(status) else stopped - {pid}
        code = os.WSTOPSIG(status) if pid in stopped else os.waitstatus_to_exitcode(status)
        files = [Path(f".streams/{pid}.{name}") for name in ("out", "err", "steps")]
        # One that is killed at its very first moment has not opened them.
        out, err, steps = (file.read_text() if file.exists() else "" for file in files)
        reply = (code, out, err, time.monotonic() - begun, steps.splitlines(), pid)
        print(json.dumps(dict(zip(Ended._fields, reply, strict=True))), flush=True)
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)


def run(request: dict[str, Any]) -> None:
    """The child."""
    from kd_jax import plots

    here = f".streams/{os.getpid()}"
    for number, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(f"{here}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    log = os.open(f"{here}.steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not request.get("draw"):
        plots.render = lambda figure, kind="png": b""
    steps, wanted = 0, request.get("step")

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps, wanted
        if event in STEPS or (event == "open" and opens_to_write(arguments)):
            steps += 1
            said = f"{event} {arguments[event == 'os.rename']}"
            os.write(log, f"{said}\n".encode())
            if steps == wanted or (isinstance(wanted, str) and wanted in said):
                wanted = None
                os.kill(os.getpid(), signal.Signals[request["signal"]])
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(0.3)  # the main thread, where Python raises, goes on first

    sys.addaudithook(hear)
    status: Any = 1
    try:
        sys.argv = [f"experiments.{request['name']}", *request["words"]]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as exit:
        status = exit.code or 0
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def opens_to_write(arguments: tuple[Any, ...]) -> bool:
    """arguments: path, mode, flags, of the event "open"."""
    path, _, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and str(path) != os.devnull


if __name__ == "__main__":
    serve()
