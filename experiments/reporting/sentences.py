"""What a report says in words, however it is rendered: the question, the answer, what its intervals cover."""

import math
from collections import Counter
from collections.abc import Sequence

from experiments.reporting.content import Content, grid
from experiments.reporting.markdown import Grid
from kd_jax.stats import corrections
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.description import RunDescription, candidates, describe_omitted
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import TEACHER
from kd_jax.stats.summary import group

MOST_NAMED = 5  # classes whose names the answer's note gives


def question(description: RunDescription) -> str:
    """The line that heads the report."""
    if description.question:
        return description.question
    if description.experiment == "train_teacher":
        return "How accurate is the teacher?"
    if any(setting.omitted for setting in description.settings):
        return "Can a student classify what it never saw, from what its teacher says about other examples?"
    return "How much of its teacher's accuracy does the student reach?"


def answer(content: Content) -> str:
    """One sentence of at most 30 words; what it leaves out is in `answer_table`."""
    (name, correction), setting, num_runs = (
        content.head,
        content.head_setting,
        len(content.run.description.runs),
    )
    if len(content.summary.diverged) == num_runs:
        return f"There is no answer: all {num_runs} runs diverged."
    who = "the teacher" if name == TEACHER else "the student"
    part = "omitted" if setting.omitted else "all"
    share = _share(content, name, "none", part)
    if not setting.omitted:
        return f"{who.capitalize()} gets {share} of the test examples right{_others(content)}."
    shots = setting.get("shots", 0)
    seen = f"Having seen {shots} example{'s' if shots != 1 else ''} of" if shots else "Having never seen"
    if setting.get("transfer_share") and not shots:
        seen = "Having seen only synthesised images of"
    whose = "its" if len(setting.omitted) == 1 else "their"
    text = f"{seen} {_classes(content, setting.omitted)}, {who} gets {share} of {whose} test examples right"
    if correction == "none":
        return f"{text} as trained."
    corrected = _share(content, name, correction, part)
    return f"{text} as trained and {corrected} after bias correction {correction}."


def _classes(content: Content, omitted: Sequence[int]) -> str:
    """The classes by their names, or only their number."""
    names = " and ".join(content.run.description.data.class_names[index] for index in omitted)
    if len(names.split()) > 3:
        return "one class" if len(omitted) == 1 else f"{len(omitted)} classes"
    return f"class {names}" if len(omitted) == 1 else f"the classes {names}"


def _others(content: Content) -> str:
    """What the teacher, and a student without one, get of all test examples."""
    name, description = content.head[0], content.run.description
    text = ""
    if name != TEACHER and content.settings[0].name == TEACHER:
        of_teacher = _share(content, TEACHER, "none", "all")
        together = content.summary.get(TEACHER, "ensemble_accuracy")
        text += (
            f", its teachers {of_teacher} each"
            if _is_ensemble(description)
            else f", its teacher {of_teacher}"
        )
        text += f" and {_percent(together)} together" if together else ""
    if plain := plain_setting(content):
        text += f", a student without a teacher {_share(content, plain, 'none', 'all')}"
    return text


def answer_table(content: Content) -> Grid:
    """The figures behind the answer: its setting, the teacher, and a plain student that omits the same
    classes, as trained and under the corrections that need no label."""
    name = content.head[0]
    parts = ["all", "omitted"] if content.head_setting.omitted else ["all"]
    corrections = ("none", *_answer_corrections(content))
    shown = (TEACHER, plain_setting(content), name)
    rows = [
        [row[0], row[1], *row[3:]]
        for row in grid(content, parts, half=None)
        if row[0] in shown and row[1] in corrections
    ]
    return Grid(["setting", "correction", *(f"{part} classes" for part in parts), "n"], rows)


def _answer_corrections(content: Content) -> list[str]:
    """The corrections beside none that the small table shows."""
    name, correction = content.head
    return content.summary.label_free(name) or [correction]


def answer_note(content: Content) -> str:
    """What the small table shows, how its setting and its corrections were chosen, and what was lost."""
    description = content.run.description
    what = "± half of the 95 % interval " if len(description.seeds()) > 1 else ""
    text = f"Test accuracy in % ({description.data.name}, {description.data.test} examples), mean {what}over "
    text += f"{description.describe_units()}."
    corrections = [name for name in _answer_corrections(content) if name != "none"]
    explained = [f"{name}: {CORRECTIONS[name].label}." for name in corrections]
    sentences = [text, _how_chosen(content), about_diverged(content), about_validation(description)]
    return " ".join(filter(None, [*sentences, _class_names(content), *explained]))


def _class_names(content: Content) -> str:
    """A sentence where names of settings have numbers of classes that are called otherwise."""
    names = content.run.description.data.class_names
    omitted = sorted({k for setting in content.settings for k in setting.omitted})
    called = [f"{k} is {names[k]}" for k in omitted if names[k] != str(k)]
    return f"Classes in names of settings: {', '.join(called)}." if 0 < len(called) <= MOST_NAMED else ""


