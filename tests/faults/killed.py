"""Kill a sweep at random moments, start it again until it is done, and compare with the undisturbed one.

    .venv/bin/python -m tests.faults.killed --times=20 [--processes=2]

Each time a fresh folder, one or two SIGKILLs at moments drawn uniformly from the undisturbed run's length,
then the same command until it ends by itself. history.csv, results.csv, bias_curve.csv, summary.json and all
arrays in students/ must be equal to the bit. Prints a line a time; ends with status 1 at a difference.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from kd_jax import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SWEEP = [
    "--loss=labels",
    "--model=mlp-64-64",
    "--omit=none,3",
    "--seeds=3",
    "--epochs=60",
    "--checkpoint_every=3",
]


def command(number: int, out: Path) -> list[str]:
    start = ["experiments.distill"] if number == 1 else ["experiments.processes", str(number), "distill"]
    return [sys.executable, "-P", "-m", *start, *SWEEP, f"--out={out}"]


def start(number: int, out: Path) -> subprocess.Popen:
    """In a group of its own, so that all of its processes can be killed at once."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(number, out),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def differences(one: Path, other: Path) -> list[str]:
    names = ("history.csv", "results.csv", "bias_curve.csv", "summary.json")
    found = [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
    arrays = [checkpoint.load(folder / "students")[0] for folder in (one, other)]
    for layer, leaves in arrays[0]["params"].items():
        for name, leaf in leaves.items():
            if not np.array_equal(leaf, arrays[1]["params"][layer][name]):
                found.append(f"students/{layer}/{name}")
    listed = [{path.name for path in folder.iterdir()} for folder in (one, other)]
    return found + sorted(listed[0] ^ listed[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for turn in range(2):  # the first fills the compilation cache, the second is timed
            begun = time.monotonic()
            whole = start(given.processes, folder / f"whole_{turn}")
            error = whole.communicate()[1]
            assert whole.returncode == 0, error.decode()
        length = time.monotonic() - begun
        print(f"undisturbed: {length:.1f} s")
        for number in range(given.times):
            out = folder / f"killed_{number}"
            moments = []
            for _ in range(draw.randint(1, 2)):
                process = start(given.processes, out)
                moments.append(draw.uniform(0, length))
                time.sleep(moments[-1])
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            process = start(given.processes, out)
            error = process.communicate()[1]
            assert process.returncode == 0, error.decode()
            wrong = differences(folder / "whole_1", out)
            at = ", ".join(f"{moment:.2f} s" for moment in moments)
            verdict = f"differs: {', '.join(wrong)}" if wrong else "equal"
            print(f"{number + 1}/{given.times}: killed at {at}: {verdict}", flush=True)
            if wrong:
                sys.exit(1)


if __name__ == "__main__":
    main()
