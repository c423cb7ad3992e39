"""What a part of the fault campaign hands over."""

from typing import NamedTuple


class Tried(NamedTuple):
    """One line of the reliability table.

    what: what was done, as "one byte flipped in a file of a teacher checkpoint".
    times: how often; held: how often what was promised is what happened.
    outcome: what was promised, as "refused, the file named".
    failures: one line each of the times that did not hold, with the reason where there is one.
    least: the share of the times that must hold.
    """

    what: str
    times: int
    held: int
    outcome: str
    failures: tuple[str, ...] = ()
    least: float = 1.0
