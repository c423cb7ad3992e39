"""SIGTERM and SIGINT while a compiled segment is computed, which nothing can leave half-way."""

import contextlib
import os
import signal
import sys

import jax

from experiments.cli import progress


@contextlib.contextmanager
def stop_requests():
    """The list of SIGTERM and SIGINT (Ctrl-C) received inside the block, instead of what they usually do: a
    compiled segment cannot be left half-way, so it ends, is saved, and then the caller stops. A Ctrl-C after
    another request stops at once; not a second SIGTERM, for some programs send two at a time."""
    requests: list[int] = []

    def record(number, frame):
        if requests and number == signal.SIGINT:
            _leave()
        requests.append(number)  # before the print: the next signal may come while it is written
        if len(requests) == 1:
            again = "again" if number == signal.SIGINT else "Ctrl-C"
            _say(f"finishing the segment, then stopping; {again} to stop at once")

    handlers = {number: signal.signal(number, record) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave() -> None:
    """Ends the process at once. An exception would not do: raised inside one of JAX's callbacks it is
    dropped, and JAX waits for the segment before it lets a process end."""
    _say("interrupted; the same command continues from the last checkpoint")
    with contextlib.suppress(RuntimeError):
        sys.stdout.flush()
    os._exit(128 + signal.SIGINT)


def _say(line: str) -> None:
    """A line on stderr from a signal handler, which may have interrupted a print: Python's own buffers refuse
    to be entered twice."""
    if jax.process_index() == 0:
        if progress.is_up():
            os.write(sys.stdout.fileno(), progress.CLEAR.encode())
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
