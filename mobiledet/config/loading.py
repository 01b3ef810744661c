"""From a config file, ``key=value`` overrides or a checkpoint's plain data to a :class:`Config`."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mobiledet.config.schema import Config, FasterRCNNConfig, SSDConfig, SSDLiteConfig
from mobiledet.errors import ConfigError


def load_config(path: str | Path) -> Config:
    """Run a config file and return its ``config``.

    Config files are Python and are run; only name files you trust. A config that doesn't name itself takes the
    file's name.

    Raises:
        ConfigError: the file is missing, fails to run, or holds no valid ``config``.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no config file {str(path)!r}{_nearest_file(path)}")
    if path.suffix != ".py":
        raise ConfigError(f"config file {str(path)!r} is not Python; see configs/ssd_mobilenet_a1.py for an example")
    try:
        found = runpy.run_path(str(path)).get("config")
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:
        line, what = _line_in(error, path), error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(f"{path}{line}: {type(error).__name__}: {what}") from None
    if not isinstance(found, Config):
        what = "defines no variable `config`" if found is None else f"`config` is a {type(found).__name__}"
        raise ConfigError(f"{path}: {what}; it must hold `config = Config(...)` (from mobiledet.config import Config)")
    if "name" in found.model_fields_set:
        return found
    try:
        return Config.model_validate({**found.plain(), "name": path.stem})
    except ValidationError:
        raise ConfigError(
            f"{path}: {path.stem!r} can't name a run folder (letters, digits and ._- can); "
            "rename the file, or give the recipe a name: Config(name=...)"
        ) from None


def apply_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """Apply ``key=value`` words, validated just like the file.

    Args:
        config: Where to start from.
        overrides: Such as ``"schedule.epochs=2"`` or ``"model.input_size=(240, 320)"``. ``none`` stands for None;
            numbers, tuples and lists are written as in Python; anything else is a string. A bare
            ``data.augment=none`` or ``=light`` takes that preset.

    Raises:
        ConfigError: a word isn't ``key=value``, names no key, or its value doesn't fit.
    """
    plain = config.plain()
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {word!r} is not key=value, for example schedule.epochs=2")
        parts = key.split(".")
        node = plain
        for depth, part in enumerate(parts[:-1]):
            child = node.get(part)
            if not isinstance(child, dict):
                raise ConfigError(_unknown_key(key, ".".join(parts[: depth + 1]), node))
            node = child
        if parts[-1] not in node:
            raise ConfigError(_unknown_key(key, key, node))
        node[parts[-1]] = _parse_value(text, key, node[parts[-1]])
        if key == "model.head.kind":
            plain["model"]["head"] = _other_head(plain["model"]["head"])
    return config_from_plain(plain)


def _other_head(head: dict[str, Any]) -> dict[str, Any]:
    """A head's settings after its kind was changed: as they were if the new kind has the same ones, else defaults."""
    for kind in (SSDConfig, SSDLiteConfig, FasterRCNNConfig):
        default: dict[str, Any] = kind().model_dump(mode="json")
        if default["kind"] == head["kind"]:
            return head if head.keys() == default.keys() else default
    return head


def config_from_plain(plain: Mapping[str, Any]) -> Config:
    """A config from plain data, as found in a checkpoint or a run folder's config.json.

    Raises:
        ConfigError: a key is unknown or a value doesn't fit.
    """
    try:
        return Config.model_validate(dict(plain))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits that change with any setting."""
    text = json.dumps(config.plain(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _parse_value(text: str, key: str, current: object) -> object:
    if text.lower() in ("none", "null"):
        if key == "data.augment":
            return {"crop": 0, "expand": 0, "flip": 0, "color": 0}
        return None
    if key == "data.augment" and text == "light":
        from mobiledet.config.schema import AugmentConfig

        return AugmentConfig.light().model_dump()
    if isinstance(current, dict):
        raise ConfigError(f"{key} is a group of settings; name one of them: {', '.join(f'{key}.{k}' for k in current)}")
    if isinstance(current, list) or text[:1] in "([":
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ConfigError(f"{key}={text}: not a list, write for example {key}=(240, 320)") from None
        return list(value) if isinstance(value, tuple | list) else [value]
    # Anything else stays text: pydantic turns "2", "1e-3" and "false" into what the key needs, or says it can't.
    return text


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"] if part not in ("ssd", "ssdlite", "faster_rcnn")) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(_unknown_key(place, place, None))
        elif item["type"] == "union_tag_invalid":
            lines.append(f"{place}.kind must be one of {item['ctx']['expected_tags']}, not {item['ctx']['tag']!r}")
        elif item["type"] == "missing" and isinstance(item["loc"][-1], int):
            key = place.rpartition(".")[0]
            lines.append(f"{key}: too few values (got {item['input']!r}), write for example {key}={_default(key)}")
        else:
            value = item["input"]
            shown = "" if isinstance(value, dict | BaseModel) else f" (got {value!r})"
            lines.append(f"{place}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return "; ".join(lines)


def _unknown_key(key: str, place: str, node: Mapping[str, object] | None) -> str:
    """Say that ``key`` is unknown, and what was probably meant."""
    every = [*_all_keys(Config().plain()), *_all_keys(FasterRCNNConfig().model_dump(), "model.head.")]
    leaf = key.split(".")[-1]
    near = difflib.get_close_matches(key, every, n=1, cutoff=0.75)
    if not near:
        named = [full for full in every if full.split(".")[-1] == leaf]
        leaves = difflib.get_close_matches(leaf, [full.split(".")[-1] for full in every], n=1, cutoff=0.6)
        near = named or [full for full in every if leaves and full.split(".")[-1] == leaves[0]]
    if near:
        return f"unknown setting {key!r}: did you mean {near[0]!r}?"
    known = f" (known here: {', '.join(node)})" if node else ""
    return f"unknown setting {place!r}{known}"


def _all_keys(plain: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in plain.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _all_keys(value, f"{prefix}{key}.")


def _default(key: str) -> str:
    value: Any = Config().plain()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return str(tuple(value)) if isinstance(value, list) else str(value)


def _nearest_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("configs")
    names = sorted(str(p) for p in folder.glob("*.py")) if folder.is_dir() else []
    near = difflib.get_close_matches(str(path), names, n=1, cutoff=0.5)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; there are {', '.join(names)}" if names else ""


def _line_in(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}" if error.lineno else ""
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f", line {frames[-1]}" if frames else ""
