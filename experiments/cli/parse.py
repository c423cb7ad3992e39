"""List flags: numbers, words, and sets of classes by number or name. A text with two meanings is refused."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kd_jax.errors import InputError, nearest_name

NONE = "#none"


def parse_numbers(name: str, text: str, high: float = np.inf, positive: bool = False) -> list[float]:
    """The numbers of a comma list flag, each within [0, high] (or ]0, high])."""
    most = f" and <= {high:g}" if high < np.inf else ""
    expected = f"float32 numbers {'>' if positive else '>='} 0{most}, separated by commas"
    try:
        values = [float(word) for word in text.split(",")]
        text.encode("ascii")  # Python reads the digits of every script as numbers
    except ValueError:
        raise InputError(f"malformed --{name}", expected, repr(text)) from None
    with np.errstate(over="ignore", under="ignore"):
        singles = [float(np.float32(value)) for value in values]  # what the runs will compute with
    tiny = float(np.finfo(np.float32).tiny)  # what is smaller, devices take for 0
    fitting = [tiny <= value <= high or (value == 0 and not positive) for value in singles]
    if not (all(fitting) and np.isfinite(singles).all()):
        raise InputError(f"--{name} out of range", expected, text)
    if len(set(singles)) < len(values):
        raise InputError(f"--{name} names a value twice", "each value once", text)
    return values


def parse_words(name: str, text: str, known: Sequence[str]) -> list[str]:
    """The words of a comma list flag, each once, each of the known ones."""
    words = [word.strip() for word in text.split(",")]
    strange = [word for word in words if word not in known]
    if strange or len(set(words)) < len(words):
        hint = nearest_name(strange[0], known) if strange else ""
        expected = f"each once of {', '.join(known)}, separated by commas"
        raise InputError(f"malformed --{name}", expected, f"{text!r}{hint}")
    return words


def require_share(name: str, value: float) -> None:
    """Refuses a flag's value outside [0, 1): beyond, what is kept would be scaled up without bound."""
    if not 0 <= value <= 0.9999:
        raise InputError(f"--{name} out of range", "a number >= 0 and < 1 (at most 0.9999)", value)


class _Word(NamedTuple):
    """A class, or None for the empty set, as it stands in the text. end: where what follows it begins; last:
    whether it ends its set."""

    number: int | None
    text: str
    end: int
    last: bool


def parse_class_set(name: str, text: str, class_names: Sequence[str], also: str = "") -> tuple[int, ...]:
    """The classes of a flag that names one set of at least one, such as "3" or "cat+dog".

    also: what else the flag may say, for the message.  Errors: InputError, as `parse_classes`.
    """
    expected = f"classes (numbers 0..{len(class_names) - 1} or names) joined by +, as in 0 or 0+1{also}"
    sets = parse_classes(name, text, class_names, expected)
    if len(sets) > 1 or not sets[0]:
        raise InputError(f"--{name} names one set of classes", expected, text)
    return sets[0]


def parse_classes(
    name: str, text: str | None, class_names: Sequence[str], expected: str | None = None
) -> list[tuple[int, ...]]:
    """The class sets of a comma list such as "none,3,cat+dog"; "none" is the empty set.

    A class is given by its number or its name, which may hold any sign. After # stands a number or none, and
    no name. text: None where the flag is not given: the empty set, even where a class is called none.
    expected: for the message about a text that names no classes.

    Errors: InputError, also for a text that has two meanings: a number may be another class's name, a name
        may be that of two classes, or hold a + or a comma.
    """
    text = NONE if text is None else text
    words = _graph(text, class_names)
    readings = _readings(words, len(text))
    if not readings:
        raise _no_reading(name, text, class_names, max(words, default=0), expected)
    if len(readings) > 1:
        raise _two_readings(name, text, class_names, readings)
    sets: list[list[int]] = [[]]
    for word in readings[0]:
        sets[-1] += [] if word.number is None else [word.number]
        sets += [[]] if word.last else []
    sets.pop()
    if any(len(set(classes)) < len(classes) for classes in sets):
        raise InputError(f"--{name} names a class twice", "each class of a set once", text)
    if len({frozenset(classes) for classes in sets}) < len(sets):
        raise InputError(f"--{name} names a set twice", "each set once", text)
    return [tuple(sorted(classes)) for classes in sets]


