"""The blocks on speed, from experiments/results/benchmark/: a file for each device; the parts
`pictures` and `convolutions`, which are measured by themselves, in its folder pictures/, and `methods` in
its folder methods/."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from experiments.reporting.markdown import table


def read(folder: Path) -> list[dict[str, Any]]:
    """The committed benchmarks, with the instruction set of a CPU, of which the file's name begins, and
    whether they are of an earlier version of the code, which its name ends with."""
    return [
        json.loads(path.read_text())
        | {
            "instructions": INSTRUCTIONS.get("_".join(path.stem.split("_")[:2])),
            "before": path.stem.endswith("_before"),
        }
        for path in sorted(folder.rglob("*.json"))
    ]


def blocks_of(folder: Path) -> dict[str, Callable[[], str]]:
    """The blocks of what is measured, by name."""
    benchmarks = read(folder)
    having = {name: [content for content in benchmarks if name in content] for name in BLOCKS}
    measured: dict[str, Callable[[], str]] = {
        name: partial(BLOCKS[name], contents) for name, contents in having.items() if contents
    }
    return measured | {"methods_cost": partial(methods, [one for one in benchmarks if "methods" in one])}


def _table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(table(columns, rows))


def _range(values: dict[str, float], digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"


def _device(content: dict[str, Any]) -> str:
    versions = content["versions"]
    instructions = f" ({content['instructions']})" if content.get("instructions") else ""
    before = "An earlier version of this code, " if content.get("before") else ""
    packages = [f"{name} {versions[name]}" for name in ("jax", "torch", "torchdistill") if name in versions]
    return ", ".join([f"{before}{content['device']}{instructions}", *packages])


def _caption(content: dict[str, Any]) -> str:
    return f"{_device(content)}; median of {content['repeats']} turns (lowest to highest):"


def _mapped(vmap_size: int | None) -> str:
    return {None: "vmapped", 1: "one by one"}.get(vmap_size, f"{vmap_size} at a time")


def speed(benchmarks: list[dict]) -> str:
    """Examples/s against the machine's own matrix product and against PyTorch."""
    blocks = []
    for content in benchmarks:
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
        blocks.append(f"{_caption(content)}\n\n{_table(columns, rows)}")
    return "\n\n".join(blocks)


def pictures(benchmarks: list[dict]) -> str:
    """Training of convolutional students against the matrix product and PyTorch."""
    blocks = []
    for content in benchmarks:
        columns = ["", "runs", "examples/s", "GFLOP/s", "of the matrix peak"]
        rivals = {name: f"× PyTorch, {words}" for name, words in RIVALS.items()}
        rivals = {name: words for name, words in rivals.items() if name in content["pictures"][-1]["rivals"]}
        rows = []
        for row in content["pictures"]:
            name = row["workload"] + (" bfloat16" if row["precision"] == "bfloat16" else "")
            cells = [name, str(row["runs"]), f"{row['examples_per_second']['median']:,.0f}"]
            cells += [f"{row['flops_per_second']['median'] / 1e9:,.0f}", _range(row["share_of_peak"], 2)]
            measured = row["rivals"]
            cells += [_range(measured[name]["times"], 2) if name in measured else "" for name in rivals]
            rows.append(cells)
        blocks.append(f"{_caption(content)}\n\n{_table([*columns, *rivals.values()], rows)}")
    return "\n\n".join(blocks)


def convolutions(benchmarks: list[dict]) -> str:
    """Single layers by every way, for each way of mapping the runs."""
    blocks = []
    for content in benchmarks:
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for row in content["convolutions"]:
            mapping = "1 run" if row["runs"] == 1 else f"{row['runs']} runs, {_mapped(row['vmap_size'])}"
            rate = row["flops_per_second"]["median"] / 1e9
            text = f"{rate:,.{0 if rate >= 10 else 1}f} ({row['share_of_peak']['median']:.2f})"
            cells.setdefault((row["layer"], row["way"]), {})[mapping] = text
        mappings = list(dict.fromkeys(mapping for by_mapping in cells.values() for mapping in by_mapping))
        rows = [
            [layer, way, *(by_mapping.get(mapping, "") for mapping in mappings)]
            for (layer, way), by_mapping in cells.items()
        ]
        table = _table(["GFLOP/s (of the matrix peak)", "way", *mappings], rows)
        blocks.append(f"{_caption(content)}\n\n{table}")
    return "\n\n".join(blocks)


