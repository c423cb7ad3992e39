"""Compression: accuracy, size and latency of finished runs, in a table and a picture."""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from experiments.benchmarks import dense
from experiments.cli import places, provenance
from experiments.reporting.markdown import show, tabulate
from experiments.settings import networks
from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.evaluate import classifier
from kd_jax.io import run_config, run_files, run_folder
from kd_jax.models import cost
from kd_jax.stats import intervals
from kd_jax.stats.intervals import Interval
from kd_jax.stats.summary import summarise
from kd_jax.types import Variables

BATCH_SIZE = 128
WARM_UP, FEWEST, MOST, SECONDS = 3, 10, 1000, 1.0  # calls before, calls at least and at most, time to spend
EXPLAINED = (
    "Test accuracy and macro precision, recall and F1: mean ± half of the 95 % interval of n runs, or "
    "teachers. Two FLOPs a multiply-add; MB: 10^6 bytes of float32, and of the exported StableHLO program; "
    "ms: median."
)
METRICS = {
    "accuracy": "accuracy", "macro_precision": "precision", "macro_recall": "recall", "macro_f1": "F1",
}  # fmt: skip


class Candidate(NamedTuple):
    """A run folder: name; settings: of each, its intervals by metric; spec, model (a
    module), one model's variables, and the shape (h, w, c) of its images."""

    name: str
    settings: dict[str, dict[str, Interval]]
    spec: str
    model: Any
    variables: Variables
    image_shape: tuple[int, int, int]


def run(folders: Sequence[Path], out: Path | None) -> None:
    """Prints the table of these run folders; with `out`, writes it there.

    Errors: InputError for a folder that is no finished run; then nothing is measured.
    """
    if out is not None:
        places.refuse_taken(out, "compression.json")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("a run is named twice", "each once", " ".join(map(str, folders)))
    candidates = [read(folder) for folder in folders]
    content = {
        "format": 1,
        "command": provenance.command(),
        "device": dense.device(),
        "platform": jax.default_backend(),
        "versions": {"kd_jax": provenance.own_version(provenance.ROOT), "python": platform.python_version()}
        | {name: version(name) for name in ("jax", "jaxlib", "numpy")},
        "batch_size": BATCH_SIZE,
        "models": [row for candidate in candidates for row in measure(candidate)],
    }
    text = page(content)
    print(text)
    if out is not None:
        write(out, content, text)


def read(folder: Path) -> Candidate:
    """What is on disk of a run. Errors: InputError that names the file that is missing or damaged."""
    config = run_config.read(folder)
    summary = summarise(run_folder.read_results(folder, config), config)
    settings = {
        setting.name: {
            metric: interval for metric in METRICS if (interval := summary.get(setting.name, metric))
        }
        for setting in config.settings
    }
    for name, by_metric in settings.items():
        if "accuracy" not in by_metric:
            raise InputError(
                f"{folder / 'results.csv'} is incomplete", f"test accuracies of {name!r}", "none"
            )
    run = networks.load(folder)
    first = jax.tree.map(lambda leaf: leaf[0], run.variables)
    return Candidate(
        folder.resolve().name, settings, run.metadata["model"], run.model, first, run.image_shape
    )


def measure(candidate: Candidate) -> list[dict[str, Any]]:
    """A row for each setting: they share the model, so what it costs is measured once."""
    spent = {
        "parameters": cost.num_parameters(candidate.variables),
        "forward_flops": cost.forward_flops(candidate.model, candidate.variables, candidate.image_shape),
        "bytes": cost.num_bytes(candidate.variables),
        "latency_ms": {str(size): latency(candidate, size) for size in (1, BATCH_SIZE)},
        "exported": exported(candidate),
    }
    names = {"run": candidate.name, "model": candidate.spec}
    return [
        names
        | {"setting": setting}
        | spent
        | {"results": {metric: intervals.to_json(one) for metric, one in by_metric.items()}}
        for setting, by_metric in candidate.settings.items()
    ]


