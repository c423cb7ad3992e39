"""Checkpoints: back to the bit, and nothing damaged, half written or planted is ever loaded."""

import errno
import hashlib
import json
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.io import checkpoint
from kd_jax.train import optim
from kd_jax.train.sweep import QUICK_COMPILE
from kd_jax.types import TrainState

RANDOM = np.random.RandomState(0)
METADATA = {
    "model": "mlp-7-5",
    "class_mask": [True, False],
    "nested": {"rate": 0.001, "none": None, "text": "é\n"},
}


def random_params():
    return {
        "hidden_0": {
            "kernel": RANDOM.randn(6, 5).astype(np.float32),
            "bias": RANDOM.randn(5).astype(np.float32),
        },
        "logits": {"kernel": RANDOM.randn(5, 3).astype(np.float32)},
    }


def identical(one, other):
    """To the bit: structure, dtype, shape and value (nan, -0.0 and denormals included)."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(getattr(a, "dtype", None), jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_arrays_of_every_kind_come_back_to_the_bit(tmp_path):
    tree = {
        "odd": np.float32([np.nan, -np.nan, -0.0, np.inf, 1e-45, 3.4e38]),
        "nested": {
            "deep": {"i32": np.arange(6, dtype=np.int32).reshape(2, 3), "bool": np.array([True, False])}
        },
        "u8": RANDOM.randint(256, size=(3, 2, 2, 1)).astype(np.uint8),
        "u32": np.uint32([0, 2**32 - 1]),
        "scalar": np.float32(0.1),
        "f64": np.float64([0.1]),
        "bf16": np.asarray(jnp.asarray([0.1, 3e38], jnp.bfloat16)),
        "one two.three": np.zeros((1, 4), np.float32),
    }
    digest = checkpoint.save(tmp_path / "a", tree, METADATA)
    loaded, metadata = checkpoint.load(tmp_path / "a")
    identical(loaded, tree)
    assert metadata == METADATA
    assert checkpoint.read_manifest(tmp_path / "a") == (METADATA, digest)
    assert digest == hashlib.sha256((tmp_path / "a" / "manifest.json").read_bytes()).hexdigest()


def fresh_state(name: str, seed: int) -> TrainState:
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None] + seed, random_params())
    opt_state = jax.tree.map(lambda leaf: leaf + seed, optim.OPTIMIZERS[name].direction.init(params))
    keys = jax.random.wrap_key_data(jnp.asarray([[seed, 2**32 - 1]], jnp.uint32))
    return TrainState(params, {}, opt_state, keys, jnp.asarray([seed], jnp.int32), jnp.zeros(1, bool))


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_train_state_comes_back_to_the_bit(name, tmp_path):
    """Typed keys, optax's named tuples and an empty model_state included."""
    state = fresh_state(name, 7)
    checkpoint.save(tmp_path / "a", {"states": state, "history": {"loss": np.zeros((1, 2))}}, {})
    arrays, _ = checkpoint.load(tmp_path / "a")
    rebuilt = checkpoint.rebuild(fresh_state(name, 1), arrays["states"])
    assert isinstance(rebuilt, TrainState) and type(rebuilt.opt_state) is type(state.opt_state)
    identical(rebuilt, state)
    np.testing.assert_array_equal(jax.random.bits(rebuilt.key[0], (4,)), jax.random.bits(state.key[0], (4,)))


