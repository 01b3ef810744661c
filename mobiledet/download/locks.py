"""One process at a time: a lock that the system drops when its holder dies."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mobiledet.utils.file_lock import try_lock

logger = logging.getLogger(__name__)

_POLL = 0.1  # seconds between two looks; a blocking call could not be interrupted in a thread


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of a ``with``; wait while another process or thread holds it.

    The file is taken away again at the end. One left by a killed process holds nobody up.

    Args:
        path: the lock file; its folder must exist.
        waiting: what to log, once, when there is somebody to wait for.

    Raises:
        OSError: the file can't be made.
    """
    if sys.platform == "win32":  # no such locks: two processes that fetch the same file get in each other's way
        yield
        return
    handle = _acquire(path, waiting)
    try:
        yield
    finally:
        with suppress(OSError):  # while still locked: nobody holds a lock on a file that has no name any more
            path.unlink()
        os.close(handle)


def _acquire(path: Path, waiting: str) -> int:
    told = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not try_lock(handle):
                if not told:
                    logger.info("%s", waiting)
                    told = True
                time.sleep(_POLL)
            if _is_still(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder before us took the file away while we waited: start over with the new one


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
