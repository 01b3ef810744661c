"""From a config file, ``key=value`` overrides or a checkpoint's plain data to a `Config`."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import runpy
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mobiledet.config.schema import AugmentConfig, Config
from mobiledet.errors import ConfigError
from mobiledet.models import model_config
from mobiledet.utils.recipes import recipe_path
from mobiledet.utils.text import nearest

_FIRST = {"data": "data.root", "model": "model.init", "optimizer": "optimizer.name", "model.head": "model.head.kind"}
"""Of a group of settings the one that a value for the whole group was meant for."""


def load_config(path: str | Path) -> Config:
    """Run a config file, or a recipe by name, and return its ``config``.

    Config files are Python and are run; only name files you trust. A config that doesn't name itself takes the
    file's name.

    Raises:
        ConfigError: the file is missing, fails to run, or holds no valid ``config``.
    """
    path = recipe_path(path)
    if path.suffix != ".py":
        raise ConfigError(
            f"config file {str(path)!r} is not Python; mobiledet configs ssd_mobilenet_a1 prints an example"
        )
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
        Config(name=path.stem)
    except ValidationError:
        raise ConfigError(
            f"{path}: {path.stem!r} can't name a run folder (letters, digits and ._- can); "
            "rename the file, or give the recipe a name: Config(name=...)"
        ) from None
    return found.model_copy(update={"name": path.stem})


def apply_overrides(config: Config, overrides: Sequence[str] | Mapping[str, Any]) -> Config:
    """Apply ``key=value`` words, or a dict of dotted keys, validated just like the file.

    Args:
        config: Where to start from.
        overrides: Such as ``"schedule.epochs=2"`` or ``"model.input_size=(240, 320)"``. ``none`` stands for None;
            numbers, tuples and lists are written as in Python; anything else is a string. A bare
            ``data.augment=none`` or ``=light`` takes that preset. The values of a dict are taken as they are. A size is
            also ``416``, a square, or ``240x320``.

    Raises:
        ConfigError: a word isn't ``key=value``, names no key, or its value doesn't fit.
    """
    explicit = _explicit(config)
    typed = not isinstance(overrides, Mapping)
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_key_and_text, overrides)
    for key, value in pairs:
        *groups, name = key.split(".")
        node: Any = config.plain()
        target = explicit
        for depth, group in enumerate(groups, start=1):
            child = node.get(group)
            if not isinstance(child, dict):
                raise ConfigError(_unknown_key(key, ".".join(groups[:depth]), node))
            node, target = child, target.setdefault(group, {})
        if name not in node and name != "kind":
            raise ConfigError(_unknown_key(key, key, node))
        if isinstance(value, str) and (typed or isinstance(node.get(name), dict)):
            value = _parse_value(value, key, node.get(name))
        if name == "kind" and groups:
            _keep_what_both_have(target, node, groups[-1], value)
        target[name] = value
        config = config_from_plain(explicit)
    return config


def _key_and_text(word: str) -> tuple[str, str]:
    key, equals, text = word.partition("=")
    if not (equals and key):
        raise ConfigError(f"override {word!r} is not key=value, {_meant_by(word)}")
    return key, text


def _explicit(settings: BaseModel) -> dict[str, Any]:
    """The settings that somebody set, as plain data; a ``kind`` always, since it says what the others mean."""
    plain = settings.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name in plain:
        value = getattr(settings, name)
        if name == "kind" or name in settings.model_fields_set:
            found[name] = _explicit(value) if isinstance(value, BaseModel) else plain[name]
    return found


def _keep_what_both_have(target: dict[str, Any], node: dict[str, Any], group: str, kind: object) -> None:
    """Of a head or backbone whose kind changes, the settings stay if the new kind has the same ones; else none do."""
    members = {
        model_config.kind_of(member): member
        for member in (model_config.HEADS if group == "head" else model_config.BACKBONES)
    }
    new = members.get(str(kind))
    if new is not None and new.model_fields.keys() != node.keys():
        target.clear()


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
        return AugmentConfig.light().model_dump()
    if isinstance(current, dict):
        each = ", ".join(f"{key}.{k}" for k in current)
        remedy = f"did you mean {_word(_FIRST[key], text)}?" if key in _FIRST else f"name one of them: {each}"
        raise ConfigError(f"{key} is a group of settings; {remedy}")
    if isinstance(current, list) or text[:1] in "([":
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            if re.fullmatch(r"\d+x\d+", text, re.IGNORECASE):  # a size
                return text
            raise ConfigError(f"{key}={text}: not a list, write for example {key}=(240, 320)") from None
        return list(value) if isinstance(value, tuple | list) else [value]
    # Anything else stays text: pydantic turns "2", "1e-3" and "false" into what the key needs, or says it can't.
    return text


def _meant_by(word: str) -> str:
    """What a word without ``=`` was probably meant as, as the end of a message."""
    path = Path(word)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # no system takes such a path
        is_folder = is_file = False
    if is_folder or (is_file and path.suffix in (".yaml", ".yml", ".json")):
        return f"but there is such data: did you mean {_word('data.root', word)}?"
    if is_file and path.suffix == ".pt":
        return f"but there are such weights: did you mean {_word('model.init', word)}?"
    return "for example schedule.epochs=2"


def _word(key: str, value: str) -> str:
    """A setting as it is typed, in quotes where a shell needs them."""
    return shlex.quote(f"{key}={value}")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        place = ".".join(map(str, item["loc"])) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(_unknown_key(place, place, None))
        elif item["type"] == "unknown_kind":
            lines.append(f"{place}.{item['msg']}")
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
    every = [
        *_all_keys(Config().plain()),
        *_keys_of(model_config.BACKBONES, "backbone"),
        *_keys_of(model_config.HEADS, "head"),
    ]
    group, _, leaf = key.rpartition(".")
    # Compared is the last part, first with those of its own group: what is before it is alike, and says nothing.
    own = {full.rpartition(".")[2]: full for full in every if group and full.rpartition(".")[0] == group}
    leaves = own | {full.rpartition(".")[2]: full for full in reversed(every) if full.rpartition(".")[2] not in own}
    near = own.get(nearest(leaf, own) or "") or leaves.get(nearest(leaf, leaves) or "")
    if near is not None:
        return f"unknown setting {key!r}: did you mean {near!r}?"
    known = f" (known here: {', '.join(node)})" if node else ""
    return f"unknown setting {place!r}{known}"


def _keys_of(members: Sequence[type[BaseModel]], group: str) -> Iterator[str]:
    for member in members:
        yield from (f"model.{group}.{name}" for name in member.model_fields)


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


def _line_in(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}" if error.lineno else ""
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f", line {frames[-1]}" if frames else ""
