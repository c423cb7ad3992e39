"""A second command on a folder is refused while the first is at work, and takes over when it is dead."""

from tests.faults import two_at_once


def test_the_second_is_refused_and_takes_over_from_a_dead_one(fresh):
    steps = fresh.steps["train_teacher"]
    within = 1 + next(number for number, step in enumerate(steps) if "epoch_000003" in step)
    tried = two_at_once.held(fresh, "train_teacher", [within], goes_on=False)
    assert (tried.times, tried.held) == (1, 1), tried.failures


def test_the_claim_is_held_from_the_lock_on(fresh):
    first = two_at_once.claimed(fresh, "train_teacher")
    stopped = fresh.children(
        "train_teacher", *two_at_once.COMMANDS["train_teacher"], step=first, signal="SIGSTOP"
    )
    assert (
        two_at_once.refusal(
            fresh.children("train_teacher", *two_at_once.COMMANDS["train_teacher"]), stopped.pid
        )
        == []
    )
    assert two_at_once.refusal(stopped, stopped.pid) != []
    fresh.children.kill(stopped)
