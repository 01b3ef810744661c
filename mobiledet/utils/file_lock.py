"""A lock on an open file that the system drops when its holder dies."""

from __future__ import annotations

import errno
import sys

if sys.platform != "win32":
    import fcntl


def try_lock(handle: int) -> bool:
    """Take the lock on an open file, without waiting.

    Args:
        handle: The file's descriptor; closing it gives the lock back.

    Returns:
        False when somebody else holds it. True too where there are no such locks, on Windows and on some network
        drives: going on alone is the best there is.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
