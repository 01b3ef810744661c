"""Fetching one file over http: resumed where it stopped, checked, and only then given its name.

What has come so far lies in ``<target>.part``; the notes ``<target>.part.json`` beside it say which version of which
file that is. A part is continued only if the server confirms that its file is still the same (``If-Range``), or if a
checksum will show it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from mobiledet.errors import DownloadError, MissingDependencyError, SourceError
from mobiledet.utils.addresses import http_request, without_user
from mobiledet.utils.files import check_space, file_digest, locked, sync, write_json
from mobiledet.utils.progress import bytes_bar

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Tries in a row that may fail."""

BACKOFF = 1.0
"""Seconds before the second try; doubled for each one after it."""

HEADWAY = 1 << 20
"""Bytes after which a broken try counts as a good one: a large file may take more breaks than tries."""

MOST = 1 << 30
"""Bytes of a file whose size isn't known."""

_LONGEST_WAIT = 60.0  # seconds
_BLOCK = 1 << 16  # bytes; at most this many are lost when a connection breaks
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_KEPT = "what has come is kept, the next start continues from there"
_PAGE = " (a web page: of a login or a proxy?)"

Check: TypeAlias = Callable[[Path], str | None]


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        url: Its address, http or https.
        size: Bytes, if known.
        sha256: Checksum in hexadecimal, if known.
        md5: The same, for files whose publisher gives nothing better.
        most: Bytes beyond which it is refused, where the size isn't known.
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    most: int = MOST

    @property
    def checksum(self) -> str | None:
        """What identifies its content, if known."""
        return self.sha256 or self.md5

    @property
    def address(self) -> str:
        """The address as it may be shown: without user name, password, query and fragment, which may be secret."""
        try:
            parts = urlsplit(without_user(self.url))
        except ValueError:  # for example an IPv6 address without its bracket
            return "an invalid address"
        if not parts.scheme:
            return parts.path or "an empty address"
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    @property
    def file_name(self) -> str:
        """The last part of its address."""
        return urlsplit(self.url).path.rpartition("/")[2]

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
    check: Check | None = None,
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
        check: Says why a file that has come whole isn't what it should be; None if it is. For files without a checksum.

    Returns:
        ``target``.

    Raises:
        DownloadError: It can't be fetched; one line that says why, and how to install the file manually. Also if
            ``target`` exists and is another file: it is left as it is.
        MissingDependencyError: requests isn't installed.
    """
    target = Path(target)
    transfer = _Transfer(remote, target, what, f"; {by_hand}" if by_hand else "", timeout, check)
    if transfer.is_finished():
        return target
    if _is_offline():
        raise transfer.error("MOBILEDET_OFFLINE is set")
    try:
        import requests  # noqa: F401 -- looked for before anything is made
    except ImportError as error:
        raise MissingDependencyError(
            f"fetching {what} needs requests: pip install requests; or save {remote.address} as {target.absolute()}"
        ) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), f"{what}: another process is fetching it; waiting"):
            if not transfer.is_finished():
                transfer.run(progress)
    except OSError as error:
        remedy = "free some space, what has come is kept" if error.errno == errno.ENOSPC else "or name another folder"
        reason = error.strerror or type(error).__name__
        raise DownloadError(f"{what} can't be written to {target.parent.absolute()}: {reason}; {remedy}") from error
    except KeyboardInterrupt:
        logger.info("%s: stopped; %s", what, _KEPT)
        raise
    return target


def fetch_bytes(url: str, *, most: int = 1 << 28, timeout: float = 20.0) -> bytes:
    """The content of a small file on a server, an image for instance; needs no requests.

    Args:
        url: Its address, http or https.
        most: Bytes beyond which it is refused.
        timeout: Seconds to wait for a connection, and for the next bytes.

    Raises:
        DownloadError: It can't be fetched.
    """
    import http.client  # here: these take as long to load as the rest of a small program
    import urllib.error
    import urllib.request

    address = Remote(url).address
    if _is_offline():
        raise DownloadError(f"{address} can't be fetched: MOBILEDET_OFFLINE is set; download it and name the file")
    try:
        with urllib.request.urlopen(http_request(url), timeout=timeout) as response:
            data: bytes = response.read(most + 1)
    except SourceError as error:
        raise DownloadError(str(error)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = (
            f"the server answers {error.code}"
            if isinstance(error, urllib.error.HTTPError)
            else "the server can't be reached"
        )
        raise DownloadError(f"{address} can't be fetched: {reason}; download it and name the file") from error
    if len(data) > most:
        raise DownloadError(f"{address} has more than {most:,} bytes; download it and name the file")
    return data


def _is_offline() -> bool:
    return os.environ.get("MOBILEDET_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


class _Interrupted(Exception):  # noqa: N818 -- not an error yet: another try may succeed
    """A try that failed in a way that another may not; ``wait`` is how many seconds the server asks to wait."""

    def __init__(self, why: str, *, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Transfer:
    """One file on its way: what has come of it, the notes about that, and the requests for the rest."""

    def __init__(
        self, remote: Remote, target: Path, what: str, by_hand: str, timeout: float, check: Check | None
    ) -> None:
        self.remote, self.target, self.what, self._check = remote, target, what, check
        self._by_hand, self._timeout = by_hand, timeout
        self._part = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        # What the part is of. Not the address as it is: it may hold secrets.
        url = hashlib.sha256(remote.url.encode("utf-8", "surrogatepass")).hexdigest()
        self._content = remote.checksum or url
        self._validator: str | None = None  # what the server calls this version of the file: ETag or date of change
        self._answered = False
        self._is_page = False

    def error(self, why: str) -> DownloadError:
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
        try:
            fault = self.remote.fault(self.target) if self.target.is_file() else "it is not a file"
        except OSError as error:
            fault = f"it can't be read: {error.strerror}"
        if fault:
            raise DownloadError(
                f"{self.target} exists, but is not {self.what} of {self.remote.address}: {fault}; move it away to "
                "have it fetched"
            )
        return True

    def run(self, progress: bool) -> None:
        """Try until the whole file is there and right, then give it its name."""
        self._find_part()
        failures, furthest, was_wrong = 0, self._length(), False
        with bytes_bar(self.what, self.remote.size, done=furthest, show=progress) as bar:
            while True:
                try:
                    self._receive(bar)
                    fault = self.remote.fault(self._part) or (self._check and self._check(self._part))
                    if not fault:
                        break
                    self._discard()
                    fault = f"what the server sends is another file: {fault}{_PAGE if self._is_page else ''}"
                    if was_wrong:
                        raise self.error(fault)
                    was_wrong = True
                    raise _Interrupted(fault)
                except _Interrupted as stop:
                    length = self._length()
                    failures = 1 if length >= furthest + HEADWAY else failures + 1
                    furthest = max(furthest, length)
                    # Without a network nobody wants to wait for the fourth refusal.
                    if failures >= ATTEMPTS or not self._answered or stop.wait > _LONGEST_WAIT:
                        later = f", and asks to come back in {stop.wait:g} s" if stop.wait > _LONGEST_WAIT else ""
                        tries = f" ({failures} tries)" if failures > 1 else ""
                        raise self.error(f"{stop}{later}{tries}{f'; {_KEPT}' if length else ''}") from stop
                    wait = min(max(BACKOFF * 2 ** (failures - 1), stop.wait), _LONGEST_WAIT)
                    logger.info("%s: %s; trying again in %.3g s", self.what, stop, wait)
                    time.sleep(wait)
        sync(self._part)
        if os.path.lexists(self.target):
            raise DownloadError(f"{self.target} was made by somebody else meanwhile; move it away and start again")
        self._part.replace(self.target)
        self._notes.unlink(missing_ok=True)

    def _length(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _find_part(self) -> None:
        """Take up the part of an earlier call; one that can't be continued is deleted.

        Raises:
            DownloadError: The part has no notes, so it is somebody else's: browsers call theirs ``.part``, too.
        """
        ours = self._part.is_file() and self._notes.is_file() and not self._part.is_symlink()
        if os.path.lexists(self._part) and not ours:
            raise DownloadError(f"{self._part} is in the way and was not left by an earlier call; move it away")
        with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            notes = json.loads(self._notes.read_text("utf-8"))
            # With a checksum any server may send the rest; without one, only the same version of the same file will do.
            if notes["content"] == self._content and (self.remote.checksum or notes["validator"]):
                self._validator = notes["validator"]
                return
        self._discard()

    def _discard(self) -> None:
        self._validator = None
        self._part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _start_over(self, why: str) -> None:
        self._discard()
        raise _Interrupted(f"{why}; starting over")

    def _receive(self, bar: Any) -> None:
        """Get what is missing, with one request.

        Raises:
            _Interrupted: Another try may succeed.
            DownloadError: It may not.
        """
        import requests
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        have, size = self._length(), self.remote.size
        if size is not None:
            if have > size:
                self._discard()
                have = 0
            if have == size:
                return
            check_space(self.target.parent, size - have, self.what)
        # Not compressed on its way: counts and ranges are of the bytes of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": "mobiledet"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._validator:
                headers["If-Range"] = self._validator
        is_connected = False
        try:
            with requests.get(self.remote.url, headers=headers, stream=True, timeout=self._timeout) as response:
                is_connected = self._answered = True
                self._take(response, have, bar)
        # The libraries' own messages repeat the whole address, secrets included, so none of their text is passed on.
        except requests.exceptions.ProxyError as error:
            raise self.error("the proxy named by HTTP_PROXY or HTTPS_PROXY can't be used") from error
        except requests.exceptions.SSLError as error:
            raise self.error("no secure connection (TLS) can be made, or its certificate is not valid") from error
        except requests.TooManyRedirects as error:
            raise self.error("the server redirects in circles") from error
        except (requests.Timeout, ReadTimeoutError) as error:
            raise _Interrupted(f"nothing came for {self._timeout:g} s") from error
        except ValueError as error:  # requests' InvalidURL, InvalidSchema and their like
            raise self.error("the address is not a valid http or https address") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, HTTPError) as error:
            why = "the connection broke" if is_connected else "the server can't be reached (is there a network?)"
            raise _Interrupted(why) from error

    def _take(self, response: requests.Response, have: int, bar: Any) -> None:
        """Judge the answer and append its body to the part."""
        status, headers = response.status_code, response.headers
        answer = f"the server answers {status} {response.reason or ''}".rstrip()
        if status in _TEMPORARY:  # Retry-After may be a date, too, which counts as nothing
            raise _Interrupted(answer, wait=_number(headers.get("Retry-After", "")) or 0)
        first, _, total_text = headers.get("Content-Range", "").strip().rpartition("/")
        total = _number(total_text)
        known = total if self.remote.size is None else self.remote.size
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if total == have == known:
                return
            self._start_over("what came earlier doesn't fit the server's file any more")
        tag = headers.get("ETag", "").strip()
        # A strong ETag, else the date of change (RFC 9110, 13.1.5).
        validator = tag if tag.startswith('"') else headers.get("Last-Modified", "").strip() or None
        if status == HTTPStatus.PARTIAL_CONTENT:
            if not have or not first.startswith(f"bytes {have}-"):
                self._start_over("the server sends another part of the file than was asked for")
            changed = None not in (validator, self._validator) and validator != self._validator
            if changed or (total is not None and total != known):
                self._start_over("the file has changed on the server")
        elif status == HTTPStatus.OK:
            known = self._judge_whole(headers, have)
            self._discard()
            self._validator = validator
            # The notes come first: a part without them is somebody else's.
            write_json(self._notes, {"content": self._content, "validator": validator})
            self._part.touch()
            have = 0
        else:
            raise self.error(answer)
        if known is not None:
            check_space(self.target.parent, known - have, self.what)
            bar.total = known
        self._copy(response, have, known, bar)

    def _judge_whole(self, headers: Mapping[str, str], have: int) -> int | None:
        """Bytes of a whole file that begins, where they are known; refused if it is visibly another one."""
        name = self.target.name.lower()
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._is_page = kind in ("text/html", "application/xhtml+xml") and not name.endswith((".html", ".htm"))
        page = _PAGE if self._is_page else ""
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        if coding != "identity" and not name.endswith((".gz", ".tgz")):
            raise self.error("the server compresses it on its way, which was not asked for")
        total, size = _number(headers.get("Content-Length", "")), self.remote.size
        if total is not None and size is not None and total != size:
            raise self.error(f"the server has another file: {total:,} bytes{page} instead of {size:,}")
        if total is not None and size is None and total > self.remote.most:
            raise self.error(f"the server has another file: {total:,} bytes{page}, more than {self.remote.most:,}")
        if self._is_page and (have or not self.remote.checksum):
            raise self.error(f"the server sends another file{page}")
        return total if size is None else size

    def _copy(self, response: requests.Response, have: int, total: int | None, bar: Any) -> None:
        bar.update(have - bar.n)
        with self._part.open("ab") as stream:
            for block in response.raw.stream(_BLOCK, decode_content=False):
                stream.write(block)
                stream.flush()  # what has come is on the disk, whatever comes next
                have += len(block)
                bar.update(len(block))
                if have > (self.remote.most if total is None else total):
                    break
        if total is None and have > self.remote.most:
            self._discard()
            raise self.error(f"the server sends more than {self.remote.most:,} bytes")
        if total is not None and have > total:
            self._start_over(f"the server sends more than the {total:,} bytes it announced")
        if total is not None and have < total:
            raise _Interrupted(f"the connection ended after {have:,} of {total:,} bytes")
        if not have:
            raise self.error("the server sends an empty file")


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and text.isascii() else None
