"""What a report says in words, however it is rendered: the question, the answer, what its intervals cover."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from experiments.reporting.content import Content
from experiments.reporting.markdown import NO_SPREAD, ends
from kd_jax.stats import summary
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import TEACHER

HOW = {
    "none": "as trained",
    "test_tuned": "bias tuned on the TEST set, which shows what is possible and is no result",
    "validation_tuned": "bias tuned on the labels of the validation split",
    "prior_matched": "bias set from unlabelled validation images and the known shares of the classes in them",
    "teacher_matched": "bias set from the teacher on the transfer set, without an example of what is omitted",
}


def question(config: dict[str, Any]) -> str:
    if config.get("question"):
        return str(config["question"])
    if config["experiment"] == "train_teacher":
        return "How accurate is the teacher?"
    if any(setting["omitted"] for setting in config["settings"]):
        return "Can a student classify what it never saw, from what its teacher says about other examples?"
    return "How much of its teacher's accuracy does the student reach?"


def answer(content: Content) -> str:
    (name, correction), values, config = content.head, content.values, content.run.config
    if len(content.sums["diverged"]) == len(config["runs"]):
        return f"There is no answer: all {len(config['runs'])} runs diverged."
    omitted = next(setting["omitted"] for setting in content.settings if setting["name"] == name)

    def share(setting: str, correction: str, class_: str) -> str:
        return _in_words(values.get((setting, "test", correction, class_, "accuracy")))

    if not omitted:
        sentence = f"{_chosen(content)} gets {share(name, 'none', 'all')} of the test examples right"
        if name != TEACHER and content.settings[0]["name"] == TEACHER:
            sentence += f", {_its_teacher(config)} {share(TEACHER, 'none', 'all')}"
            if together := values.get((TEACHER, "test", "none", "all", "ensemble_accuracy")):
                sentence += f", together {_in_words(together)}"
        sentence += _without_teacher(content, name, lambda plain: share(plain, "none", "all"))
        return f"{sentence[0].upper()}{sentence[1:]}; {summary.units_of(config)}."
    classes = [config["data"]["class_names"][index] for index in omitted]
    unseen = f"class {classes[0]}" if len(classes) == 1 else f"the classes {', '.join(classes)}"
    left = next(setting.get("shots", 0) for setting in content.settings if setting["name"] == name)
    seen = f"Having seen {left} of" if left else "Having never seen"
    sentence = (
        f"{seen} {unseen}, {_chosen(content)} gets {share(name, 'none', 'omitted')} "
        "of those test examples right as trained"
    )
    if correction == "none":
        sentence += _without_teacher(content, name, lambda plain: share(plain, "none", "omitted"))
    else:
        ways = summary.label_free(name, values) or [correction]
        corrected = [f"{share(name, way, 'omitted')} with its {HOW[way]} ({way})" for way in ways]
        sentence += f", {' and '.join(corrected)}"
        sentence += _without_teacher(
            content,
            name,
            lambda plain: " and ".join(share(plain, way, "omitted") for way in ("none", *ways)),
        )
    return f"{sentence}; {summary.units_of(config)}."


def _without_teacher(content: Content, name: str, share: Callable[[str], str]) -> str:
    """What the first plain student that misses the same classes comes to, beside one that had a teacher."""
    settings = {setting["name"]: setting for setting in content.run.config["settings"]}
    if settings.get(name, {}).get("alpha", 0) == 0:
        return ""
    plain = [
        other
        for other, setting in settings.items()
        if setting.get("alpha") == 0
        and all(setting.get(key) == settings[name].get(key) for key in ("omitted", "shots"))
    ]
    return f"; a student without a teacher gets {share(plain[0])}" if plain else ""


def _its_teacher(config: dict[str, Any]) -> str:
    """Whose accuracy the teacher's rows hold: each teacher's own, not that of an ensemble."""
    teacher = config["teacher"] or {}
    together = teacher.get("teacher_seeds") == "ensemble" and teacher.get("num_teachers", 1) > 1
    together = together or "members" in teacher
    return "its teachers, one by one," if together else "its teacher"


def _chosen(content: Content) -> str:
    """The setting that the answer speaks of, and how it was chosen."""
    name = content.head[0]
    if name == TEACHER:
        return "the teacher"
    candidates = summary.candidates(content.run.config["settings"])
    chosen = next(setting for setting in candidates if setting["name"] == name)
    if len(candidates) == 1 or math.isnan(summary.validation_accuracy(chosen, content.values)):
        return f"the student ({name})"
    where = "the seen classes of the validation split" if chosen["omitted"] else "the validation split"
    return f"the student ({name}, best on {where})"


def _in_words(interval: Interval | None) -> str:
    if interval is None or math.isnan(interval.mean):
        return "an unknown share"
    mean, low, high = (min(max(value, 0.0), 1.0) for value in interval[:3])
    if not math.isnan(interval.low):
        return f"{100 * mean:.2f} % (95 % interval {ends(low, high)})"
    return f"{100 * mean:.2f} %{f' ({NO_SPREAD})' if interval.n > 1 else ''}"


def about_intervals(content: Content) -> str:
    config = content.run.config
    seeds = {run["seed"] for run in config["runs"]}
    teachers = {run["teacher_seed"] for run in config["runs"]} - {None}
    text = f"Means over {summary.units_of(config)}; ± is half the width of the 95 % Student t interval."
    if _without_spread(content):
        text += " Shares of examples that are the same in all of them have the larger side of the exact "
        text += "binomial (Clopper-Pearson) interval over all their examples; other values have none there."
    if len(seeds) == 1:
        text = "One seed, so no interval."
    text = " ".join([about_diverged(content), text]).strip()
    if len(teachers) > 1:
        text += " The intervals cover the luck of the teacher as well."
        if len(teachers) < len(seeds):
            text += " Students of one teacher share its luck: "
            text += "means, intervals and n are those of the teachers."
            text += _of_plain(config)
    elif config["teacher"] is not None:
        text += " There is one teacher (or one ensemble) for all seeds: its luck is not covered."
    return f"{text} The test set is fixed: which examples it happens to hold is not covered."


def _without_spread(content: Content) -> bool:
    """Whether some test accuracy is the same in all of several seeds."""
    tested = (row for row in content.run.results if (row.split, row.metric) == ("test", "accuracy"))
    return any(len(of) > 1 and min(of.values()) == max(of.values()) for of in summary.group(tested).values())


def _of_plain(config: dict[str, Any]) -> str:
    """A sentence where some students learn nothing from the teachers that others share, else nothing."""
    if all(summary.learns_from_teacher(setting, config) for setting in config["settings"]):
        return ""
    return (
        " Students that learn nothing from a teacher are independent, and n counts their seeds, except where "
        "the teacher is part of the value: teacher_matched, agreement, KL, differences to distilled students."
    )


def about_diverged(content: Content) -> str:
    """A sentence that counts the runs which are in no mean, else nothing."""
    num_runs = len(content.run.config["runs"])
    by_setting = Counter(entry["setting"] for entry in content.sums["diverged"])
    if not by_setting:
        return ""
    names = ", ".join(f"{name} ({count})" for name, count in by_setting.items())
    lost = by_setting.total()
    verb = "is" if lost == 1 else "are"
    return f"{lost} of {num_runs} runs diverged and {verb} left out of all means: {names}."


def about_validation(config: dict[str, Any]) -> str:
    """A sentence where the validation split was not held out from the teacher, else nothing."""
    if not (config["teacher"] or {}).get("saw_validation"):
        return ""
    teacher = config["teacher"]
    chain = any("teacher" in about for about in teacher.get("members", [teacher]))
    text = f"The teacher{', or one that it learnt from,' if chain else ''} trained on the validation images:"
    return f"{text} the students' validation figures are about labels that it knew."


def table_notes(content: Content) -> list[str]:
    """The paragraphs under the table of the classes."""
    some = any(setting["omitted"] for setting in content.settings)
    starred = f"* {summary.describe_omitted(content.settings)}. " if some else ""
    warning = about_validation(content.run.config)
    return [starred + about_intervals(content), *([warning] if warning else [])]


def used_corrections(content: Content) -> list[tuple[str, str]]:
    """(correction, how it is done) of those that some setting was tested under."""
    names = [setting["name"] for setting in content.settings]
    used = {correction for name in names for correction in summary.corrections_of(name, content.values)}
    return [(correction, how) for correction, how in HOW.items() if correction in used]
