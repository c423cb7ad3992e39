"""The error for input that cannot be used. No package is imported here: a command line needs it first."""

LONGEST = 240  # characters of a part of an error's line


class InputError(ValueError):
    """What a user gave cannot be used. One line: what is wrong, what was expected, what was given; what comes
    from a file may be of any length, and its middle is left out."""

    def __init__(self, wrong: str, expected: str, given: object):
        wrong, expected, given = _short(wrong), _short(expected, 2 * LONGEST), _short(str(given))
        super().__init__(f"{wrong}: expected {expected}; given {given}")


def _short(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 60]}...{text[-57:]}"
