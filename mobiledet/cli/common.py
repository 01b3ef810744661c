"""Shared by all commands: the parser, kinds of arguments, logging, and how a command ends."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mobiledet.errors import ConfigError, MobiledetError, OtherProcessError, install_extra
from mobiledet.utils.addresses import is_address, without_user
from mobiledet.utils.files import nearby, refuse_existing
from mobiledet.utils.processes import EXIT_SIGNAL, process_rank
from mobiledet.utils.text import did_you_mean, printable

if TYPE_CHECKING:
    from mobiledet.utils.settings import ReadingConfig

EXIT_ERROR = 1
"""Exit status when the input is at fault (argparse itself uses 2)."""

MOST_THREADS = 256  # more would take minutes to start


class UsageError(Exception):
    """Arguments that don't go together; ends a command like argparse's own errors, with status 2."""


class Parser(argparse.ArgumentParser):
    """The parser of every command: shows the command's docstring as it stands, and guesses what a typo was meant as."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Read the words, options and others in any order; exits with status 2 where they can't be understood."""
        if self._subparsers is not None:
            return self.parse_args(words)
        arguments, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            near = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(map(without_user, unknown))}{near and f'; {near}'}")
        return arguments


def thread_count(text: str) -> int:
    """For ``argparse``: a number of processor threads, 0 for all cores."""
    if not text.isdecimal() or int(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is not a valid thread count; give 0 (all cores) to {MOST_THREADS}")
    return int(text)


def at_least(least: int) -> Callable[[str], int]:
    """For ``argparse``: a whole number that is not below ``least``."""

    def number(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
        return int(text)

    return number


def fraction(text: str) -> float:
    """For ``argparse``: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction between 0 and 1")
    return value


def image_size(text: str) -> tuple[int, int]:
    """For ``argparse``: height and width in pixels, such as 480x640; one number stands for both."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a HEIGHTxWIDTH, for example 160x200")
    return int(parts[0]), int(parts[-1])


def data_format(text: str) -> str:
    """For ``argparse``: the name of a data set format."""
    from mobiledet.data.formats.choose import format_names  # only once it is needed: help stays quick

    if text not in format_names():
        raise argparse.ArgumentTypeError(f"{text!r} isn't known; there are {', '.join(format_names())}")
    return text


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What commands take that read data sets in foreign formats; for `reading_of`."""
    parser.add_argument(
        "--reading",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="answer to a question about the labels, such as rows=box; data.reading.KEY in training",
    )


def reading_of(arguments: argparse.Namespace) -> ReadingConfig:
    """What was decided about the labels.

    Raises:
        ConfigError: There is no such key, or its value doesn't fit.
    """
    from mobiledet.utils.settings import ReadingConfig

    if not arguments.reading:
        return ReadingConfig()
    from mobiledet.config import Config, apply_overrides

    return apply_overrides(Config(), [f"data.reading.{word}" for word in arguments.reading]).data.reading


def model(text: str) -> str:
    """For ``argparse``: an exported file, a checkpoint, a run folder or a name; looked for before torch is loaded.

    Raises:
        MobiledetError: There is none; says what is nearby.
    """
    from mobiledet.weights.catalogue import find_source, no_such_model

    if not _exists(text) and find_source(text) is None:
        raise no_such_model(text)
    return text


def add_labels(parser: argparse.ArgumentParser) -> None:
    """What commands take that run models: ``--labels``."""
    parser.add_argument(
        "--labels",
        type=existing,
        metavar="FILE",
        help="class names of a .tflite file that mobiledet didn't write: one a line, or numbered",
    )


def recipe(text: str) -> str:
    """For ``argparse``: a recipe's name or a config file.

    Raises:
        ConfigError: There is neither.
    """
    from mobiledet.utils.recipes import recipe_path

    recipe_path(text)
    return text


def existing(text: str) -> Path:
    """For ``argparse``: a file or folder that is there.

    Raises:
        MobiledetError: It isn't; says what is nearby.
    """
    path = Path(text)
    if is_address(text):
        raise MobiledetError(f"{without_user(text)} is an address; download it, and name the file")
    if not _exists(text):
        raise MobiledetError(f"{path} doesn't exist{nearby(path)}")
    return path


def new_file(text: str) -> Path:
    """For ``argparse``: a file to write; `refuse_existing` says why not, before hours of work."""
    refuse_existing(Path(text))
    return Path(text)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # a name too long for the file system
        return False


def print_lines(lines: Iterable[str]) -> None:
    """Print lines; if nobody reads them any more, as after a terminal was closed, the program goes on all the same."""
    try:
        for line in lines:
            print(line)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _silence()


def _silence() -> None:
    """Discard whatever is printed from now on; otherwise Python would try again when it exits, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def setup_logging() -> None:
    """Send the package's log to stderr, plain lines for people."""
    # Libraries only warn: some of them report every step they take. So do all but the first of several processes.
    rank = _rank()
    prefix = f"process {rank}: " if rank else ""
    logging.basicConfig(level=logging.WARNING, format=f"{prefix}%(message)s", stream=sys.stderr)
    logging.getLogger("mobiledet").setLevel(logging.WARNING if rank else logging.INFO)


def _rank() -> int:
    """Number of this process among those that train together; 0 where the environment makes no sense."""
    with contextlib.suppress(ConfigError):  # training reports that
        return process_rank()[0]
    return 0


def run_and_exit(main: Callable[[], int | None], *, extra: str = "train") -> NoReturn:
    """Run a command and exit with its status, or with 1 and one line on stderr for a mistake of the user's.

    A bug still shows its traceback, so that it can be reported.

    Args:
        main: The command; gives its exit status, or None for 0.
        extra: The extra in ``setup.py`` with the packages that the command needs beyond the base install.
    """
    setup_logging()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A class name or path that the console or pipe can't show must not cost a finished command its last words.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main() or 0
        if sys.stdout is not None:  # closed by whoever started it
            sys.stdout.flush()
    except OtherProcessError:
        status = EXIT_ERROR  # the other says why
    except MobiledetError as error:
        status = _report(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = EXIT_SIGNAL + 2
    except BrokenPipeError:
        # `mobiledet cost ... | head` closes our output early; that is not an error.
        _silence()
        status = 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "mobiledet":
            raise
        status = _report(f"the package {package!r} is not installed; get it with: {install_extra(extra)}")
    except ImportError as error:
        # Usually OpenCV on a system without the libraries of a desktop.
        if "libGL" not in str(error) and "libgthread" not in str(error):
            raise
        status = _report(
            f"OpenCV can't be loaded ({error}); on Debian: apt install libgl1 libglib2.0-0, "
            "or without windows: pip install --force-reinstall --no-deps opencv-python-headless"
        )
    sys.exit(status)


def _report(error: object) -> int:
    rank = _rank()
    lines = (printable(line) for line in str(error).split("\n"))  # which may quote a file of anybody's
    print(f"{f'process {rank}: ' if rank else ''}error:", "\n".join(lines), file=sys.stderr)
    return EXIT_ERROR