def _graph(text: str, class_names: Sequence[str]) -> dict[int, list[_Word]]:
    """Place in the text that a reading from its beginning may reach -> the words that may stand there."""
    words: dict[int, list[_Word]] = {}
    reached = {0}
    for place in range(len(text) + 1):
        if place in reached:
            alone = place == 0 or text[place - 1] == ","
            words[place] = list(_words(text, place, alone, class_names))
            reached |= {word.end for word in words[place]}
    return words


def _words(text: str, place: int, alone: bool, class_names: Sequence[str]) -> Iterator[_Word]:
    """The words that may stand at a place, each meaning once.  alone: whether no other stands before it in
    its set."""
    start = place + len(text[place:]) - len(text[place:].lstrip())
    candidates: list[tuple[int | None, str]] = [(None, "none"), (None, NONE)] if alone else []
    if digits := re.compile("#?([0-9]{1,6})").match(text, start):
        candidates += [(int(digits[1]), digits[0])] if int(digits[1]) < len(class_names) else []
    candidates += [(number, called.strip()) for number, called in enumerate(class_names) if called.strip()]
    seen = set()
    for number, word in candidates:
        if not text.startswith(word, start):
            continue
        after = re.compile(r"\s*(\+|,|\Z)").match(text, start + len(word))
        if after and (number is not None or after[1] != "+") and (number, after.end()) not in seen:
            seen.add((number, after.end()))
            # The end of the text is no place where a word could begin, unless a sign stands before it.
            end = after.end() if after[1] else len(text) + 1
            yield _Word(number, word, end, after[1] != "+")


def _readings(words: dict[int, list[_Word]], length: int) -> list[list[_Word]]:
    """The ways to read the text, two of them at most.  words: as `_graph` gives them."""
    rest: dict[int, list[tuple]] = {length + 1: [()]}  # place -> readings from there on, as nested pairs
    for place in sorted(words, reverse=True):
        ways = ((word, tail) for word in words[place] for tail in rest[word.end])
        rest[place] = list(itertools.islice(ways, 2))
    readings: list[list[_Word]] = []
    for pair in rest[0]:
        readings.append([])
        while pair:
            word, pair = pair
            readings[-1].append(word)
    return readings


def _no_reading(
    name: str, text: str, class_names: Sequence[str], place: int, expected: str | None
) -> InputError:
    """place: where no word that is a class stands."""
    word = re.split("[+,]", text[place:], maxsplit=1)[0].strip()
    named = word not in ("", "none", NONE)
    numbers = f"numbers 0..{len(class_names) - 1}"
    lists = f"none or classes ({numbers} or names) joined by +, separated by commas, as in none,0,0+1"
    expected = expected or lists
    wrong = f"--{name} names no class {word!r}" if named else f"malformed --{name}"
    if re.fullmatch("#?[0-9]+", word):  # which no name is near to
        return InputError(wrong, expected, text)
    return InputError(wrong, expected, repr(text) + (nearest_name(word, class_names) if named else ""))


def _two_readings(
    name: str, text: str, class_names: Sequence[str], readings: Sequence[Sequence[_Word]]
) -> InputError:
    """Names what the two readings differ in, and how to write each."""
    one, other = next((a, b) for a, b in zip(*readings, strict=False) if a != b)
    ways = " or ".join(_unmistakable(word.number, class_names) for word in (one, other))
    word = max(one.text, other.text, key=len)
    return InputError(f"--{name} has two meanings at {word!r}", ways, text)


def _unmistakable(number: int | None, class_names: Sequence[str]) -> str:
    """How to write a class, or none, so that it is nothing else, and what that is."""
    if number is None:
        return f"{NONE} for no class"
    forms = (f"#{'0' * zeros}{number}" for zeros in range(6))
    form = next(form for form in forms if form not in class_names)
    return f"{form} for class {number}, called {class_names[number]!r}"
