"""Shared by all commands: logging, and the exit status; an error of the user's is reported in one line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from mobiledet.errors import MobiledetError, install_extra
from mobiledet.utils.processes import EXIT_SIGNAL

EXIT_ERROR = 1
"""Exit status when the input is at fault (argparse itself uses 2)."""

MOST_THREADS = 256
"""More would take minutes to start, and no machine this is made for has as many cores."""


def thread_count(text: str) -> int:
    """For ``argparse``: a number of processor threads, 0 for all cores."""
    if not text.isdecimal() or int(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is not a valid thread count; give 0 (all cores) to {MOST_THREADS}")
    return int(text)


def data_format(text: str) -> str:
    """For ``argparse``: the name of a data set format."""
    from mobiledet.data.formats.choose import format_names  # only once it is needed: help stays quick

    if text not in format_names():
        raise argparse.ArgumentTypeError(f"{text!r} isn't known; there are {', '.join(format_names())}")
    return text


def setup_logging(*, quiet: bool = False) -> None:
    """Send the package's log to stderr, plain lines for people."""
    # Libraries only warn: some of them report every step they take.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mobiledet").setLevel(logging.WARNING if quiet else logging.INFO)


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


def run_tool(main: Callable[[], int | None], *, extra: str = "train") -> NoReturn:
    """Run a command's ``main`` and exit with its status, or with 1 and one line on stderr for a mistake of the user's.

    A bug still shows its traceback, so that it can be reported.

    Args:
        main: The command; gives its exit status, or None for 0.
        extra: The extra in ``setup.py`` with the packages that the command needs beyond the base install.
    """
    setup_logging()
    try:
        status = main() or 0
        if sys.stdout is not None:  # closed by whoever started it
            sys.stdout.flush()
    except MobiledetError as error:
        print(f"error: {error}", file=sys.stderr)
        status = EXIT_ERROR
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = EXIT_SIGNAL + 2
    except BrokenPipeError:
        # `tools/cost.py ... | head` closes our output early; that is not an error.
        _silence()
        status = 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "mobiledet":
            raise
        print(
            f"error: the package {package!r} is not installed; get it with: {install_extra(extra)}",
            file=sys.stderr,
        )
        status = EXIT_ERROR
    except ImportError as error:
        # Usually OpenCV on a system without the libraries of a desktop.
        if "libGL" not in str(error) and "libgthread" not in str(error):
            raise
        print(
            f"error: OpenCV can't be loaded ({error}); on Debian: apt install libgl1 libglib2.0-0, "
            "or without windows: pip install --force-reinstall --no-deps opencv-python-headless",
            file=sys.stderr,
        )
        status = EXIT_ERROR
    sys.exit(status)
