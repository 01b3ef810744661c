"""Run folders: ``<output>/<name>/<number>``, made new for every run and never written over."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobiledet.errors import MobiledetError, TrainingError
from mobiledet.file_lock import try_lock


def create_run_folder(output: Path, name: str, *, remedy: str = "name another with train.output=FOLDER") -> Path:
    """Make the next free ``<output>/<name>/<number>``.

    Args:
        output: Where runs are kept.
        name: Of this kind of run.
        remedy: What the user can do where it can't be made.

    Raises:
        TrainingError: the folder can't be made.
    """
    parent = output / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name) for p in parent.iterdir() if p.name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            folder = parent / str(number)
            try:
                folder.mkdir()
            except FileExistsError:  # another run took it a moment ago
                number += 1
                continue
            return folder
    except OSError as error:
        raise TrainingError(f"can't make a run folder in {str(parent)!r}: {error.strerror}; {remedy}") from None


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never train into it; the hold ends with the process.

    Raises:
        TrainingError: another process holds it.
    """
    path = folder / ".lock"
    try:
        handle = path.open("a+")
    except OSError as error:
        raise TrainingError(f"can't write to run folder {str(folder)!r}: {error.strerror}") from None
    with handle:
        if not try_lock(handle.fileno()):
            handle.seek(0)
            raise TrainingError(f"{folder}: process {handle.read().strip() or '?'} is training into it")
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Replace a small text file as a whole.

    Raises:
        MobiledetError: it can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MobiledetError(f"{path}: can't be written: {error.strerror}") from None


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace a JSON file as a whole.

    Raises:
        MobiledetError: it can't be written.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file as a whole; columns are those of all rows, in order of first appearance.

    Raises:
        MobiledetError: it can't be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
