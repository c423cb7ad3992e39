"""Several processes of one experiment: started and watched on one machine, or found by JAX in a cluster.

`./launch.sh --processes=2 distill ...` runs this file, which starts the processes and watches them. In each
of them, and in each task that a cluster starts, `join` makes them one: they see all devices, over which
`sweep.runs_mesh` splits the runs. Process 0 writes; all write and read checkpoints.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

# A process that died is known after this many seconds.
HEARTBEAT = 30


def in_cluster() -> bool:
    """Whether a cluster started this process as one of several: SLURM's srun, an indexed job of Kubernetes,
    or a TPU pod."""
    env = os.environ
    tasks = env.get("SLURM_STEP_NUM_TASKS", "")
    return (
        (tasks.isdecimal() and int(tasks) > 1)
        or ("KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env)
        or "," in env.get("TPU_WORKER_HOSTNAMES", "")
    )


def started() -> int:
    """How many processes `launch` started on this machine."""
    return _number("KD_JAX_PROCESSES", 1)


def _number(variable: str, default: int) -> int:
    """Of an environment variable; the default where it holds something else."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default


def join(possible: bool) -> None:
    """Makes this process one of those that were started together, if any were; before JAX is used.

    possible: whether this experiment can be done together. Errors: InputError where it cannot, or where the
        others cannot be found.
    """
    number = os.environ.get("KD_JAX_PROCESSES") or ("auto" if in_cluster() else "1")
    if number == "1":
        return
    import jax
    from jax.experimental import multihost_utils

    from kd_jax.errors import InputError

    if not possible:
        raise InputError("not a work for several processes", "train_teacher or distill", sys.argv[0])
    jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM from us
    try:
        if number == "auto":
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        else:
            place, index = os.environ["KD_JAX_COORDINATOR"], int(os.environ["KD_JAX_PROCESS"])
            jax.distributed.initialize(place, int(number), index, heartbeat_timeout_seconds=HEARTBEAT)
    except (LookupError, ValueError, RuntimeError) as error:
        expected = "--processes=NUMBER on one machine, or a cluster that JAX knows"
        raise InputError("the processes do not find each other", expected, repr(error)) from None
    if number != "auto" and jax.default_backend() != "cpu":
        expected = "a CPU, for one process drives all accelerators of a machine"
        raise InputError("--processes on one machine", expected, jax.default_backend())
    # The libraries below Python report connections on file 1, where only process 0 writes, and lost ones on
    # file 2, in many lines; where `launch` watches, it says what happened.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stdout = os.fdopen(os.dup(1 if jax.process_index() == 0 else nowhere), "w", errors="replace")
    os.dup2(nowhere, 1)
    if number != "auto":
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="replace")
        os.dup2(nowhere, 2)
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # They connect now, while none is ahead of another: later, one that still reads its data would be missed.
    multihost_utils.sync_global_devices("joined")


def _end_with(parent: int) -> None:
    """Ends this process when the one that watches it is no more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def several() -> bool:
    """Whether this is one of several processes, asked before `join` too."""
    return started() > 1 or _has_joined()


def _has_joined() -> bool:
    """Whether JAX knows other processes; not, where nothing has loaded it."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def is_peer_failure(error: Exception) -> bool:
    """Whether the error, of whatever type, is that another process does not answer any more."""
    signs = ("UNAVAILABLE", "heartbeat", "Socket closed", "Connection reset", "Connection closed by peer")
    return any(sign in str(error) for sign in signs)


def reason(error: Exception) -> str:
    """What to say of an error in one of several processes: a lost one in one line, else all of it."""
    if is_peer_failure(error):
        return "error: another process ended; the same command goes on from the last checkpoint, if any"
    return "".join(traceback.format_exception(error)).rstrip()


def abort(status: int, line: str) -> NoReturn:
    """Ends a process that failed at once: JAX's own end would wait for the others, which cannot go on.

    line: for stderr. Process 0 says it at once. The others wait a second, silent, in which they are ended if
    process 0 had the same to say.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    index = sys.modules["jax"].process_index() if _has_joined() else _number("KD_JAX_PROCESS", 0)
    stderr = os.dup(sys.stderr.fileno())
    if index and status == 130:  # Ctrl-C was for all
        os._exit(status)
    if index:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        time.sleep(1)
    os.write(stderr, f"{f'process {index}: ' if index else ''}{line}\n".encode())
    os._exit(status)


def broadcast_from_host0(value: int) -> int:
    """Process 0's value, in all of them."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(value))


def allreduce_max(value: int) -> int:
    """The largest of the processes' values, in all of them."""
    import jax
    from jax.experimental import multihost_utils

    return value if jax.process_count() == 1 else int(multihost_utils.process_allgather(value).max())


def _start(number: int, words: list[str], children: list[subprocess.Popen]) -> None:
    """Starts them, and adds each to `children` as soon as it is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for index in range(number):
        if cores:  # equal shares, which children inherit; more processes than cores share them
            share = len(cores) // number
            mine = cores[index * share : (index + 1) * share] or [cores[index % len(cores)]]
            os.sched_setaffinity(0, mine)
        place = {
            "KD_JAX_PROCESSES": str(number),
            "KD_JAX_PROCESS": str(index),
            "KD_JAX_COORDINATOR": coordinator,
        }
        command = [sys.executable, "-P", "-m", f"experiments.{words[0]}", *words[1:]]
        children.append(subprocess.Popen(command, env=os.environ | place))
    if cores:
        os.sched_setaffinity(0, cores)


def _watch(children: list[subprocess.Popen]) -> int:
    """Waits for all to end well; when one does not, ends the others. Returns: the exit status of it all."""
    while True:
        states = [child.poll() for child in children]
        bad = [index for index, state in enumerate(states) if state]
        if None not in states or bad:
            break
        time.sleep(0.1)
    if not bad:
        return 0
    # Where process 0 refused its input, all has been said; what else stops them all, each tells itself.
    deadline = time.monotonic() + (0 if states[0] == 2 else 5)
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    statuses = [child.poll() for child in children]
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()
    if 2 in statuses:  # bad input, of which all has been said
        return 2
    # One that was killed is the cause; others may have noticed before this did.
    index = next((i for i, status in enumerate(statuses) if status and status < 0), bad[0])
    first = statuses[index] or 0
    if first < 0 or len(set(statuses)) > 1:
        how = f"by {signal.Signals(-first).name}" if first < 0 else f"with status {first}"
        what = f"process {index} of {len(children)} ended {how}, so the others were ended too"
        print(f"error: {what}; the same command goes on from the last checkpoint, if any", file=sys.stderr)
    return 128 - first if first < 0 else first


def launch(argv: list[str]) -> int:
    """processes NUMBER EXPERIMENT [flags]"""
    if len(argv) < 2 or not (Path(__file__).parents[1] / f"{argv[1]}.py").is_file():
        print("error: an experiment is missing: expected processes NUMBER EXPERIMENT", file=sys.stderr)
        return 2
    number, words = argv[0], argv[1:]
    if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= 1024):
        print(f"error: --processes: expected a number from 1 to 1024; given {number!r}", file=sys.stderr)
        return 2
    children: list[subprocess.Popen] = []

    def forward(signum, frame):
        for child in children:
            with contextlib.suppress(OSError):
                child.send_signal(signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGHUP, forward)
    try:
        _start(int(number), words, children)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the processes by itself
        return _watch(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
