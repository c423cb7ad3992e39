"""How an entry point runs: flags first, then its main; errors in one line, notes, signals, JAX's options.

No heavy package is imported before the flags are parsed.
"""

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from absl import app
from absl import logging as absl_logging

from experiments.cli import cluster, failures, flags, help, machine, progress
from kd_jax.errors import InputError

INTERRUPTED = "interrupted; the same command continues from the last checkpoint"

AT_END = contextlib.ExitStack()
"""What is to be given back when an entry point's main ends, however it ends."""


def run(
    main: Callable[[Sequence[str]], None], example: str, several: bool = False, computes: bool = True
) -> None:
    """Parses the flags and runs `main`. Bad input: one line on stderr, exit status 2, no traceback.

    example: for --help, what may follow ./launch.sh.  several: whether it can be done by several processes
    together.  computes: whether it needs JAX, which is then configured; else nothing here loads it.
    """
    app.run(partial(_guarded, main, several, computes), flags_parser=partial(_parse_flags, example))


def log_note(line: str) -> None:
    """A line on stderr, once where there are several processes."""
    import jax

    if jax.process_index() == 0:
        progress.clear()
        print(line, file=sys.stderr)


class NoteHandler(logging.Handler):
    """What the library warns of, as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        log_note(f"note: {' '.join(record.getMessage().split())}")


def log_library_warnings() -> None:
    library = logging.getLogger("kd_jax")
    library.setLevel(logging.WARNING)
    # Else absl's level for all others would hold.
    library.handlers, library.propagate = [NoteHandler()], False


def _parse_flags(example: str, argv: Sequence[str]) -> list[str]:
    try:
        return help.parse(argv, example)
    except InputError as error:
        _refuse(str(error))
    except SystemExit:
        sys.exit(0)  # --helpfull, which absl ends as a failure


def _guarded(main, several: bool, computes: bool, argv: Sequence[str]) -> None:
    # Orbax reports every step of every save, and what it cannot load in pages beside its exception.
    absl_logging.set_verbosity(absl_logging.FATAL)
    log_library_warnings()
    if computes:
        _configure_jax()
    requests: list[int] = []
    try:
        cluster.join(several)
        if not cluster.several():
            install_signal_handlers(requests)
        with AT_END:
            if flags.is_quiet():
                nowhere = AT_END.enter_context(open(os.devnull, "w"))  # noqa: SIM115
                AT_END.enter_context(contextlib.redirect_stdout(nowhere))
            if "" in argv[1:]:  # which would be the folder that one stands in
                raise InputError("an argument is empty", "the name of a folder or of a dataset", "''")
            main(argv)
    except InputError as error:
        _refuse(str(error))
    except BrokenPipeError:  # whoever read our output has had enough, as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if cluster.several():
            cluster.abort(128 + signal.SIGPIPE, "nobody reads the output")
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        _fail(error, requests)
    except KeyboardInterrupt:
        if cluster.several():
            cluster.abort(130, INTERRUPTED)
        _end(128 + (requests or [signal.SIGINT])[0], INTERRUPTED)


def _configure_jax() -> None:
    """Before JAX is used: where compiled programs are kept, and how many devices a CPU is."""
    import jax

    cache = machine.compilation_cache()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        with contextlib.suppress(OSError):  # where no cache can be written, every start compiles anew
            cache.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(cache))
    # The small ones too: a run has about 40, and compiling them anew takes a second.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # JAX does not write them atomically. One that another process is writing, or that a killed one has left
    # incomplete, is compiled anew; nobody has to do anything about it.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", machine.num_cores())


def _fail(error: Exception, requests: Sequence[int]) -> NoReturn:
    """Ends the process: with status 2 and one line where the user can mend it, else with status 1 and a line
    that names a file with the traceback.  requests: to stop, as of `install_signal_handlers`."""
    several = cluster.several()
    if several and cluster.is_peer_failure(error):  # of whatever type: Orbax's barriers raise TimeoutError
        cluster.abort(1, cluster.reason(error))
    if expected := failures.expected(error):
        what = "a file cannot be read or written" if isinstance(error, OSError) else "the computation failed"
        _refuse(str(InputError(what, expected, error)))
    if requests and not several:
        _end(128 + requests[0], INTERRUPTED)
    line = failures.record(error)
    if several:
        cluster.abort(1, line)
    _end(1, line)


def install_signal_handlers(requests: list[int]) -> None:
    """Lets SIGTERM and SIGINT raise, so that AT_END and `finally` give back what is theirs; and notes them,
    for what was interrupted may make another error of it, as a module that is being imported does."""

    def end(number, frame):
        requests.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _end(status: int, line: str) -> NoReturn:
    progress.clear()
    print(line, file=sys.stderr)
    sys.exit(status)


def _refuse(message: str) -> NoReturn:
    line = f"error: {' '.join(message.split())}"
    if cluster.several():
        cluster.abort(2, line)
    _end(2, line)


def refuse_arguments(argv: Sequence[str]) -> None:
    """Entry points take flags only."""
    if len(argv) > 1:
        raise InputError("unexpected argument", "flags only, as in --epochs=10", " ".join(argv[1:]))
