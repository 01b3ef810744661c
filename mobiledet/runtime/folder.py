"""A model that is a folder of files, with its card and their checksums in ``card.json``."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from mobiledet.errors import ModelFileError
from mobiledet.runtime.card import ModelCard

CARD_FILE = "card.json"


def write_folder_card(folder: Path, card: ModelCard, files: tuple[str, ...]) -> None:
    """Write ``card.json`` for the ``files`` that are in ``folder`` already."""
    sums = {name: _crc32(folder / name) for name in files}
    text = json.dumps({"card": json.loads(card.to_json()), "files": sums}, indent=1)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def read_folder_card(folder: Path, files: tuple[str, ...]) -> ModelCard:
    """The card of a folder whose ``files`` are whole.

    Raises:
        ModelFileError: Something is missing, foreign or damaged.
    """
    place = folder / CARD_FILE
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        card, sums = json.dumps(content["card"]), dict(content["files"])
    except FileNotFoundError:
        raise ModelFileError(
            f"{folder}: has no {CARD_FILE}, so it isn't a model that mobiledet export wrote; name one that is"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise ModelFileError(f"{place}: damaged or unreadable; copy or export the folder again") from None
    for name in files:
        path = folder / name
        if not path.is_file():
            raise ModelFileError(f"{path}: missing; copy or export the folder again")
        if _crc32(path) != sums.get(name):
            raise ModelFileError(
                f"{path}: damaged, its checksum doesn't match {CARD_FILE}; copy or export the folder again"
            )
    return ModelCard.from_json(card, str(place))


def _crc32(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()):08x}"
