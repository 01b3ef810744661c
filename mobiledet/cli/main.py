"""``mobiledet COMMAND``: which commands there are, and how one is found and run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from mobiledet.cli.common import Parser, UsageError, run_and_exit
from mobiledet.errors import need_extra
from mobiledet.utils.text import did_you_mean
from mobiledet.version import __version__


@dataclass(frozen=True)
class Command:
    """A command, whose module has ``add_arguments(parser)``, ``run(arguments)`` and, as its docstring, the help.

    Attributes:
        name: What the user types.
        summary: What it does, in one line.
        extra: The extra in ``setup.py`` without which it can do nothing; None where that depends on its arguments.
    """

    name: str
    summary: str
    extra: str | None = None

    @property
    def module(self) -> ModuleType:
        """Its module; importing it loads nothing heavy."""
        return import_module(f"mobiledet.cli.commands.{self.name.replace('-', '_')}")


COMMANDS = (
    Command("predict", "detect objects in images and videos"),
    Command("webcam", "detect live: camera, stream or video, in a window or a browser"),
    Command("check", "look at a data set before training on it", "train"),
    Command("train", "train a detector, or resume an interrupted run", "train"),
    Command("configs", "list the recipes that train takes by name"),
    Command("eval", "score a model: COCO mAP"),
    Command("export", "write a model as a file that runs without PyTorch", "export"),
    Command("benchmark", "measure how fast models are on this machine"),
    Command("cost", "count a recipe's multiply-adds and parameters", "train"),
    Command("weights", "list, fetch or import pretrained weights"),
    Command("convert", "write a VOC or YOLO data set as COCO"),
    Command("download-coco", "fetch COCO 2017"),
    Command("make-shapes", "make a data set of generated shapes"),
    Command("fps-card", "make one page of the reports of live runs"),
    Command("quickstart", "from nothing to a detector in five minutes", "train"),
)

_OVERVIEW = f"""usage: mobiledet COMMAND ...

Object detection around a MobileNetV1 backbone.

commands:
{{}}

mobiledet COMMAND --help shows examples and options. Version {__version__}.
"""


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the arguments name, and exit with its status."""
    words = sys.argv[1:] if words is None else words
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    first = words[0] if words else "--help"
    if first in ("-h", "--help", "help"):
        width = max(len(command.name) for command in COMMANDS)
        listed = "\n".join(f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS)
        _print_and_exit(_OVERVIEW.format(listed), 0 if words else 2)
    if first == "--version":
        _print_and_exit(f"mobiledet {__version__}", 0)
    names = [command.name for command in COMMANDS]
    if first not in names:
        near = did_you_mean(first, names, otherwise=f"there are {', '.join(names)}")
        print(f"mobiledet: no command {first!r}; {near}", file=sys.stderr)
        sys.exit(2)
    run_command(first, words[1:], prog=f"mobiledet {first}")


def _print_and_exit(text: str, status: int) -> NoReturn:
    def run() -> int:
        print(text)
        return status

    run_and_exit(run)


def run_command(name: str, words: Sequence[str] | None = None, *, prog: str | None = None) -> NoReturn:
    """Run one command and exit with its status.

    Args:
        name: Of the command.
        words: Its arguments; None takes those of this process.
        prog: What its help calls it; None takes the name of the program.
    """
    command = next(command for command in COMMANDS if command.name == name)

    def run() -> int | None:
        parser = Parser(prog=prog, description=command.module.__doc__)
        command.module.add_arguments(parser)
        try:
            arguments = parser.parse(sys.argv[1:] if words is None else words)
            if command.extra is not None:
                need_extra(command.extra)
            status: int | None = command.module.run(arguments)
        except UsageError as error:
            parser.error(str(error))
        return status

    run_and_exit(run, extra=command.extra or "train")


def _complete() -> None:
    """Answer the shell, which asks what the word being typed can become; needs the package argcomplete."""
    with suppress(ImportError):
        import argcomplete

        parser = Parser(prog="mobiledet")
        commands = parser.add_subparsers(parser_class=Parser)
        for command in COMMANDS:
            command.module.add_arguments(commands.add_parser(command.name, help=command.summary))
        argcomplete.autocomplete(parser)
