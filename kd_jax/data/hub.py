"""Datasets of the Hugging Face hub, downloaded once into its own cache: hf:owner/name or
hf:owner/name/configuration. The parquet files of the repository itself, else those that the hub makes of any
dataset (its branch refs/convert/parquet)."""

import re
from pathlib import Path

from kd_jax.errors import InputError, import_extra

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<owner>[\w-][\w.-]*)/(?P<name>[\w-][\w.-]*)(/(?P<config>[\w-][\w.-]*))?")
_BRANCHES = (None, "refs/convert/parquet")


def download(name: str) -> Path:
    """The local folder with the parquet files of that dataset. Errors: InputError."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise InputError("not a dataset of the hub", "hf:owner/name, as in hf:ylecun/mnist", name)
    expected = "the extra hub (huggingface_hub), or a local folder of parquet files"
    huggingface_hub = import_extra("huggingface_hub", "a dataset of the hub needs", expected, name)
    repository, within = f"{parts['owner']}/{parts['name']}", parts["config"] or ""
    pattern = f"{within}/*.parquet" if within else "*.parquet"
    for branch in _BRANCHES:
        try:
            folder = huggingface_hub.snapshot_download(
                repository, repo_type="dataset", revision=branch, allow_patterns=[pattern]
            )
        except Exception as error:  # its own, its HTTP library's, the network's
            failure = f"{error!r:.200}"
            continue
        root = Path(folder) / within
        if any(root.glob("**/*.parquet")):
            return root
        failure = "no parquet file"
    raise InputError("the hub gave nothing", f"parquet files of {repository}", failure)
