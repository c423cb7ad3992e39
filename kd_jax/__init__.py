"""Knowledge distillation in JAX: the public names, each imported when it is first used.

So `import kd_jax` waits neither for JAX nor for a package that a program does not need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_jax import data, losses, models, train
    from kd_jax.errors import InputError
    from kd_jax.evaluate import bias_correction
    from kd_jax.train import Config, fit, init_state, loop, make_config, sweep, train_epoch, train_step
    from kd_jax.train.loop import fit_runs
    from kd_jax.train.sweep import gather, make_hparams, run_keys, stack_runs
    from kd_jax.types import Batch, Counts, HParams, Table, TrainState

__all__ = [
    "Batch", "Config", "Counts", "HParams", "InputError", "Table", "TrainState", "bias_correction",
    "data", "fit", "fit_runs", "gather", "init_state", "loop", "losses", "make_config", "make_hparams",
    "models", "run_keys", "stack_runs", "sweep", "train", "train_epoch", "train_step",
]  # fmt: skip

_MODULES = {
    "bias_correction": "kd_jax.evaluate.bias_correction",
    "data": "kd_jax.data",
    "loop": "kd_jax.train.loop",
    "losses": "kd_jax.losses",
    "models": "kd_jax.models",
    "sweep": "kd_jax.train.sweep",
    "train": "kd_jax.train",
}
_MEMBERS = {
    "kd_jax.errors": ("InputError",),
    "kd_jax.train": ("Config", "fit", "init_state", "make_config", "train_epoch", "train_step"),
    "kd_jax.train.loop": ("fit_runs",),
    "kd_jax.train.sweep": ("gather", "make_hparams", "run_keys", "stack_runs"),
    "kd_jax.types": ("Batch", "Counts", "HParams", "Table", "TrainState"),
}
_MODULE_OF = {name: module for module, names in _MEMBERS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
