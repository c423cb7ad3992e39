"""What every test runs under: simulated CPU devices, JAX at its strictest, no file of the user touched."""

import atexit
import os
import tempfile

from tests.quick_compile import QUICK

# Read once, when JAX starts its first device; of a flag that comes twice the last one holds, so XLA_FLAGS may
# say otherwise.
os.environ["XLA_FLAGS"] = (
    f"{QUICK} {os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)

import jax
import pytest

from kd_jax import data

assert jax.local_device_count() == 8
# Entry points are processes of their own: two devices, so that sharding is tested there too.
os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")

# Entry points are imported hundreds of times: what Python makes of their source is kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # One program compiles once a session, entry points run as subprocesses included. Not kept for the next
    # session: JAX does not write its entries atomically, and reading a damaged one warns: an error here.
    _compiled = tempfile.TemporaryDirectory(prefix="kd_jax-xla-")
    atexit.register(_compiled.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    jax.config.update("jax_compilation_cache_dir", _compiled.name)


@pytest.fixture(scope="session", autouse=True)
def _decoded_arrays(tmp_path_factory):
    """Decoded datasets are cached for the session alone, away from the user's own cache."""
    base = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist have a folder each; its parent is the session's, so MNIST is decoded once.
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_JAX_CACHE", str(session / "decoded"))
        yield


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
    """The real MNIST from TFDS_DATA_DIR; without it tests are skipped, or fail if KD_JAX_EXPECT_MNIST=1."""
    try:
        if "TFDS_DATA_DIR" not in os.environ:
            raise data.InputError("no real MNIST", "TFDS_DATA_DIR to name a folder that holds it", "nothing")
        return data.load("mnist")
    except data.InputError as error:
        if os.environ.get("KD_JAX_EXPECT_MNIST") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