def test_reloaded_teachers_give_the_same_logits_to_the_bit(tmp_path):
    model = models.build("mlp-7-5", 3, dropout=0.5)
    init = jax.jit(
        jax.vmap(lambda key: models.init_variables(model, key, (4, 4, 1))), compiler_options=QUICK_COMPILE
    )
    variables = init(jax.random.split(jax.random.key(0), 2))
    images = jnp.asarray(RANDOM.randint(256, size=(9, 4, 4, 1)), jnp.uint8)
    checkpoint.save(tmp_path / "teachers", variables, {"model": "mlp-7-5", "model_options": {"dropout": 0.5}})
    loaded, metadata = checkpoint.load(tmp_path / "teachers")
    rebuilt = models.build(metadata["model"], 3, **metadata["model_options"])
    before = models.predict_stacked(model, variables, images)
    after = models.predict_stacked(rebuilt, jax.tree.map(jnp.asarray, loaded), images)
    assert np.asarray(before).tobytes() == np.asarray(after).tobytes()
    assert not np.array_equal(before[0], before[1])


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_waits_for_the_threads_that_write(tmp_path, monkeypatch, times):
    """Orbax writes in threads of its own, which an exception in the main thread does not end."""
    interrupted, save_arrays = threading.Event(), checkpoint._save_arrays
    writers = []

    def in_a_thread(path, arrays):
        def write():
            for _ in range(times):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                interrupted.wait(0.2)  # gives the main thread time to leave, if it does not wait
            path.parent.mkdir(exist_ok=True)
            save_arrays(path, arrays)

        writers.append(threading.Thread(target=write))
        writers[0].start()
        writers[0].join()

    monkeypatch.setattr(checkpoint, "_save_arrays", in_a_thread)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "teachers", random_params(), METADATA)
    finally:
        interrupted.set()
        writers[0].join()
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in tmp_path.iterdir()] == ["teachers"]
    checkpoint.verify(tmp_path / "teachers")


# --- damage ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "teacher"
    checkpoint.save(path, {"params": random_params()}, METADATA)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "teacher")


def files_of(path):
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert "\n" not in message and all(str(word) in message for word in words)


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "flipped": lambda file: file.write_bytes(flip(file.read_bytes())),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "emptied": lambda file: file.write_bytes(b""),
    "omitted": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_array_file_is_refused_and_names_it(damage, copy, saved):
    names = [name for name in files_of(copy) if name.name != "manifest.json"]
    assert len(names) >= 3
    for name in names:
        whole = (saved / name).read_bytes()
        if damage in ("omitted", "flipped") or whole:  # an empty file cannot be shortened
            if damage == "flipped" and not whole:
                continue
            DAMAGE[damage](copy / name)
            refused(copy, name)
            (copy / name).write_bytes(whole)
    checkpoint.load(copy)  # and whole again


@pytest.mark.parametrize("damage", sorted(set(DAMAGE) - {"flipped"}))
def test_a_manifest_cut_short_or_gone_is_refused(damage, copy):
    DAMAGE[damage](copy / "manifest.json")
    refused(copy, "manifest.json")


@pytest.mark.parametrize(
    "before, after", [(b"0.001", b"0.002"), (b"mlp-7-5", b"mlp-7-4"), (b"true", b"fals")]
)
def test_a_flipped_byte_of_the_manifest_is_refused(before, after, copy):
    text = (copy / "manifest.json").read_bytes()
    assert before in text
    (copy / "manifest.json").write_bytes(text.replace(before, after if after != b"fals" else b"null"))
    refused(copy, "manifest.json")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": 2, "metadata": {}}',
        b'{"format": 2, "metadata": {}, "files": 3}',
        b"[" * 100_000,
    ],
    ids=lambda text: text[:40].decode(errors="replace"),
)
def test_a_malformed_manifest_is_refused(text, copy):
    (copy / "manifest.json").write_bytes(text)
    refused(copy, "manifest.json")