def exported(candidate: Candidate) -> dict[str, Any]:
    """Of the StableHLO program that `export` writes: bytes of the file, latency of one image."""
    none_omitted = np.zeros(candidate.variables["params"]["logits"]["bias"].shape, bool)
    content = classifier.to_stablehlo(
        candidate.model, candidate.variables, none_omitted, np.float32(0), candidate.image_shape
    )
    program = jax.jit(jax.export.deserialize(bytearray(content)).call)
    image = jax.device_put(random_images(candidate, 1), jax.local_devices()[0])
    return {"bytes": len(content), "latency_ms": timed(lambda: program(image))}


def latency(candidate: Candidate, batch_size: int) -> dict[str, float]:
    """Of the forward pass of a batch of random images, in ms: the median, lowest and highest of its calls."""
    images = random_images(candidate, batch_size)
    variables, images = jax.device_put((candidate.variables, images), jax.local_devices()[0])

    @jax.jit
    def classify(variables, images):
        return models.forward(candidate.model, variables, models.scale_pixels(images))[0]

    return timed(lambda: classify(variables, images))


def random_images(candidate: Candidate, batch_size: int) -> np.ndarray:
    """u8[batch_size,h,w,c]."""
    shape = batch_size, *candidate.image_shape
    return np.random.RandomState(0).randint(256, size=shape, dtype=np.uint8)


def timed(compute: Callable[[], jax.Array]) -> dict[str, float]:
    """Of a call that is waited for, in ms: the median, lowest and highest of repeated calls."""
    call = lambda: compute().block_until_ready()  # noqa: E731
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < MOST):
        times.append(dense.seconds(call))
    return dense.median_and_range([1e3 * time for time in times])


def page(content: dict[str, Any]) -> str:
    """The table in Markdown."""
    batch = str(content["batch_size"])
    heads = ["run", "setting", "model", "parameters", "MFLOPs an image", "MB", "ms an image"]
    heads += [f"ms a batch of {batch}", "MB exported", "ms an image, exported"]
    rows = []
    for row in content["models"]:
        median = {size: spread["median"] for size, spread in row["latency_ms"].items()}
        cells = [row["run"], row["setting"], row["model"], f"{row['parameters']:,}"]
        cells += [_short(row["forward_flops"] / 1e6), _short(row["bytes"] / 1e6)]
        cells += [_short(median["1"]), _short(median[batch])]
        exported = row["exported"]
        cells += [_short(exported["bytes"] / 1e6), _short(exported["latency_ms"]["median"])]
        cells += [show(_interval(row["results"].get(metric)), half=" ± ") for metric in METRICS]
        rows.append([*cells, str(row["results"]["accuracy"]["n"])])
    heads += [*(f"{head} (%)" for head in METRICS.values()), "n"]
    return "\n".join(
        [f"{content['device']}, jax {content['versions']['jax']}. {EXPLAINED}", "", *tabulate(heads, rows)]
    )


def _short(value: float) -> str:
    """Three digits, and thousands in full."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _interval(entry: dict[str, Any] | None) -> Interval | None:
    """Of an entry of summary.json, in which what is undefined is null."""
    return None if entry is None else intervals.from_json(Interval, entry)


def write(out: Path, content: dict[str, Any], text: str) -> None:
    """compression.json, .md, .png and .svg in the folder `out`."""
    from kd_jax import plots

    points = []
    for row in content["models"]:
        label = row["model"] + "".join(
            f", {row[name]}" for name in ("run", "setting") if row[name] != "teacher"
        )
        milliseconds = [row["latency_ms"][str(size)]["median"] for size in (1, content["batch_size"])]
        points.append((label, _interval(row["results"]["accuracy"]), row["bytes"] / 1e6, *milliseconds))
    figure = plots.compression(points, content["batch_size"])
    files = {"json": run_files.to_json(content), "md": text.encode()}
    files |= {kind: plots.render(figure, kind) for kind in ("png", "svg")}
    for kind, file in files.items():
        run_files.write(out / f"compression.{kind}", file)
    print(f"Wrote {out / 'compression.md'}, .json, .png and .svg")
