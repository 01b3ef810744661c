"""The yaml of a YOLO data set: class names, and where the images of each split are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import head
from mobiledet.data.formats.tree import HOW_TO_SAY, Tree, lies_below, path_parts, split_name, there
from mobiledet.errors import DataError
from mobiledet.utils.encodings import text_of
from mobiledet.utils.text import clean_name

SUFFIXES = (".yaml", ".yml")
_PREFERRED = ("data", "dataset")
_MAX_BYTES = 10_000_000


@dataclass
class YoloYaml:
    """What a yaml says.

    Attributes:
        file: its path.
        names: class number -> name; empty where it has none.
        keypoints: numbers that a row has after the box, 0 without keypoints.
        splits: normalised split -> folders and lists as written.
        base: the ``path`` as written; empty without.
    """

    file: Path
    names: dict[int, str] = field(default_factory=dict)
    keypoints: int = 0
    splits: dict[str, list[str]] = field(default_factory=dict)
    base: str = ""


def find_yaml(tree: Tree) -> str | None:
    """The yaml with class names or splits nearest to the folder: data.yaml, dataset.yaml, else the only one.

    Raises:
        DataError: there are several, and no telling which.
    """
    found = [file for file in tree.with_suffix(*SUFFIXES) if names_classes(tree.root / file)]
    if not found:
        return None
    depth = min(file.count("/") for file in found)
    found = [file for file in found if file.count("/") == depth]
    for stem in _PREFERRED:
        for file in found:
            if Path(file).stem.lower() == stem:
                return file
    if len(found) > 1:
        raise DataError(f"{tree.root} has several yaml files with class names: {', '.join(found)}; name one of them")
    return found[0]


def read_yaml(path: Path, log: ImportLog) -> YoloYaml:
    """Read a YOLO data.yaml.

    Raises:
        DataError: it can't be read, isn't YAML, or its names are neither a list nor a dict.
    """
    content = _load(path)
    names = _names(content.get("names"), path, log)
    count = content.get("nc")
    if isinstance(count, str) and count.isdigit() and names and str(len(names)) != count:
        log.add(Fault.NAMES_COUNT, path.name, f"nc {count:.20}, {len(names)} names")
    splits: dict[str, list[str]] = {}
    for key, value in content.items():
        split = split_name(key)
        if split is None:
            continue
        entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        texts = [entry for entry in entries if isinstance(entry, str) and entry.strip()]
        if texts:
            splits.setdefault(split, []).extend(texts)
    base = content.get("path")
    return YoloYaml(path, names, _keypoints(content.get("kpt_shape")), splits, base if isinstance(base, str) else "")


def resolve(tree: Tree, yaml: YoloYaml, entry: str, log: ImportLog) -> Path | None:
    """The folder or list that an entry means, whatever computer it was written on; None if it isn't there.

    What lies in the data set's own folder comes first: exports say ``../train/images`` and mean ``train/images``,
    and a path from another computer is found by its end.

    Raises:
        DataError: it leads out of the data set's folder, and that isn't allowed.
    """
    home = yaml.file.parent
    written = entry.strip().replace("\\", "/")
    parts, base_parts = path_parts(written), path_parts(yaml.base)
    bases = [home]
    if yaml.base:
        absolute = Path(os.path.expanduser(yaml.base.replace("\\", "/")))  # noqa: PTH111 -- never raises
        bases = [absolute if absolute.is_absolute() else home / absolute, home]
        if base_parts:
            bases.append(home / base_parts[-1])
    is_absolute = written.startswith("/") or re.match(r"^[A-Za-z]:", written) is not None
    literal = [base / written for base in bases] + [Path(written)]
    ends = [base.joinpath(*parts[at:]) for at in range(len(parts) if is_absolute else 1) for base in bases if parts]
    candidates = [literal[0], *ends, *literal] if is_absolute or not ends else [*ends, *literal]
    found = [path for path in dict.fromkeys(candidates) if there(path)]
    for path in found:
        if tree.reading.outside or lies_below(path, tree.root):
            if path not in (literal[0], bases[0] / written):
                log.add(Fault.YAML_PATH, f"{yaml.file.name}, {entry}", str(path))
            return path
    if found:
        raise DataError(
            f"{yaml.file}: {entry!r} leads out of {tree.root}, to {found[0].resolve()}; "
            f"name the folder that holds both, or allow it: outside=true ({HOW_TO_SAY})"
        )
    return None


def names_classes(path: Path) -> bool:
    """Whether a yaml has class names, or splits; by its keys, without parsing it."""
    text = head(path, 1 << 20).decode("utf-8-sig", "replace")
    keys = set(re.findall(r"^[\"']?(\w+)[\"']?\s*:", text, flags=re.MULTILINE))
    return "names" in keys or ("train" in keys and bool(keys & {"val", "nc", "test"}))


def _load(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} has more than {_MAX_BYTES} bytes; name the data set's yaml")
        # BaseLoader is safe_load without guesses: a class called "no" or "1e3" keeps its name.
        content = yaml.load(text_of(path.read_bytes()), Loader=yaml.BaseLoader)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not YAML: {reason}; correct it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is a {type(content).__name__}; a data set's yaml has keys names, train and val")
    return {str(key): value for key, value in content.items() if isinstance(key, str)}


def _names(raw: Any, path: Path, log: ImportLog) -> dict[int, str]:
    if raw is None or raw == "":
        return {}
    if isinstance(raw, list):
        pairs = list(enumerate(raw))
    elif isinstance(raw, dict):
        pairs = []
        for key, value in raw.items():
            if not (isinstance(key, str) and re.fullmatch(r"[0-9]{1,9}", key)):
                hint = ", or write it the other way round" if isinstance(value, str) and value.isdigit() else ""
                raise DataError(f"{path}: names has the key {key!r:.40}; give numbers from 0{hint} (0: cat)")
            pairs.append((int(key), value))
    else:
        raise DataError(
            f"{path}: names is the text {raw!r:.60}; write a list, [cat, dog], or a dict, {{0: cat, 1: dog}}"
        )
    names: dict[int, str] = {}
    known: set[str] = set()
    for number, value in sorted(pairs, key=lambda pair: pair[0]):
        if not isinstance(value, str):
            raise DataError(f"{path}: the name of class {number} is a {type(value).__name__}; write a text")
        name = clean_name(value)
        if not name:
            name = f"class_{number}"
            log.add(Fault.NAME_INVENTED, f"{path.name}, names[{number}]", name)
        elif name != value:
            log.add(Fault.NAME_SPACES, f"{path.name}, names[{number}]", f"{value!r} is {name!r}")
        if name in known:
            log.add(Fault.CLASSES_MERGED, f"{path.name}, names[{number}]", repr(name))
        names[number] = name
        known.add(name)
    return names


def _keypoints(shape: Any) -> int:
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, str) and n.isdigit() for n in shape):
        return int(shape[0]) * int(shape[1])
    return 0
