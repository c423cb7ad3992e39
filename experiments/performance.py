"""The README's blocks on performance, from experiments/results/benchmark/*.json: a file for each device."""

import json
from pathlib import Path
from typing import Any


def read(folder: Path) -> list[dict[str, Any]]:
    """The committed benchmarks, the CPU's first."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _range(values: dict[str, float], digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"


def speed(benchmarks: list[dict]) -> str:
    """Examples/s against the machine's own matrix product and against PyTorch."""
    blocks = []
    for content in benchmarks:
        packages = ", ".join(
            f"{name} {content['versions'][name]}" for name in ("jax", "torch") if name in content["versions"]
        )
        caption = (
            f"{content['device']}, {packages}; median of {content['repeats']} turns (lowest to highest):"
        )
        columns = ["", "runs", "examples/s", "GFLOP/s", "of the matrix peak"]
        rivals = any("times_best_loop" in row for row in content["speed"])
        columns += ["× best PyTorch loop", "which is", "× DataLoader loop"] if rivals else []
        rows = []
        for row in content["speed"]:
            name = row["workload"] + (" bfloat16" if row["precision"] == "bfloat16" else "")
            cells = [name, str(row["runs"]), f"{row['examples_per_second']['median']:,.0f}"]
            cells += [f"{row['flops_per_second']['median'] / 1e9:,.0f}", _range(row["share_of_peak"], 2)]
            if "times_best_loop" in row:
                best, loader = row["times_best_loop"], row["times_loader_loop"]
                cells += [_range(best, 2), row["best_loop"]["how"], f"{loader['median']:.0f}"]
            rows.append(cells + [""] * (len(columns) - len(cells)))
        blocks.append(f"{caption}\n\n{markdown(columns, rows)}")
    return "\n\n".join(blocks)


def growth(benchmarks: list[dict]) -> str:
    """What more runs cost."""
    columns = [
        "mlp-300-300",
        "peak memory",
        "of which weights and moments",
        "to compile and initialise",
        "examples/s",
    ]
    blocks = []
    for content in benchmarks:
        rows = []
        for row in content["growth"]:
            peak, state = (f"{row[name] / 2**20:,.0f} MiB" for name in ("peak_memory_bytes", "state_bytes"))
            runs = f"{row['runs']} run{'s' if row['runs'] > 1 else ''}"
            rows.append(
                [runs, peak, state, f"{row['compile_seconds']:.1f} s", f"{row['examples_per_second']:,.0f}"]
            )
        blocks.append(markdown(columns, rows))
    return "\n\n".join(blocks)


def chunks(benchmarks: list[dict]) -> str:
    """Examples/s of each way of mapping the runs."""
    blocks = []
    for content in benchmarks:
        ways = list(dict.fromkeys(row["chunk"] for row in content["chunks"]))
        rates: dict[str, dict] = {}
        for row in content["chunks"]:
            name = f"{row['workload']}, {row['runs']} runs"
            rates.setdefault(name, {})[row["chunk"]] = f"{row['examples_per_second']['median']:,.0f}"
        columns = ["examples/s with `--chunk`", *("0 (all)" if way == "all" else str(way) for way in ways)]
        blocks.append(markdown(columns, [[name, *(own[way] for way in ways)] for name, own in rates.items()]))
    return "\n\n".join(blocks)


def costs(benchmarks: list[dict]) -> str:
    """What is not training, and starts."""
    columns = ["", "share of the training time, or seconds"]
    blocks = []
    for content in benchmarks:
        extras = content["extras"]
        rows = [
            [
                "evaluation on 6,000 images after each epoch, mlp-800-800",
                f"{100 * extras['evaluation_share']['median']:.1f} %",
            ],
            [
                "biases, curves and confusion matrices after 40 epochs, mlp-800-800",
                f"{100 * extras['assessment_share']:.1f} %",
            ],
        ]
        for row in content["starts"]:
            times = f"{row['first_seconds']:.1f} s, then {row['second_seconds']:.1f} s"
            rows.append([f"`{row['program']}` of the quickstart, from the command to its first epoch", times])
        blocks.append(markdown(columns, rows))
    return "\n\n".join(blocks)


BLOCKS = {"speed": speed, "growth": growth, "chunks": chunks, "costs": costs}
