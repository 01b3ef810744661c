"""Fetching one file over http: resumed where it stood, checked, and only then given its name.

What has come so far lies in ``<target>.part``; ``<target>.part.json`` beside it says what file and which version of
it that is. A part is continued only if the server says that its file is still the same (``If-Range``), or if a
checksum will tell.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from mobiledet.download.locks import locked
from mobiledet.download.part import Part
from mobiledet.download.remote import Remote, is_offline
from mobiledet.download.transfer import Interrupted, Transfer, Trouble
from mobiledet.errors import DownloadError, MissingDependencyError, install_extra

logger = logging.getLogger(__name__)

_BACKOFF = 1.0  # seconds before the second try; doubled for each one after
_LONGEST_WAIT = 60.0  # seconds
_HEADWAY = 1 << 20  # bytes that make a broken try one that went well: a big file may take more breaks than tries


def fetch(
    remote: Remote,
    target: Path,
    *,
    what: str,
    by_hand: str | None = None,
    timeout: float = 20.0,
    attempts: int = 4,
    progress: bool = True,
) -> Path:
    """Get a file, unless it is there already.

    A broken transfer goes on from where it stood, in this call or in a later one. When two processes want the same
    file, one waits for the other. Proxies are taken from the environment; with ``MOBILEDET_OFFLINE=1`` nothing is
    tried.

    Args:
        remote: the file on the server.
        target: where it is to lie; its folder is made.
        what: what it is, for messages: "the ImageNet weights" for instance.
        by_hand: what else there is to know for those who place the file by hand.
        timeout: seconds to wait for a connection, and for the next bytes.
        attempts: tries in a row that may fail.
        progress: show a bar, if standard error is a terminal.

    Returns:
        ``target``.

    Raises:
        DownloadError: it can't be had; one line that says why, and how to place the file by hand. Also if
            ``target`` is there and is another file: it is left as it is.
        MissingDependencyError: requests isn't installed.
    """
    target = Path(target)
    trouble = Trouble(remote, target, what, by_hand)
    if os.path.lexists(target):
        return _accept(remote, target, what)
    if is_offline():
        raise trouble.error("MOBILEDET_OFFLINE is set")
    try:
        import requests  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"fetching {what} needs requests: {install_extra('train')}; or save {remote.address} as {target.absolute()}"
        ) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), f"{what}: another process is fetching it; waiting"):
            if os.path.lexists(target):
                return _accept(remote, target, what)
            _fetch(Transfer(remote, Part(target, remote), trouble, timeout, progress), attempts)
    except OSError as error:
        raise trouble.local(error) from error
    return target


def _accept(remote: Remote, target: Path, what: str) -> Path:
    if not target.is_file():
        raise DownloadError(f"{target} is in the way of {what}: it is not a file; move it away")
    fault = remote.fault(target)
    if fault:
        raise DownloadError(
            f"{target} is there, but is not {what} of {remote.address}: {fault}; move it away to have it fetched"
        )
    return target


def _fetch(transfer: Transfer, attempts: int) -> None:
    """Try until the whole file is there, then check it; a wrong one is fetched once more, from its beginning."""
    part, trouble = transfer.part, transfer.trouble
    try:
        with transfer:
            part.refuse_foreign()
            _receive_all(transfer, attempts)
            fault = transfer.fault()
            if fault is not None:
                logger.info("%s: %s; fetching it once more", trouble.what, fault)
                part.discard()
                _receive_all(transfer, attempts)
                fault = transfer.fault()
            if fault is not None:
                part.discard()
                raise trouble.error(f"what the server sends is another file: {fault}")
        part.finish()
    except KeyboardInterrupt:
        with suppress(OSError):
            logger.info("%s: stopped; what has come is kept, the next start goes on from there", trouble.what)
        raise


def _receive_all(transfer: Transfer, attempts: int) -> None:
    failures, furthest = 0, transfer.part.length()
    while True:
        try:
            transfer.receive()
            return
        except Interrupted as stop:  # noqa: PERF203 -- a handful of times
            length = transfer.part.length()
            failures = 1 if length >= furthest + _HEADWAY else failures + 1
            furthest = max(furthest, length)
            wait = max(_BACKOFF * 2 ** (failures - 1), stop.wait)
            if failures >= attempts or not stop.worth_it:
                tries = f" ({failures} tries)" if failures > 1 else ""
                kept = "; what has come is kept, the next start goes on from there" if length else ""
                raise transfer.trouble.error(f"{stop}{tries}{kept}") from stop
            if stop.wait > _LONGEST_WAIT:
                raise transfer.trouble.error(f"{stop}, and to come back in {stop.wait:g} s") from stop
            wait = min(wait, _LONGEST_WAIT)
            logger.info("%s: %s; trying again in %.3g s", transfer.trouble.what, stop, wait)
            time.sleep(wait)
