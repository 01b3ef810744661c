"""Lines and zones: as options of the command line, as a small YAML file, and in shares of the frame."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobiledet.errors import ConfigError
from mobiledet.structures import Size
from mobiledet.utils.files import write_text
from mobiledet.utils.text import did_you_mean, shorten

Point = tuple[float, float]
"""``(x, y)``: pixels of the frame or, where all of a shape's are between 0 and 1, shares of its width and height."""

Shapes = Mapping[str, tuple[Point, ...]]

MOST_SHAPES = 50
MOST_CORNERS = 100
_KINDS = {"lines": "line", "zones": "zone"}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_NUMBERS = re.compile(rf"\s*\(?\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)?(?:\s*,\s*\(?\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)?)*\s*")


@dataclass(frozen=True)
class Scene:
    """Where is counted.

    Attributes:
        lines: Name and both ends of each line. Who looks from the first to the second has the side "in" on the right.
        zones: Name and three or more corners of each zone.

    Raises:
        ConfigError: A line and a zone have the same name.
    """

    lines: Shapes = field(default_factory=dict)
    zones: Shapes = field(default_factory=dict)

    def __post_init__(self) -> None:
        if shared := self.lines.keys() & self.zones.keys():
            raise ConfigError(f"{min(shared)!r} is the name of a line and of a zone; each needs a name of its own")

    def __bool__(self) -> bool:
        return bool(self.lines or self.zones)

    def in_shares(self, size: Size) -> Scene:
        """The same in shares of a frame of ``(height, width)``, to four digits.

        Raises:
            ConfigError: A shape has no part in the frame.
        """
        height, width = size

        def convert(kind: str, shapes: Shapes) -> Shapes:
            converted = {}
            for name, points in shapes.items():
                scale = (1, 1) if all(0 <= side <= 1 for point in points for side in point) else (width, height)
                shares = tuple((round(x / scale[0], 4), round(y / scale[1], 4)) for x, y in points)
                for axis in (0, 1):
                    if all(point[axis] < 0 for point in shares) or all(point[axis] > 1 for point in shares):
                        raise ConfigError(f"the {kind} {name!r} lies outside of the frame of {width}x{height} pixels")
                converted[name] = shares
            return converted

        return Scene(convert("line", self.lines), convert("zone", self.zones))

    def plain(self) -> dict[str, Any]:
        """``{"lines": {name: [[x, y], [x, y]]}, "zones": {name: [[x, y], ...]}}``, as in the file."""
        return {
            kind: {name: [list(point) for point in points] for name, points in shapes.items()}
            for kind, shapes in (("lines", self.lines), ("zones", self.zones))
        }


def scene_from_plain(content: Any) -> Scene:
    """A scene from `Scene.plain`.

    Raises:
        ConfigError: It is not one; the message says where.
    """
    if not isinstance(content, Mapping):
        raise ConfigError("a scene is an object with lines and zones")
    parts: dict[str, dict[str, tuple[Point, ...]]] = {kind: {} for kind in _KINDS}
    for kind, shapes in content.items():
        if kind not in parts:
            hint = did_you_mean(str(kind), _KINDS, otherwise="there are lines and zones")
            raise ConfigError(f"a scene has no {kind!r}; {hint}")
        if not isinstance(shapes or {}, Mapping):
            raise ConfigError(f"{kind} must be names with their points, such as {{gate: [[0, 0.5], [1, 0.5]]}}")
        for name, points in (shapes or {}).items():
            parts[kind][_name(name)] = _points(_KINDS[kind], name, points)
    if sum(map(len, parts.values())) > MOST_SHAPES:
        raise ConfigError(f"a scene may have {MOST_SHAPES} lines and zones")
    return Scene(**parts)


def parse_shape(kind: str, text: str) -> tuple[str, tuple[Point, ...]]:
    """A name and points from ``"gate:100,400,540,400"`` or ``"porch:(0,200),(300,200),(300,480)"``.

    Raises:
        ConfigError: The text isn't of that form, or it isn't a ``kind``: "line" or "zone".
    """
    name, colon, numbers = text.rpartition(":")
    if not colon or not _NUMBERS.fullmatch(numbers):
        example = "gate:100,400,540,400" if kind == "line" else "porch:(0,200),(300,200),(300,480),(0,480)"
        raise ConfigError(f"--{kind} {shorten(text, 60)!r} is not a name and points x,y, such as {example}")
    values = [float(value) for value in re.findall(_NUMBER, numbers)]
    return _name(name), _points(kind, name, list(zip(values[::2], values[1::2], strict=True)))


def read_scene(path: Path) -> Scene:
    """Read a scene from its file.

    Raises:
        ConfigError: It can't be read, or isn't a scene.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        return scene_from_plain(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the scene can't be read: {getattr(error, 'strerror', None) or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {shorten(str(error), 200)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_scene(path: Path, scene: Scene) -> None:
    """Write a scene to its file, which is replaced as a whole.

    Raises:
        MobiledetError: It can't be written.
    """
    import yaml

    write_text(path, yaml.safe_dump(scene.plain(), default_flow_style=None, sort_keys=False, allow_unicode=True))


def _name(name: Any) -> str:
    text = str(name).strip()
    if not re.fullmatch(r"\w[\w .-]{0,39}", text):
        raise ConfigError(f"{shorten(str(name), 60)!r} is not a name of 1 to 40 letters, digits, spaces, . _ and -")
    return text


def _points(kind: str, name: Any, points: Any) -> tuple[Point, ...]:
    least, most = (2, 2) if kind == "line" else (3, MOST_CORNERS)
    if not isinstance(points, Sequence) or isinstance(points, str) or not least <= len(points) <= most:
        many = "two points" if kind == "line" else f"3 to {MOST_CORNERS} corners"
        raise ConfigError(f"the {kind} {str(name)!r} needs {many} [x, y]")
    for point in points:
        if not (
            isinstance(point, Sequence)
            and len(point) == 2
            and all(isinstance(side, int | float) and not isinstance(side, bool) and abs(side) < 1e5 for side in point)
        ):
            raise ConfigError(f"the {kind} {str(name)!r}: {shorten(repr(point), 40)} is not a point [x, y]")
    made = tuple((float(x), float(y)) for x, y in points)
    if kind == "line" and math.dist(*made) == 0:
        raise ConfigError(f"the line {str(name)!r} begins where it ends")
    if kind == "zone" and not abs(_area(made)) > 0:
        raise ConfigError(f"the zone {str(name)!r} has no area")
    return made


def _area(points: Sequence[Point]) -> float:
    following = zip(points, (*points[1:], points[0]), strict=True)
    return sum(x * b - a * y for (x, y), (a, b) in following) / 2