def plain_setting(content: Content) -> str:
    """The first setting without a teacher that omits the same classes as the answer's, which had one; else
    nothing."""
    head = content.head_setting
    if head.get("alpha", 0) == 0:
        return ""
    same = [
        setting.name
        for setting in content.run.description.settings
        if setting.get("alpha") == 0
        and all(setting.get(key) == head.get(key) for key in ("omitted", "shots"))
    ]
    return same[0] if same else ""


def _is_ensemble(description: RunDescription) -> bool:
    """Whether the teacher's rows hold each teacher's own accuracy, not that of the ensemble that teaches."""
    teacher = description.teacher or {}
    together = teacher.get("teacher_seeds") == "ensemble" and teacher.get("num_teachers", 1) > 1
    return together or "members" in teacher


def _how_chosen(content: Content) -> str:
    """A sentence where the answer's setting is one of several."""
    name = content.head[0]
    if name == TEACHER:
        return ""
    num_settings, chosen = len(candidates(content.run.description.settings)), content.head_setting
    if num_settings == 1 or math.isnan(content.summary.validation_accuracy(chosen)):
        return ""
    where = "the seen classes of the validation split" if chosen.omitted else "the validation split"
    return f"{name} is the best of {num_settings} settings on {where}."


def _share(content: Content, setting: str, correction: str, part: str) -> str:
    return _percent(content.summary.accuracy(setting, part, correction))


def _percent(interval: Interval | None) -> str:
    known = interval is not None and not math.isnan(interval.mean)
    return f"{100 * interval.mean:.2f} %" if known else "an unknown share"  # type: ignore[union-attr]


def about_intervals(content: Content) -> str:
    description = content.run.description
    seeds, teachers = description.seeds(), description.teacher_seeds()
    text = f"Means over {description.describe_units()}; ± is half the width of the 95 % Student t interval."
    if _without_spread(content):
        text += (
            " An accuracy that is the same in all of them has the exact binomial (Clopper-Pearson) interval "
        )
        text += "over the examples of all of them; of other values no interval is given there."
    if len(seeds) == 1:
        text = "One seed, so no interval."
    text = " ".join([about_diverged(content), text]).strip()
    if len(teachers) > 1:
        text += " The intervals cover the variation between teachers as well."
        if len(teachers) < len(seeds):
            text += " Students of one teacher are not independent: "
            text += "means, intervals and n are those of the teachers."
            text += _of_plain(description)
    elif description.teacher is not None:
        text += " There is one teacher (or one ensemble) for all seeds: "
        text += "variation between teachers is not covered."
    return f"{text} The test set is fixed: which examples it happens to hold is not covered."


def _without_spread(content: Content) -> bool:
    """Whether some test accuracy is the same in all of several seeds."""
    tested = (row for row in content.run.results if (row.split, row.metric) == ("test", "accuracy"))
    return any(len(of) > 1 and min(of.values()) == max(of.values()) for of in group(tested).values())


def _of_plain(description: RunDescription) -> str:
    """A sentence where some students learn nothing from the teachers that others share, else nothing."""
    if all(map(description.learns_from_teacher, description.settings)):
        return ""
    made_with = ", ".join([*corrections.of_teacher(), "agreement", "KL"])
    return (
        " Students that learn nothing from a teacher are independent, and n counts their seeds, except where "
        f"the teacher is part of the value: {made_with}, differences to distilled students."
    )


def about_diverged(content: Content) -> str:
    """A sentence that counts the runs which are in no mean, else nothing."""
    num_runs = len(content.run.description.runs)
    by_setting = Counter(run.setting for run in content.summary.diverged)
    if not by_setting:
        return ""
    names = ", ".join(f"{name} ({count})" for name, count in by_setting.items())
    lost = by_setting.total()
    verb = "is" if lost == 1 else "are"
    return f"{lost} of {num_runs} runs diverged and {verb} left out of all means: {names}."


def about_validation(description: RunDescription) -> str:
    """A sentence where the validation split was not held out from the teacher, else nothing."""
    teacher = description.teacher or {}
    if not teacher.get("saw_validation"):
        return ""
    chain = any("teacher" in about for about in teacher.get("members", [teacher]))
    text = f"The teacher{', or one that it learnt from,' if chain else ''} trained on the validation images:"
    return f"{text} the students' validation figures are about labels that it knew."


def table_notes(content: Content) -> list[str]:
    """The paragraphs under the table of the classes."""
    some = any(setting.omitted for setting in content.settings)
    starred = f"* {describe_omitted(content.settings)}. " if some else ""
    warning = about_validation(content.run.description)
    return [starred + about_intervals(content), *([warning] if warning else [])]


def used_corrections(content: Content) -> list[tuple[str, str]]:
    """(correction, how it is done) of those that some setting was tested under."""
    names = [setting.name for setting in content.settings]
    used = {correction for name in names for correction in content.summary.corrections_of(name)}
    return [(name, correction.label) for name, correction in CORRECTIONS.items() if name in used]
