"""Several runs beside each other: what each came to, and the paired differences between them.

Compared are runs on the same data (one fingerprint), whose test examples are thus the same. A difference is
over the seeds that both runs have; of one shared seed it has no interval. What else the runs have in common,
as their teachers, is for their flags to say, which are listed where they differ.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.cli import flags, places, provenance
from experiments.reporting import html, sentences
from experiments.reporting.content import Content, grid, read
from experiments.reporting.markdown import Grid, Section, difference_cells, lines_of, plain
from experiments.reporting.text import grouped, wrapped
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats import intervals, summary
from kd_jax.stats.description import RunDescription

FILE = "comparison.json"
EXPLAINED = (
    "Test accuracy in percentage points, over the seeds that both runs have; n counts them, or the teachers "
    "of distilled students where these are fewer. Of one shared seed there is no interval, nor where the "
    "difference is the same in all; p is not corrected for the number of differences."
)
UNPAIRED = "The runs share no seed, so nothing can be paired."
SIDE_BY_SIDE = "Test accuracy in %, of all classes and of the omitted ones, ± half of the 95 % interval."

Runs = dict[str, Content]
"""The runs by their names."""


class Pair(NamedTuple):
    """A difference, in fractions: that of side b minus that of side a, each a run's name and a setting's."""

    a: tuple[str, str]
    b: tuple[str, str]
    correction: str
    class_: str
    difference: intervals.Difference


def render(words: Sequence[str], out: Path) -> tuple[dict[Path, bytes], str]:
    """The files of a comparison of run folders, and its text for the terminal.

    Errors: InputError for a run named twice, folders that are no runs, runs of different data, and an `out`
        that holds something else; nothing is written here.
    """
    _refuse_taken(out)
    runs = _read(words)
    pairs = list(_pairs(runs))
    title, sections, learnt = f"Comparison of {', '.join(runs)}", _sections(runs, pairs), _curves(runs)
    answers = [(f"{n}: {name}", sentences.answer(run)) for n, (name, run) in enumerate(runs.items(), 1)]
    answered = Section("Answers", [f"{name}: {answer}" for name, answer in answers])
    lines = [f"# {plain(title)}", "", *(line for one in (answered, *sections) for line in lines_of(one))]
    page_text = html.fill(
        "comparison.html",
        {"curves": learnt},
        title=title,
        answers=answers,
        learnt=learnt,
        sections=sections,
        command=provenance.command(),
        facts=[(name, content.run.description.command) for name, content in runs.items()],
    )
    folders = [{"name": name, "folder": word} for name, word in zip(runs, words, strict=True)]
    content = {
        "format": 1,
        "command": provenance.command(),
        "runs": folders,
        "paired": list(map(_entry, pairs)),
    }
    files = {
        FILE: run_files.to_json(content),
        "report.md": "\n".join(lines).encode(),
        "report.html": page_text,
    }
    text = f"{_terminal(answers, runs, pairs)}\nReport: {out / 'report.html'}"
    return {out / name: file for name, file in files.items()}, text


def _refuse_taken(out: Path) -> None:
    """The report's files have the names of a run's: only a folder of a comparison's own is written."""
    places.refuse_taken(out, FILE)
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).is_file():
        raise InputError("--out is taken", "a new folder, or that of the same comparison", out)


def _read(words: Sequence[str]) -> Runs:
    """The runs, named by their folders, or where two are of one name by their paths."""
    folders = [Path(word).resolve() for word in words]
    if len(set(folders)) < len(folders):
        raise InputError("a run is named twice", "each once", " ".join(words))
    contents = [read(Path(word)) for word in words]
    names = [folder.name for folder in folders]
    runs = dict(zip(names if len(set(names)) == len(names) else words, contents, strict=True))
    data = {name: content.run.description.data for name, content in runs.items()}
    if len({about.fingerprint for about in data.values()}) > 1:
        given = ", ".join(f"{n}: {about.name} {about.fingerprint[:8]}" for n, about in data.items())
        raise InputError("the runs are of different data", "one fingerprint, so one test split", given)
    return runs


def _pairs(runs: Runs) -> Iterator[Pair]:
    """Of every two runs: the settings that their answers are about, then those that both have."""
    groups = {name: summary.group(content.run.results) for name, content in runs.items()}
    for (a, first), (b, second) in itertools.combinations(runs.items(), 2):
        both = [s.name for s in first.run.description.settings if s in second.run.description.settings]
        settings = dict.fromkeys([(first.head[0], second.head[0]), *((name, name) for name in both)])
        for of_a, of_b in settings:
            yield from _differences(((a, of_a), first, groups[a]), ((b, of_b), second, groups[b]))


def _differences(one: Any, other: Any) -> Iterator[Pair]:
    """Of two settings, each as ((run, setting), content, values by seed): as trained, and under the second's
    correction that needs the fewest labels; of all classes, and of the omitted ones where both miss the same.
    """
    (a, first, _), (b, second, _) = one, other
    omitted = [first.run.description.setting(a[1]).omitted, second.run.description.setting(b[1]).omitted]
    corrections = dict.fromkeys(["none", second.summary.preferred_correction(b[1])])
    classes = ["all", "omitted"] if omitted[0] == omitted[1] != () else ["all"]
    for correction, class_ in itertools.product(corrections, classes):
        with_teacher = summary.depends_on_teacher(correction, "accuracy")
        of_a, of_b = (
            (
                side[1],
                values.get(summary.Key(side[1], "test", correction, class_, "accuracy"), {}),
                content.run.description.teachers_of_runs(with_teacher),
            )
            for side, content, values in (one, other)
        )
        difference, seeds = summary.paired(of_b, of_a)
        if seeds:
            yield Pair(a, b, correction, class_, difference)


