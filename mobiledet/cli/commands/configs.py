"""List the recipes that come with the package; train and cost take them by name.

    mobiledet configs
    mobiledet configs finetune_ssd > mine.py      # a copy to change

mobiledet train mine.py takes the changed one.
"""

from __future__ import annotations

import argparse

from mobiledet.utils.recipes import recipe_path, recipe_summary, recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("name", nargs="?", type=recipe_path, metavar="NAME", help="print this one")


def run(arguments: argparse.Namespace) -> None:
    """Print the list, or one recipe."""
    if arguments.name is not None:
        print(arguments.name.read_text(encoding="utf-8"), end="")
        return
    width = max(map(len, recipes()))
    for name, path in recipes().items():
        print(f"{name:<{width}}  {recipe_summary(path)}")
