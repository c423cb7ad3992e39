"""How long the quickstart takes from its command to its first epoch."""

import os
import subprocess
import sys
import tempfile
import time

from experiments.cli import provenance
from kd_jax.errors import InputError


def measure_starts() -> list[dict]:
    """Seconds from the command to its first epoch, of the quickstart's two programs: with an empty
    compilation cache, and again with the one that is then there."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        environment["PYTHONPATH"] = str(provenance.ROOT)
        for name, recipe in (("train_teacher", "quickstart_teacher"), ("distill", "quickstart")):
            times = []
            for turn in ("first", "second"):
                words = [
                    f"--flagfile={provenance.ROOT}/experiments/recipes/{recipe}.flags",
                    "--checkpoint_every=1",
                ]
                words += [f"--out={folder}/{turn}_{name}"]
                if name == "distill":
                    words += [f"--teacher={folder}/{turn}_train_teacher"]
                times.append(_first_epoch([f"experiments.{name}", *words], environment, name == "distill"))
            rows.append({"program": name, "first_seconds": times[0], "second_seconds": times[1]})
    return rows


def _first_epoch(words: list[str], environment: dict, stop: bool) -> float:
    """Until the line of the first epoch; then the process is stopped, or let to its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        first = next((time.perf_counter() for line in process.stdout if line.startswith("epoch 1/")), None)
        if stop:
            process.kill()
        else:
            process.stdout.read()
    if first is None:
        raise InputError("the quickstart did not start", "a line of its first epoch", words[0])
    return first - start
