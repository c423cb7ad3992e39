"""The block on reliability, from experiments/results/reliability/campaign.json."""

import json
from pathlib import Path

from experiments.reporting import markdown

FILE = "campaign.json"


def table(folder: Path) -> str:
    """What the fault campaign tried, how often, how often it held, and what happened."""
    content = json.loads((folder / FILE).read_text())
    machine, parts = content["machine"], content["parts"].values()
    rows = [
        [row["what"], f"{row['times']:,}", f"{row['held']:,}", row["outcome"]]
        for part in parts
        for row in part["rows"]
    ]
    minutes = sum(part["seconds"] for part in parts) / 60
    where = f"{machine['cores']} CPU cores, Python {machine['python']}, jax {machine['jax']}"
    where += f"; {minutes:.0f} min:"
    shown = markdown.table(["what was done", "times", "held", "what happened"], rows)
    failures = [f"- {failure}" for part in parts for row in part["rows"] for failure in row["failures"]]
    lines = ["", "What was left out, or did not hold, and why:", "", *failures] if failures else []
    return "\n".join([where, "", *shown, *lines])
