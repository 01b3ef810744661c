"""The recipes that come with the package: found by name, from any folder, without loading what they need."""

from __future__ import annotations

import ast
from pathlib import Path

from mobiledet.errors import ConfigError
from mobiledet.utils.files import nearby
from mobiledet.utils.text import did_you_mean, listing

_PACKAGE = Path(__file__).resolve().parents[1]


def recipes() -> dict[str, Path]:
    """Name -> file of each recipe: those beside the package in a checkout, those inside it where it is installed."""
    folder = _PACKAGE / "configs"
    folder = folder if folder.is_dir() else _PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def recipe_path(path_or_name: str | Path) -> Path:
    """The config file meant: a path, or the name of a recipe.

    Raises:
        ConfigError: There is neither; says what was probably meant, or what there is.
    """
    path, known = Path(path_or_name), recipes()
    if path.is_file():
        return path
    if str(path_or_name) in known:
        return known[str(path_or_name)]
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder; name a recipe and give it as its data: mobiledet train finetune_ssd data.root={path}"
        )
    if path.parent.is_dir() and path.parent.name:  # a file of the user's was meant
        raise ConfigError(f"no config {str(path)!r}{nearby(path)}")
    choices = [*known, *map(str, Path().glob("*.py"))]
    near = did_you_mean(
        path.stem if path.parent.name else path.name, choices, otherwise=f"there are {listing(known, 20)}"
    )
    raise ConfigError(f"no config {str(path_or_name)!r}, neither a file nor a recipe: {near}")


def recipe_summary(path: Path) -> str:
    """The first line of a recipe's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")
