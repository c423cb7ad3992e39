"""config.json of a run folder, documented in run_folder.py: written and read strictly (host side)."""

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats.description import DatasetInfo, RunDescription, RunInfo, SettingInfo, TimeSpent
from kd_jax.stats.rows import FORMAT

_CONFIG = {
    "format": int, "experiment": str, "command": str, "flags": dict, "versions": dict, "device": str,
    "data": dict, "teacher": dict | None, "settings": list, "runs": list,
}  # fmt: skip
_DATA = dict.fromkeys(("num_classes", "train", "validation", "test"), int) | {
    "name": str, "fingerprint": str, "class_names": list,
}  # fmt: skip
_OPTIONAL = {
    "question": str, "transfer": dict | None, "pretrained": dict | None, "continued": list, "time": dict,
    "imported": dict | None,
}  # fmt: skip
_OPTIONAL_DATA = {"skipped": int, "notes": list}
_TIME = dict.fromkeys(("run_seconds", "training_seconds", "examples"), float | int)
_SETTING = {"name": str, "omitted": list}
_NUMBERS = ("temperature", "alpha", "shots", "learning_rate", "weight_decay", "perturb")
"""Of a setting, where it has them; else null. All other values that make it are words or numbers too."""
_RUN = {"run": int, "setting": str, "seed": int, "teacher_seed": int | None}


def write(folder: Path, description: RunDescription) -> None:
    """config.json, whole or not at all. Errors: InputError when the readers would refuse it."""
    path, content = Path(folder) / "config.json", to_json(description)
    _check_config(path, content)
    run_files.write(path, run_files.to_json(content))


def read(folder: Path) -> RunDescription:
    """Errors: InputError when the folder is no run folder or config.json is malformed."""
    path = Path(folder) / "config.json"
    text = run_files.read_text(path)
    try:
        config = json.loads(text, parse_int=_json_int, parse_float=_json_float, parse_constant=_json_float)
        run_files.to_json({"config": config})
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}", "JSON", error.msg) from None
    # A number beyond 64 bits, nan, half a surrogate pair, a thousand brackets.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}", "JSON of sensible numbers, text and depth", error) from None
    return parse(config, path)


def parse(config: Any, path: Path = Path("config.json")) -> RunDescription:
    """The description that the content of a config.json gives. Errors: InputError that names `path`."""
    _check_config(path, config)
    data = _of(DatasetInfo, config["data"])
    data |= {name: tuple(data.get(name, ())) for name in ("class_names", "notes")}
    settings = [{**setting, "omitted": tuple(setting["omitted"])} for setting in config["settings"]]
    parts = {
        "data": DatasetInfo(**data),
        "settings": tuple(SettingInfo(setting.pop("name"), setting) for setting in settings),
        "runs": tuple(RunInfo(**_of(RunInfo, run)) for run in config["runs"]),
        "continued": tuple(config.get("continued", ())),
        "time": TimeSpent(**_of(TimeSpent, config["time"])) if "time" in config else None,
    }
    return RunDescription(**_of(RunDescription, config) | parts)


def _of(kind: Any, content: dict[str, Any]) -> dict[str, Any]:
    """The entries that the dataclass `kind` has fields for."""
    return {field.name: content[field.name] for field in fields(kind) if field.name in content}


def to_json(description: RunDescription) -> dict[str, Any]:
    """The content of config.json: optional entries only where they say something."""
    content = {"format": FORMAT} | asdict(description)
    content["settings"] = [{"name": setting.name, **setting.values} for setting in description.settings]
    for part, optional in ((content, _OPTIONAL), (content["data"], _OPTIONAL_DATA)):
        for name in optional:
            if not part[name]:
                del part[name]
    return json.loads(run_files.to_json(content))  # its tuples as lists


def _json_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number out of range, {text[:20]}")
    return value


def _json_int(text: str) -> int:
    if abs(_json_float(text)) >= 2**63:
        raise ValueError(f"a number out of range, {text[:20]}")
    return int(text)


def _check_format(path: Path, config: Any) -> None:
    """Refuses a run of another version, whose columns and settings have other names."""
    _check_keys(f"{path}", config, {"format": int})
    if config["format"] < FORMAT:
        expected = f"format {FORMAT}, which its command makes in a new folder: {config.get('command')}"
        raise InputError(
            f"{path.parent} is a run of an older version", expected, f"format {config['format']}"
        )
    if config["format"] > FORMAT:
        raise InputError(f"{path}: format", str(FORMAT), config["format"])


def _check_config(path: Path, config: Any) -> None:
    _check_format(path, config)
    _check_keys(f"{path}", config, _CONFIG)
    data = config["data"]
    _check_keys(f"{path}: data", data, _DATA)
    names = data["class_names"]
    if len(names) != data["num_classes"] or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: data: class_names", f"{data['num_classes']} names", names)
    if not config["settings"] or not config["runs"]:
        raise InputError(f"{path}: settings and runs", "one or more of each", "none")
    for setting in config["settings"]:
        _check_keys(f"{path}: a setting", setting, _SETTING)
        _check_values(f"{path}: setting {setting['name']!r}", setting)
        if not set(map(repr, setting["omitted"])) <= set(map(repr, range(data["num_classes"]))):
            where, expected = f"{path}: setting {setting['name']!r}: omitted", f"indices below {len(names)}"
            raise InputError(where, expected, setting["omitted"])
    settings = [setting["name"] for setting in config["settings"]]
    if len(set(settings)) < len(settings):
        raise InputError(f"{path}: settings", "a name of its own for each", settings)
    if "time" in config:
        _check_keys(f"{path}: time", config["time"], _TIME)
    _check_keys(f"{path}: transfer", config.get("transfer") or {"examples": 1}, {"examples": int})
    teacher = config["teacher"] or {}
    for about in (teacher, *_members(path, teacher)):
        _check_keys(f"{path}: teacher", {"num_teachers": 1} | about, {"num_teachers": int})
    for part, value, kinds in (("", config, _OPTIONAL), (": data", data, _OPTIONAL_DATA)):
        _check_keys(f"{path}{part}", value, {name: kind for name, kind in kinds.items() if name in value})
    for run in config["runs"]:
        _check_keys(f"{path}: a run", run, _RUN)
        if run["setting"] not in settings:
            raise InputError(f"{path}: a run's setting", " | ".join(settings), repr(run["setting"]))


def _check_values(where: str, setting: dict[str, Any]) -> None:
    for name, value in setting.items():
        number = isinstance(value, int | float | None)
        if not number and (name in _NUMBERS or not (isinstance(value, str) or name == "omitted")):
            expected = "a number or null" if name in _NUMBERS else "a word or a number"
            raise InputError(f"{where}: {name}", expected, repr(value))


def _members(path: Path, teacher: dict[str, Any]) -> list[dict[str, Any]]:
    members = teacher.get("members", [])
    if not isinstance(members, list) or not all(isinstance(about, dict) for about in members):
        raise InputError(f"{path}: teacher: members", "a list of objects", repr(members))
    return members


def _check_keys(where: str, value: Any, keys: dict[str, Any]) -> None:
    if not isinstance(value, dict):
        raise InputError(where, "an object", repr(value))
    for key, kind in keys.items():
        if key not in value or not isinstance(value[key], kind) or isinstance(value[key], bool):
            expected = getattr(kind, "__name__", str(kind))
            raise InputError(f"{where}: {key}", expected, repr(value[key]) if key in value else "nothing")