def _entry(pair: Pair) -> dict[str, Any]:
    """Of comparison.json; what is undefined is null."""
    sides = {
        side: {"run": run, "setting": setting} for side, (run, setting) in zip("ab", pair[:2], strict=True)
    }
    about = {"split": "test", "correction": pair.correction, "class": pair.class_, "metric": "accuracy"}
    return sides | about | intervals.to_json(pair.difference)


def _sections(runs: Runs, pairs: Sequence[Pair]) -> list[Section]:
    paired: list[str | Grid] = [EXPLAINED, _differences_table(runs, pairs)]
    return [
        Section("Paired differences", paired if pairs else [UNPAIRED]),
        Section("Settings", [SIDE_BY_SIDE, _settings_table(runs)]),
        Section("What differs", [_what_differs(runs)]),
    ]


def _terminal(answers: Sequence[tuple[str, str]], runs: Runs, pairs: Sequence[Pair]) -> str:
    """The answers and both tables, that of the settings with a line a run, for it must fit."""
    lines = [line for name, answer in answers for line in (*wrapped(name), *wrapped(answer), "")]
    table = _differences_table(runs, pairs)
    of_pair = Grid(["", *table.head[2:]], [[f"{a}: {b}", *cells] for a, b, *cells in table.rows])
    lines += [*([*grouped(of_pair), "", *wrapped(EXPLAINED)] if pairs else [UNPAIRED]), ""]
    rows = [
        [*key, str(number), *of_run[name]]
        for key, of_run in _by_setting(runs).items()
        for number, name in enumerate(runs, 1)
        if name in of_run
    ]
    settings = Grid(["setting", "correction", "run", "all", "omitted", "n"], rows)
    return "\n".join([*lines, *grouped(settings), "", *wrapped(SIDE_BY_SIDE), ""])


def _differences_table(runs: Runs, pairs: Sequence[Pair]) -> Grid:
    """The runs by their numbers, from 1."""
    numbers = {name: str(number) for number, name in enumerate(runs, 1)}
    heads = ["difference", "settings", "correction", "classes", "points", "95 % interval", "p", "n"]
    rows = []
    for (a, of_a), (b, of_b), correction, class_, difference in pairs:
        settings = of_a if of_a == of_b else f"{of_b} - {of_a}"
        cells = difference_cells(difference)
        rows.append([f"{numbers[b]} - {numbers[a]}", settings, correction, class_, *cells])
    return Grid(heads, rows)


def _by_setting(runs: Runs) -> dict[tuple[str, str], dict[str, list[str]]]:
    """(setting, correction) -> run -> [accuracy of all, of the omitted classes, n], of those that have it."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, content in runs.items():
        for row in grid(content, ["all", "omitted"], half=" ± "):
            setting, correction, _, *cells = row
            rows.setdefault((setting, correction), {})[name] = cells
    return rows


def _settings_table(runs: Runs) -> Grid:
    heads = [f"{number}: {part}" for number in range(1, len(runs) + 1) for part in ("all", "omitted", "n")]
    rows = [
        [*key, *(cell for name in runs for cell in of_run.get(name, ["-"] * 3))]
        for key, of_run in _by_setting(runs).items()
    ]
    return Grid(["setting", "correction", *heads], rows)


def _what_differs(runs: Runs) -> str | Grid:
    """Flags, teacher, device and program, where they are not the same in all runs."""
    facts = [_facts(content.run.description) for content in runs.values()]
    every = dict.fromkeys(what for of_run in facts for what in of_run)
    rows = [[what, *(of_run.get(what, "-") for of_run in facts)] for what in every]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return Grid(["", *runs], rows) if rows else "Nothing that config.json records."


def _facts(description: RunDescription) -> dict[str, str]:
    facts = {"experiment": description.experiment} | {
        f"--{name}": "-" if value is None else str(value)
        for name, value in description.flags.items()
        if name not in flags.NOT_PART_OF_THE_EXPERIMENT
    }
    facts["teacher"] = str((description.teacher or {}).get("sha256", "-"))[:12]
    return facts | {"kd_jax": str(description.versions.get("kd_jax", "-")), "device": description.device}


def _curves(runs: Runs) -> list[dict[str, Any]]:
    """The panels of `page.learning_curves`, each with the setting that each run's answer is about."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for number, (name, content) in enumerate(runs.items()):
        for panel in html.learning_curves(content):
            for line in panel["lines"]:
                if line["name"] == content.head[0]:
                    labelled = {"name": f"{name}: {line['name']}", "colour": number if number < 7 else None}
                    panels.setdefault(panel["title"], []).append(line | labelled)
    return [{"title": title, "lines": lines} for title, lines in panels.items()]
