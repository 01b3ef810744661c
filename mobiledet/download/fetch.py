"""Fetching one file over http: resumed where it stopped, checked, and only then given its name.

What has come so far lies in ``<target>.part``; the notes ``<target>.part.json`` beside it say what file and which
version of it that is. A part is continued only if the server confirms that its file is still the same (``If-Range``),
or if a checksum will show it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mobiledet.errors import DownloadError, MissingDependencyError, install_extra
from mobiledet.utils.files import check_space, file_digest, locked, replacing, sync
from mobiledet.utils.progress import bytes_bar
from mobiledet.utils.text import readable_size

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Tries in a row that may fail."""

BACKOFF = 1.0
"""Seconds before the second try; doubled for each one after it."""

HEADWAY = 1 << 20
"""Bytes after which a broken try counts as a good one: a large file may take more breaks than tries."""

_LONGEST_WAIT = 60.0  # seconds
_BLOCK = 1 << 16  # bytes; at most this many are lost when a connection breaks
_LARGE = 1 << 28  # bytes whose checksum takes long enough to announce it
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_INVALID = "the address is not a valid http or https address"
_KEPT = "what has come is kept, the next start continues from there"


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        url: Its address, http or https.
        size: Bytes, if known.
        sha256: Checksum in hexadecimal, if known.
        md5: The same, for files whose publisher gives nothing better.
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def checksum(self) -> str | None:
        """What identifies its content, if known."""
        return self.sha256 or self.md5

    @property
    def address(self) -> str:
        """The address as it may be shown: without user name, password, query and fragment, which may be secret."""
        try:
            parts = urlsplit(self.url)
        except ValueError:  # for example an IPv6 address without its bracket
            return "an invalid address"
        if not parts.scheme:
            return parts.path or "an empty address"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def fault(self, path: Path) -> str | None:
        """Why ``path``, which is read whole if there is a checksum, isn't this file; None if it may be.

        Raises:
            OSError: It can't be read.
        """
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size:,} bytes, not {self.size:,}"
        for name, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected is not None and (found := file_digest(path, name)) != expected.lower():
                return f"its {name} is {found}, not {expected.lower()}"
        return None


def fetch(
    remote: Remote,
    target: Path,
    *,
    what: str,
    by_hand: str | None = None,
    timeout: float = 20.0,
    progress: bool = True,
) -> Path:
    """Get a file, unless it is there already.

    A broken transfer continues from where it stopped, in this call or in a later one. When two processes want the same
    file, one waits for the other. Proxies are taken from the environment; with ``MOBILEDET_OFFLINE=1`` nothing is
    tried.

    Args:
        remote: The file on the server.
        target: Where to save it; its folder is made.
        what: What it is, for messages: "the ImageNet weights" for instance.
        by_hand: What else to know for those who install the file manually.
        timeout: Seconds to wait for a connection, and for the next bytes.
        progress: Show a bar, if standard error is a terminal.

    Returns:
        ``target``.

    Raises:
        DownloadError: It can't be fetched; one line that says why, and how to install the file manually. Also if
            ``target`` exists and is another file: it is left as it is.
        MissingDependencyError: requests isn't installed.
    """
    target = Path(target)
    part = _Part(target, remote, what, by_hand)
    if part.is_finished():
        return target
    if os.environ.get("MOBILEDET_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off"):
        raise part.error("MOBILEDET_OFFLINE is set")
    try:
        import requests
    except ImportError as error:
        raise MissingDependencyError(
            f"fetching {what} needs requests: {install_extra('train')}; or save {remote.address} as {target.absolute()}"
        ) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), f"{what}: another process is fetching it; waiting"):
            if not part.is_finished():
                part.load()
                with requests.Session() as session:
                    _Transfer(part, session, timeout, progress).complete()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        remedy = "free some space, what has come is kept" if full else "correct that, or name another folder"
        reason = error.strerror or type(error).__name__
        raise DownloadError(f"{what} can't be written to {target.parent.absolute()}: {reason}; {remedy}") from error
    except KeyboardInterrupt:
        with suppress(OSError):
            logger.info("%s: stopped; %s", what, _KEPT)
        raise
    return target