def methods(benchmarks: list[dict]) -> str:
    """The cost of an update by each method, ours and torchdistill's, and the ratio of the two rates."""
    blocks = []
    for content in benchmarks:
        columns = ["", "runs", "our teacher is", "examples/s", "cost"]
        rivals = any(row["rivals"] for row in content["methods"])
        columns += ["cost, torchdistill", "× torchdistill", "× torchdistill, cached logits"] if rivals else []
        rows = []
        for row in content["methods"]:
            name = f"`{row['method']}`" + (" bfloat16" if row["precision"] == "bfloat16" else "")
            cells = [name, str(row["runs"]), "cached" if row["cached"] else "queried"]
            cells += [f"{row['examples_per_second']['median']:,.0f}", _range(row["cost"], 2)]
            queried, cached = (row["rivals"].get(name) for name in ("queried", "cached"))
            if queried:
                cells += [_range(queried["cost"], 2), _range(queried["times"], 2)]
                cells += [_range(cached["times"], 2)] if cached else []
            rows.append(cells + [""] * (len(columns) - len(cells)))
        blocks.append(f"{_caption(content)}\n\n{_table(columns, rows)}")
    return "\n\n".join(blocks) or "No result yet."


def noise(benchmarks: list[dict]) -> str:
    """Students of subliminal learning, against PyTorch's loops."""
    blocks = []
    for content in benchmarks:
        row = content["noise"]
        columns = ["", "examples/s", *(f"× PyTorch, {name}" for name in row["rivals"])]
        cells = [f"{row['model']}, {row['runs']} students", f"{row['examples_per_second']['median']:,.0f}"]
        cells += [_range(rival["times"], 2) for rival in row["rivals"].values()]
        blocks.append(f"{_caption(content)}\n\n{_table(columns, [cells])}")
    return "\n\n".join(blocks)


def vmap_sizes(benchmarks: list[dict]) -> str:
    """Examples/s of each way of mapping the runs."""
    blocks = []
    for content in benchmarks:
        ways = list(dict.fromkeys(row["vmap_size"] for row in content["vmap_sizes"]))
        rates: dict[str, dict] = {}
        for row in content["vmap_sizes"]:
            name = f"{row['workload']}, {row['runs']} runs"
            rates.setdefault(name, {})[row["vmap_size"]] = f"{row['examples_per_second']['median']:,.0f}"
        columns = [
            "examples/s with `--vmap_size`",
            *("0 (all)" if way == "all" else str(way) for way in ways),
        ]
        cells = [[name, *(by_size[way] for way in ways)] for name, by_size in rates.items()]
        caption = f"{_device(content)}; medians of {content['repeats']} turns:"
        blocks.append(f"{caption}\n\n{_table(columns, cells)}")
    return "\n\n".join(blocks)


def starts(benchmarks: list[dict]) -> str:
    """Seconds to the first epoch."""
    columns = ["from the command to the first epoch", "nothing compiled before", "compiled before"]
    blocks = []
    for content in benchmarks:
        rows = [
            [f"`{row['program']}` of the quickstart", *(f"{row[name]:.1f} s" for name in TURNS)]
            for row in content["starts"]
        ]
        blocks.append(f"{_device(content)}:\n\n{_table(columns, rows)}")
    return "\n\n".join(blocks)


TURNS = ("first_seconds", "second_seconds")
INSTRUCTIONS = {"cpu_avx2": "AVX2", "cpu_avx512": "AVX-512"}
RIVALS = {"eager": "eager", "compiled": "compiled", "processes": "a process a core"}
BLOCKS: dict[str, Callable[[list[dict]], str]] = {
    "speed": speed,
    "vmap_sizes": vmap_sizes,
    "noise": noise,
    "starts": starts,
    "pictures": pictures,
    "convolutions": convolutions,
}