def test_another_format_is_refused(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    refused(copy, "format", 99)


def test_an_extra_file_is_refused(copy):
    (copy / "arrays" / "extra").write_text("")
    refused(copy, "extra")


@pytest.mark.parametrize("kind", ["nothing there", "an empty folder", "a file"])
def test_what_is_no_checkpoint_is_refused(kind, tmp_path):
    path = tmp_path / "a"
    {"nothing there": lambda: None, "an empty folder": path.mkdir, "a file": path.touch}[kind]()
    refused(path, path)


def test_a_path_that_exists_is_refused_and_left_alone(copy, saved):
    with pytest.raises(InputError, match="teacher"):
        checkpoint.save(copy, {"other": np.zeros(3)}, {})
    assert files_of(copy) == files_of(saved)
    assert all((copy / name).read_bytes() == (saved / name).read_bytes() for name in files_of(saved))
    assert [path.name for path in copy.parent.iterdir()] == ["teacher"]


@pytest.mark.parametrize("moment", ["before the arrays", "before the manifest", "before the rename"])
def test_an_interrupted_save_leaves_nothing_that_loads(moment, tmp_path, monkeypatch):
    """Whatever the moment: nothing under the name, and the next save succeeds."""
    from orbax.checkpoint import v1 as ocp

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    owner, name, stand_in = {
        "before the arrays": (ocp, "save", interrupt),
        # The module's own name for them, so that Orbax's use of them is not touched.
        "before the manifest": (checkpoint, "json", SimpleNamespace(dumps=interrupt)),
        "before the rename": (checkpoint, "os", SimpleNamespace(replace=interrupt)),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stand_in)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "a", {"x": np.zeros(3)}, {})
    assert not (tmp_path / "a").exists()
    refused(tmp_path / "a")
    for leftover in tmp_path.iterdir():
        if moment != "before the rename":  # then all is there but the name
            refused(leftover)
    checkpoint.save(tmp_path / "a", {"x": np.ones(3)}, {})
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "a")[0]["x"], np.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# --- nothing loaded is executed -------------------------------------------------------------------------


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


LOAD_EACH = """
import sys
from kd_jax.io import checkpoint
checkpoint.verify = lambda path: None
for path in sys.argv[1:]:
    try:
        checkpoint.load(path)
    except Exception as error:  # whatever the reader of that file says
        print("refused", type(error).__name__)
    else:
        print("loaded")
"""


def test_a_disk_that_takes_no_more_is_an_error_of_the_disk(tmp_path):
    """TensorStore would have it a ValueError. A file may not grow beyond a limit here, as on a full disk."""
    tree = {"x": np.random.RandomState(0).randint(0, 256, 2**20, np.uint8)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(OSError, match=r"File too large.*checkpoint") as error:
            checkpoint.save(tmp_path / "checkpoint", tree, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG and not (tmp_path / "checkpoint").exists()
    checkpoint.save(tmp_path / "checkpoint", tree, {})
    assert np.array_equal(checkpoint.load(tmp_path / "checkpoint")[0]["x"], tree["x"])


def test_without_room_nothing_is_begun(tmp_path, monkeypatch):
    tree = {"x": np.zeros(2**20, np.uint8)}
    for free, fits in ((2**20, False), (2**21, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if fits:
            checkpoint.save(tmp_path / "of/a/run", tree, {})
        else:
            with pytest.raises(OSError, match=r"No space left on device.*of/a/run"):
                checkpoint.save(tmp_path / "of/a/run", tree, {})
            assert not list(tmp_path.iterdir())


def test_a_planted_pickle_is_not_executed(saved, tmp_path):
    """In place of each file in turn; and even if nothing were verified (in a process of its own, since Orbax
    leaves half-finished coroutines behind when it fails)."""
    ran, paths = tmp_path / "ran", []
    payload = pickle.dumps(Malicious(ran))
    for i, name in enumerate(files_of(saved)):
        paths.append(shutil.copytree(saved, tmp_path / str(i)))
        (paths[-1] / name).write_bytes(payload)
        refused(paths[-1], name)
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", LOAD_EACH, *paths], capture_output=True, text=True, cwd=root)
    said = out.stdout.splitlines()
    assert len(said) == len(paths) and set(said) == {"loaded", "refused InputError"}, (said, out.stderr)
    assert not ran.exists()
    pickle.loads(payload).close()
    assert ran.exists()  # it would have