class _Interrupted(Exception):  # noqa: N818 -- not an error yet: another try may succeed
    """A try that failed in a way that another may not; ``wait`` is how many seconds the server asks to wait."""

    def __init__(self, why: str, *, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(why)
        self.again = again
        self.wait = wait


class _Part:
    """What has come of a file, and the notes about it.

    Attributes:
        path: ``<target>.part``.
        validator: What the server calls this version of its file (ETag or date of change), for ``If-Range``.
        total: Bytes of the whole file as the server reported; None if it didn't.
    """

    def __init__(self, target: Path, remote: Remote, what: str, by_hand: str | None) -> None:
        self.target, self.remote, self.what = target, remote, what
        self.path = target.with_name(f"{target.name}.part")
        self.validator: str | None = None
        self.total: int | None = None
        self._notes = target.with_name(f"{target.name}.part.json")
        # Not the address as it is: it may hold secrets.
        self._url = hashlib.sha256(remote.url.encode("utf-8", "surrogatepass")).hexdigest()
        self._by_hand = f"; {by_hand}" if by_hand else ""

    def error(self, why: str) -> DownloadError:
        """The error for a file that can't be fetched."""
        return DownloadError(
            f"{self.what} can't be fetched: {why}; to install it manually, download {self.remote.address} and save it "
            f"as {self.target.absolute()}{self._by_hand}"
        )

    def is_finished(self) -> bool:
        """Whether the file is there under its own name.

        Raises:
            DownloadError: Something else has that name.
        """
        if not os.path.lexists(self.target):
            return False
        if not self.target.is_file():
            raise DownloadError(f"{self.target} is in the way of {self.what}: it is not a file; move it away")
        try:
            fault = self.remote.fault(self.target)
        except OSError as error:
            raise DownloadError(
                f"{self.target} can't be read: {error.strerror}; correct that or move it away"
            ) from error
        if fault:
            raise DownloadError(
                f"{self.target} exists, but is not {self.what} of {self.remote.address}: {fault}; move it away to "
                "have it fetched"
            )
        return True

    def length(self) -> int:
        """Bytes that have come."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def load(self) -> None:
        """Find the part of an earlier call; one that can't be continued is deleted.

        Raises:
            DownloadError: The part has no notes, so it is somebody else's: browsers call theirs ``.part``, too.
        """
        if os.path.lexists(self.path) and not (self.path.is_file() and self._notes.is_file()):
            raise DownloadError(f"{self.path} is in the way and was not left by an earlier call; move it away")
        if not self._notes.exists():
            return
        try:
            notes = json.loads(self._notes.read_text("utf-8"))
        except (ValueError, RecursionError):
            notes = None
        notes = notes if isinstance(notes, dict) else {}
        validator, total = notes.get("validator"), notes.get("total")
        same_server = notes.get("url") == self._url
        self.validator = validator if same_server and isinstance(validator, str) else None
        self.total = total if type(total) is int else None
        # With a checksum, any server may send the rest; without one, only the same version of the same file will do.
        usable = notes.get("content", "") == self.remote.checksum
        if not usable or (self.remote.checksum is None and self.validator is None):
            self.discard()

    def start(self, validator: str | None, total: int | None) -> None:
        """Begin an empty part of a certain version of the file."""
        self.discard()
        self.validator, self.total = validator, total
        notes = {"url": self._url, "content": self.remote.checksum, "validator": validator, "total": total}
        with replacing(self._notes) as temporary:  # the notes come first: a part without them is somebody else's
            temporary.write_text(json.dumps(notes), "utf-8")
        self.path.touch()

    def discard(self) -> None:
        """Delete the part and its notes."""
        self.validator = self.total = None
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its name, once its content is on the disk.

        Raises:
            DownloadError: Meanwhile something else has that name.
        """
        sync(self.path)
        if os.path.lexists(self.target):
            raise DownloadError(f"{self.target} was made by somebody else meanwhile; move it away and start again")
        self.path.replace(self.target)
        with suppress(OSError):  # a name that isn't on the disk is at worst fetched again
            sync(self.target.parent)
        self._notes.unlink(missing_ok=True)


class _Transfer:
    """Requests for one file, of which ``part`` is what has come so far."""

    def __init__(self, part: _Part, session: requests.Session, timeout: float, progress: bool) -> None:
        self.part = part
        self._is_page = False
        self.bar = bytes_bar(part.what, part.remote.size, done=part.length(), show=progress)
        self._session = session
        self._timeout = timeout
        self._answered = False

    def complete(self) -> None:
        """Try until the whole file is there, then check it; a wrong one is fetched once more, from its beginning."""
        part = self.part
        with self.bar:
            for is_last in (False, True):
                self._receive_all()
                if part.remote.checksum and part.length() > _LARGE:
                    logger.info("%s: checking it", part.what)
                fault = part.remote.fault(part.path)
                if fault is None:
                    return part.finish()
                part.discard()
                fault += " (it is a web page: of a login or a proxy?)" if self._is_page else ""
                if is_last:
                    raise part.error(f"what the server sends is another file: {fault}")
                logger.info("%s: %s; fetching it once more", part.what, fault)

    def _receive_all(self) -> None:
        part = self.part
        failures, furthest = 0, part.length()
        while (stop := self._receive()) is not None:
            length = part.length()
            failures = 1 if length >= furthest + HEADWAY else failures + 1
            furthest = max(furthest, length)
            if failures >= ATTEMPTS or not stop.again:
                tries = f" ({failures} tries)" if failures > 1 else ""
                raise part.error(f"{stop}{tries}{f'; {_KEPT}' if length else ''}") from stop
            if stop.wait > _LONGEST_WAIT:
                raise part.error(f"{stop}, and asks to come back in {stop.wait:g} s") from stop
            wait = min(max(BACKOFF * 2 ** (failures - 1), stop.wait), _LONGEST_WAIT)
            logger.info("%s: %s; trying again in %.3g s", part.what, stop, wait)
            time.sleep(wait)

    def _receive(self) -> _Interrupted | None:
        """Get what is missing, with one request; what interrupted it is returned, if another try may succeed."""
        import requests
        from urllib3.exceptions import HTTPError

        part, size = self.part, self.part.remote.size
        if size is not None:
            if part.length() > size:
                part.discard()
            if part.length() == size:
                return None
            check_space(part.target.parent, size - part.length(), part.what)
        have = part.length()
        # Not compressed on its way: counts and ranges are of the bytes of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": "mobiledet"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if part.validator:
                headers["If-Range"] = part.validator
        try:
            with self._session.get(part.remote.url, headers=headers, stream=True, timeout=self._timeout) as response:
                self._answered = True
                if self._begin(response, have):
                    self._copy(response)
        except _Interrupted as stop:
            return stop
        except (requests.RequestException, HTTPError, ValueError) as error:  # ValueError: addresses that are invalid
            why, again = _explain(error, self._timeout)
            if again is None:
                raise part.error(why) from error
            return _Interrupted(why, again=again or self._answered)
        return None

    def _begin(self, response: requests.Response, have: int) -> bool:
        """Judge the answer and make the part ready for its body; False if nothing is missing."""
        status, part = response.status_code, self.part
        answer = f"the server answers {status} {responses.get(status, '')}".rstrip()
        if status in _TEMPORARY:
            asked = _number(response.headers.get("Retry-After", ""))  # a date, which is allowed, too, counts as nothing
            raise _Interrupted(answer, wait=asked or 0)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _total(response) == have and part.remote.size in (None, have):
                return False
            self._start_over("what came earlier doesn't fit the server's file any more")
        if status == HTTPStatus.PARTIAL_CONTENT:
            self._continue(response, have)
        elif status == HTTPStatus.OK:
            self._start(response, have)
        else:
            raise part.error(answer)
        if part.total is not None:
            check_space(part.target.parent, part.total - part.length(), part.what)
            self.bar.total = part.total
        return True

    def _continue(self, response: requests.Response, have: int) -> None:
        """The rest of the file."""
        part = self.part
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not have or match is None or int(match[1]) != have:
            self._start_over("the server sends another part of the file than was asked for")
        validator, total = _validator(response), _total(response)
        known = part.total if part.remote.size is None else part.remote.size
        changed = validator is not None and part.validator is not None and validator != part.validator
        if changed or (total is not None and known is not None and total != known):
            self._start_over("the file has changed on the server")
        part.total = known if total is None else total

    def _start(self, response: requests.Response, have: int) -> None:
        """The whole file from its beginning: first try, or a server that can't or won't continue."""
        part, remote = self.part, self.part.remote
        name = part.target.name.lower()
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._is_page = kind in ("text/html", "application/xhtml+xml")
        page = " (a web page: of a login or a proxy?)" if self._is_page else ""
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding != "identity" and not name.endswith((".gz", ".tgz")):
            raise part.error("the server compresses it on its way, which was not asked for")
        total = _number(response.headers.get("Content-Length", ""))
        if total is not None and remote.size is not None and total != remote.size:
            raise part.error(f"the server has another file: {total:,} bytes{page} instead of {remote.size:,}")
        if total == 0:
            raise part.error("the server sends an empty file")
        if self._is_page and (have or not remote.checksum) and not name.endswith((".html", ".htm", ".xhtml")):
            raise part.error("the server sends a web page instead of the file (a login or a proxy?)")
        if have:
            logger.info("%s: the server starts from the beginning", part.what)
        part.start(_validator(response), remote.size if total is None else total)

    def _start_over(self, why: str) -> None:
        self.part.discard()
        raise _Interrupted(f"{why}; starting over")

    def _copy(self, response: requests.Response) -> None:
        have, total = self.part.length(), self.part.total
        self.bar.update(have - self.bar.n)
        with self.part.path.open("ab") as stream:
            for block in response.raw.stream(_BLOCK, decode_content=False):
                stream.write(block)
                stream.flush()  # what has come is on the disk, whatever comes next
                have += len(block)
                if total is not None and have > total:
                    break
                self.bar.update(len(block))
        if total is not None and have > total:
            self._start_over(f"the server sends more than the {total:,} bytes it announced")
        if total is not None and have < total:
            raise _Interrupted(f"the connection ended after {readable_size(have)} of {readable_size(total)}")
        if not have:
            raise self.part.error("the server sends an empty file")


def _explain(error: BaseException, timeout: float) -> tuple[str, bool | None]:
    """Why a request failed, and whether to try again.

    The libraries' own messages repeat the whole address, secrets included, so none of their text is passed on.

    Returns:
        A few words; and True, False (only if the server was seen to work: without a network nobody wants to wait for
        the fourth refusal) or None (never).
    """
    from requests.exceptions import ConnectTimeout, ProxyError, ReadTimeout, SSLError, TooManyRedirects
    from urllib3.exceptions import ConnectTimeoutError, LocationParseError, ReadTimeoutError

    chain = list(_chain(error))
    certificate = next((link.verify_message for link in chain if isinstance(link, ssl.SSLCertVerificationError)), "")
    reasons: list[tuple[tuple[type[BaseException], ...], str, bool | None]] = [
        ((ProxyError,), "the proxy named by HTTP_PROXY or HTTPS_PROXY can't be used", False),
        ((ssl.SSLCertVerificationError,), f"the server's certificate is not valid ({certificate})", None),
        ((ssl.SSLError, SSLError), "no secure connection (TLS) can be made", False),
        ((socket.gaierror,), "the server's name can't be resolved (is there a network?)", False),
        ((ConnectionRefusedError,), "the server refuses the connection", False),
        ((ConnectTimeoutError, ConnectTimeout), f"no connection within {timeout:g} s", False),
        ((ReadTimeoutError, ReadTimeout, TimeoutError), f"nothing came for {timeout:g} s", True),
        ((TooManyRedirects,), "the server redirects in circles", None),
        ((LocationParseError, UnicodeError), _INVALID, None),
    ]
    for kinds, why, again in reasons:
        if any(isinstance(link, kinds) for link in chain):
            return why, again
    if any(getattr(link, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN) for link in chain):
        return "the server can't be reached (is there a network?)", False
    # InvalidURL, InvalidSchema and their like are ValueErrors.
    return (_INVALID, None) if isinstance(error, ValueError) else ("the connection broke", True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception with all that it wraps; urllib3 keeps the cause in ``reason`` or among the arguments."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        link = todo.pop()
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            todo += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and text.isascii() else None


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file by ``Content-Range``, if reported."""
    return _number(response.headers.get("Content-Range", "").rpartition("/")[2])


def _validator(response: requests.Response) -> str | None:
    """What to put into ``If-Range``: a strong ETag, else the date of change (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "").strip() or None
