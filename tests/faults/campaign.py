"""The fault campaign in full: every part, one after another, into one json.

    .venv/bin/python -P -m tests.faults.campaign [--parts=killed,damaged] [--out=FOLDER]

A part is a file beside this one with a function `campaign() -> list[Tried]`; the suite runs a small portion
of each. Parts that are not named keep what campaign.json has of them. Ends with status 1 where less held than
must.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from experiments.cli import machine, provenance
from kd_jax.io import run_files

PARTS = (
    "killed", "damaged", "disk", "two_at_once", "synthesize", "diverged", "bad_input", "loaded", "fuzz",
    "numbers", "coverage", "soak", "mutation",
)  # fmt: skip


def run(part: str) -> dict:
    """What one part says, and how long it took."""
    begun = time.monotonic()
    rows = importlib.import_module(f"tests.faults.{part}").campaign()
    for row in rows:
        print(f"{part}: {row.what}: {row.held} of {row.times}: {row.outcome}", *row.failures, sep="\n  ")
    return {
        "seconds": round(time.monotonic() - begun),
        "version": provenance.own_version(provenance.ROOT),
        "rows": [row._asdict() for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=provenance.ROOT / "experiments/results/reliability")
    given = parser.parse_args()
    wanted = given.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    file = given.out / "campaign.json"
    content = json.loads(file.read_text()) if file.exists() else {"format": 1, "parts": {}}
    content["machine"] = {
        "cores": machine.num_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "jax": version("jax"),
    }
    failed = False
    for part in wanted:
        content["parts"][part] = run(part)
        failed |= any(row["held"] < row["least"] * row["times"] for row in content["parts"][part]["rows"])
        content["parts"] = {name: content["parts"][name] for name in PARTS if name in content["parts"]}
        run_files.write(file, run_files.to_json(content))
    print(f"Wrote {os.path.relpath(file)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
