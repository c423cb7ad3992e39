"""SHA256SUMS: what changed after a run is refused by name; what has no sum is read as it is."""

import hashlib
import re
import subprocess

import numpy as np
import pytest

from experiments.reporting.sections import hidden_signals
from kd_jax.errors import InputError
from kd_jax.io import examples, run_config, run_folder, sums
from kd_jax.stats.rows import BiasRow, HistoryRow, RepresentationRow
from tests.io.test_run_folder import (
    LABELS,
    SOFT,
    accuracies,
    describe,
    make_config,
    write_config,
    write_tested,
)

SEALED = (
    "config.json", "history.csv", "results.csv", "confusions.npz", "bias_curve.csv", "examples.npz",
    "representation.csv",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A run folder with every file that has a sum."""
    write_config(tmp_path, make_config())
    run_folder.write_history(tmp_path, [HistoryRow(0, LABELS, 0, 1, "train", "loss", 0.5)])
    rows = accuracies(LABELS, [0.9, 0.8, 0.7]) + accuracies(SOFT, [0.5, 0.6, 0.7])
    write_tested(tmp_path, rows + accuracies(SOFT, [0.6, 0.6, 0.7], "test_tuned"))
    run_folder.write_bias_curve(tmp_path, [BiasRow(SOFT, 0, 3.25, "2", 0.5)])
    one = np.zeros(1, np.int32)
    examples.write(tmp_path, examples.Examples(np.zeros((1, 2, 2, 1), np.uint8), *[one] * 4, SOFT, 0, "none"))
    run_folder.seal(tmp_path)
    run_folder.write_representation(tmp_path, [RepresentationRow(SOFT, 0, "logits", "probe", "seen", 0.25)])
    return tmp_path


def read(folder):
    config = run_config.read(folder)
    return (
        run_folder.read_run(folder),
        examples.read(folder, 3),
        run_folder.read_representation(folder, config),
    )


def test_the_sums_are_those_of_sha256sum(folder):
    listed = (folder / "SHA256SUMS").read_text()
    assert sums.read(folder) == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in SEALED}
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b": OK\n") == len(SEALED) == len(listed.splitlines())
    read(folder)


@pytest.mark.parametrize("name", SEALED)
def test_what_changed_is_refused_by_name_and_so_is_what_is_gone(folder, name):
    path = folder / name
    whole = path.read_bytes()
    if name.endswith(".csv"):  # the last digit: a figure that reads as well as the true one
        changed = whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]
    else:
        changed = whole + (b"\0" if name.endswith(".npz") else b" ")
    for content in (changed, None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"{re.escape(str(path))} is not as it was written: .*SHA256SUMS"
        ):
            read(folder)
    path.write_bytes(changed)  # on purpose: its line is removed, as the error says
    text = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(re.sub(rf"\w+  {re.escape(name)}\n", "", text))
    read(folder)


def test_a_chapter_whose_file_is_gone_is_not_left_out_in_silence(folder):
    (folder / "representation.csv").unlink()
    with pytest.raises(InputError, match=r"representation\.csv is not as it was written.*no such file"):
        hidden_signals.section(folder, run_folder.read_run(folder), {})


def test_a_folder_without_sums_is_read_as_it_is(folder):
    (folder / "SHA256SUMS").unlink()
    read(folder)
    run_folder.write_representation(folder, [])  # which makes no sums where the others have none
    assert not (folder / "SHA256SUMS").exists()


def test_damaged_sums_are_no_sums(folder):
    path = folder / "SHA256SUMS"
    whole = path.read_bytes()
    for content in (whole[:-30], whole.replace(b"  ", b" ", 1), b"\xff" + whole, whole.upper()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="SHA256SUMS"):
            read(folder)


def test_a_run_that_goes_on_has_no_sums(folder):
    run_folder.unseal(folder, ["representation.csv"])
    assert set(sums.read(folder)) == set(SEALED[:-1])
    run_folder.unseal(folder)
    assert not (folder / "SHA256SUMS").exists()
    run_folder.unseal(folder)


def test_new_representations_have_new_sums_and_leave_the_others(folder):
    path = folder / "results.csv"
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.4"))
    run_folder.write_representation(folder, [RepresentationRow(SOFT, 0, "logits", "probe", "seen", 0.5)])
    assert run_folder.read_representation(folder, describe())[0].value == 0.5
    with pytest.raises(InputError, match=r"results\.csv is not as it was written"):
        run_folder.read_run(folder)
