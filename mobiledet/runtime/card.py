"""What an exported model says about itself: everything needed to feed it and to read its output."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mobiledet.errors import ModelFileError
from mobiledet.structures import MAX_SIDE, ResizeRule
from mobiledet.utils.text import clean_name

KEY = "mobiledet"
"""Name under which the card is stored inside a file."""

FORMAT = "mobiledet model"
VERSION = 2

MARK, BLANK = b"mobiledet-crc32:", b"--------"
"""Before the checksum inside a file, and its place while it is computed: damaged weights are noticed on opening."""

MAX_PIXELS = 1 << 28
"""Of all images that a network takes at once."""


@dataclass(frozen=True)
class ModelCard:
    """The card of a model.

    Attributes:
        names: ``K`` class names; ``names[label - 1]`` is the name of a label.
        category_ids: The training data's id of each class.
        resize: The size of images inside the network.
        fill: RGB of the part of the input that a letterboxed image leaves free.
        batch: Images that the network takes at once; None for any number.
        score_threshold: Minimum score of the detections it was evaluated with.
        iou_threshold: Overlap from which two boxes of one class are one object.
        max_detections: Most detections of an image.
        shown_threshold: Score with the best F1, from which detections are worth showing; None where not measured.
        precision: ``"float32"`` or ``"int8"``.
        head: Kind of the head.
        gmacs: Multiply-adds of one image, in billions.
        params: Parameters of the network.
        config: The config it was trained with, as plain types.
        origin: ``file`` and ``sha256`` of the checkpoint.
        versions: Of the packages that wrote it.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    resize: ResizeRule
    fill: tuple[int, int, int] = (128, 128, 128)
    batch: int | None = 1
    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    max_detections: int = 100
    shown_threshold: float | None = None
    precision: str = "float32"
    head: str = "ssd"
    gmacs: float = 0.0
    params: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Names go to terminals, files and pages, and the file may be anybody's."""
        clean = (clean_name(name) if isinstance(name, str) else name for name in self.names)
        object.__setattr__(self, "names", tuple(clean))

    def to_json(self) -> str:
        """The card as JSON, on one line."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)})

    def label_map(self) -> str:
        """Lines such as ``0 cat``, classes counted from 0, as Frigate, picamera2 and Coral's programs read them."""
        return "".join(f"{index} {' '.join(name.split())}\n" for index, name in enumerate(self.names))

    def check(self) -> None:
        """Make sure that a network can be fed and read as it says.

        Raises:
            ValueError: A value can't be; names it.
        """
        sides, fractions = self.resize.size, (self.score_threshold, self.iou_threshold)
        longest, shown, batch = self.resize.longest_side, self.shown_threshold, 1 if self.batch is None else self.batch
        right = {
            "names": bool(self.names) and all(type(name) is str for name in self.names),
            "category_ids": all(type(number) is int for number in self.category_ids)
            and len(self.category_ids) in (0, len(self.names)),
            "resize": all(0 < side <= MAX_SIDE for side in sides)
            and (longest is None or (type(longest) is int and 0 < longest <= MAX_SIDE * 4))
            and type(self.resize.letterbox) is bool,
            "fill": len(self.fill) == 3 and all(type(level) is int and 0 <= level <= 255 for level in self.fill),
            "batch": type(batch) is int and 0 < batch * sides[0] * sides[1] <= MAX_PIXELS,
            "thresholds": all(_is_fraction(value) for value in fractions) and (shown is None or _is_fraction(shown)),
            "max_detections": type(self.max_detections) is int and self.max_detections > 0,
            "precision, head": type(self.precision) is type(self.head) is str,
            "gmacs, params": type(self.params) is int and type(self.gmacs) in (int, float),
            "config, origin, versions": all(type(part) is dict for part in (self.config, self.origin, self.versions)),
        }
        if wrong := [what for what, is_right in right.items() if not is_right]:
            raise ValueError(f"{wrong[0]} can't be right")

    @classmethod
    def from_json(cls, text: str, place: str) -> ModelCard:
        """The card in ``text``.

        Raises:
            ModelFileError: It isn't a card, or that of a newer version.
        """
        try:
            plain = json.loads(text)
            if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
                raise ValueError(f"no {FORMAT}")
            version = int(plain.pop("version"))
            if version > VERSION:
                raise ModelFileError(f"{place}: exported by a newer mobiledet (format {version}); update mobiledet")
            rule = plain.pop("resize")
            resize = ResizeRule((int(rule["size"][0]), int(rule["size"][1])), rule["longest_side"], rule["letterbox"])
            plain |= {key: tuple(plain[key]) for key in ("names", "category_ids", "fill")}
            card = cls(resize=resize, **plain)
            card.check()
            return card
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            raise ModelFileError(
                f"{place}: its model card is damaged ({error!s:.200}); copy or export it again"
            ) from None


def _is_fraction(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def seal(content: bytes) -> bytes:
    """``content`` with the checksum written behind its mark, which must be in it exactly once."""
    start = _digits(content)
    if start is None:
        raise ValueError("the content has no mark for a checksum")
    return content[:start] + _checksum(content, start) + content[start + len(BLANK) :]


def is_whole(content: bytes) -> bool | None:
    """Whether the checksum is that of the content; None where there is none."""
    start = _digits(content)
    return None if start is None else content[start : start + len(BLANK)] == _checksum(content, start)


def _digits(content: bytes) -> int | None:
    at = content.rfind(MARK)
    return None if at < 0 or at + len(MARK) + len(BLANK) > len(content) else at + len(MARK)


def _checksum(content: bytes, start: int) -> bytes:
    view = memoryview(content)
    crc = zlib.crc32(view[start + len(BLANK) :], zlib.crc32(BLANK, zlib.crc32(view[:start])))
    return f"{crc:08x}".encode()
