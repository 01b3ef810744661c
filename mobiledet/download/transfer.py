"""One http request for a file or for the rest of it, and all the answers that servers have for that."""

from __future__ import annotations

import errno
import logging
import re
import shutil
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.download.bars import bytes_bar
from mobiledet.download.part import Part
from mobiledet.download.reasons import explain
from mobiledet.download.remote import Remote, readable_size
from mobiledet.errors import DownloadError

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_BLOCK = 1 << 16  # bytes; at most this many are lost when a connection breaks
_LARGE = 1 << 28  # bytes whose checksum takes time enough to say so
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_COMPRESSED = (".gz", ".tgz")
_PAGES = (".html", ".htm", ".xhtml")


class Interrupted(Exception):  # noqa: N818 -- no error yet: another try may do
    """A try that failed in a way that another may not.

    Attributes:
        worth_it: whether to try again.
        wait: seconds the server asks to wait.
    """

    def __init__(self, why: str, *, worth_it: bool = True, wait: float = 0.0) -> None:
        super().__init__(why)
        self.worth_it = worth_it
        self.wait = wait


@dataclass(frozen=True)
class Trouble:
    """Words for what goes wrong with one file; see `fetch` for the fields."""

    remote: Remote
    target: Path
    what: str
    by_hand: str | None

    def error(self, why: str) -> DownloadError:
        """The one line for a file that doesn't come."""
        more = f"; {self.by_hand}" if self.by_hand else ""
        return DownloadError(
            f"{self.what} can't be fetched: {why}; to place it by hand, get {self.remote.address} and save it as "
            f"{self.target.absolute()}{more}"
        )

    def local(self, error: OSError) -> DownloadError:
        """The one line for a disk or folder that can't take it."""
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        remedy = "free some space, what has come is kept" if full else "correct that, or name another folder"
        reason = error.strerror or type(error).__name__
        return DownloadError(f"{self.what} can't be written to {self.target.parent.absolute()}: {reason}; {remedy}")

    def check_space(self, needed: int) -> None:
        """Make sure that bytes fit onto the disk.

        Raises:
            DownloadError: they don't; says how many are missing.
        """
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise DownloadError(
                f"{self.what} can't be fetched: it takes {needed:,} bytes, and the disk of "
                f"{self.target.parent.absolute()} lacks {needed - free:,} of them; free some space or name "
                "another folder"
            )


class Transfer:
    """Requests for one file; a context manager, as it holds a connection and a progress bar.

    Attributes:
        part: what has come so far.
        trouble: words for what goes wrong.
    """

    def __init__(self, remote: Remote, part: Part, trouble: Trouble, timeout: float, progress: bool) -> None:
        import requests

        self.part = part
        self.trouble = trouble
        self._remote = remote
        self._timeout = timeout
        self._session = requests.Session()
        self._bar: Any = bytes_bar(trouble.what, remote.size, done=part.length()) if progress else None
        self._is_page = False
        self._answered = False

    def __enter__(self) -> Transfer:
        """Nothing is opened before it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection and the bar."""
        self._session.close()
        if self._bar is not None:
            self._bar.close()

    def fault(self) -> str | None:
        """What speaks against the part being the file expected; None if nothing does."""
        if self._remote.has_checksum and self.part.length() > _LARGE:
            logger.info("%s: checking it", self.trouble.what)
        fault = self._remote.fault(self.part.path)
        return f"{fault} (it is a web page: of a login or a proxy?)" if fault and self._is_page else fault

    def receive(self) -> None:
        """Get what is missing, with one request.

        Raises:
            Interrupted: another try may do better.
            DownloadError: none would.
        """
        import requests
        from urllib3.exceptions import HTTPError

        have = self.part.length()
        size = self._remote.size
        if size is not None and have > size:
            self.part.discard()
            have = 0
        if size is not None and have == size:
            return
        if size is not None:
            self.trouble.check_space(size - have)
        # Not compressed on its way: counts and ranges are of the bytes of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": "mobiledet"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.part.validator:
                headers["If-Range"] = self.part.validator
        try:
            with self._session.get(self._remote.url, headers=headers, stream=True, timeout=self._timeout) as response:
                if self._begin(response, have):
                    self._copy(response)
        except (requests.RequestException, HTTPError, ValueError) as error:  # ValueError: addresses that are none
            reason = explain(error, self._timeout)
            if reason.when == "never":
                raise self.trouble.error(reason.text) from error
            raise Interrupted(reason.text, worth_it=reason.when == "always" or self._answered) from error

    def _begin(self, response: requests.Response, have: int) -> bool:
        """Judge the answer and make the part ready for its body; False if there is nothing left to come."""
        self._answered = True
        status = response.status_code
        if status in _TEMPORARY:
            raise Interrupted(f"the server answers {_status(status)}", wait=_retry_after(response))
        validator = _validator(response)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _total(response) == have and self._remote.size in (None, have):
                return False
            self._start_over("what came earlier doesn't fit the server's file any more")
        if status == HTTPStatus.PARTIAL_CONTENT:
            self._continue(response, have, validator)
        elif status == HTTPStatus.OK:
            self._start(response, have, validator)
        else:
            raise self.trouble.error(f"the server answers {_status(status)}")
        if self.part.total is not None:
            self.trouble.check_space(self.part.total - self.part.length())
        if self._bar is not None:
            self._bar.total = self.part.total or self._remote.size
        return True

    def _continue(self, response: requests.Response, have: int, validator: str | None) -> None:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not have or match is None or int(match[1]) != have:
            self._start_over("the server sends another part of the file than was asked for")
        total = _total(response)
        known = self.part.total if self._remote.size is None else self._remote.size
        changed = validator is not None and self.part.validator is not None and validator != self.part.validator
        if changed or (total is not None and known is not None and total != known):
            self._start_over("the file has changed on the server")
        self.part.total = total if total is not None else known

    def _start(self, response: requests.Response, have: int, validator: str | None) -> None:
        """The whole file from its beginning: first try, or a server that can't or won't continue."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._is_page = kind in ("text/html", "application/xhtml+xml")
        page = " (a web page: of a login or a proxy?)" if self._is_page else ""
        name = self.part.target.name.lower()
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding != "identity" and not name.endswith(_COMPRESSED):
            raise self.trouble.error("the server compresses it on its way, which was not asked for")
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and length.isascii() else None
        size = self._remote.size
        if size is not None and total is not None and total != size:
            raise self.trouble.error(f"the server has another file: {total:,} bytes{page} instead of {size:,}")
        if total == 0:
            raise self.trouble.error("the server sends an empty file")
        if self._is_page and (have or not self._remote.has_checksum) and not name.endswith(_PAGES):
            raise self.trouble.error("the server sends a web page instead of the file (a login or a proxy?)")
        if have:
            logger.info("%s: the server begins anew", self.trouble.what)
        self.part.start(validator, total if total is not None else size)

    def _start_over(self, why: str) -> None:
        self.part.discard()
        raise Interrupted(f"{why}; starting over")

    def _copy(self, response: requests.Response) -> None:
        have, total = self.part.length(), self.part.total
        self._show(have)
        blocks = response.raw.stream(_BLOCK, decode_content=False)
        with self.part.path.open("ab") as stream:
            for block in blocks:
                stream.write(block)
                stream.flush()  # what has come is on the disk, whatever comes next
                have += len(block)
                if total is not None and have > total:
                    break
                self._show(have)
        if total is not None and have > total:
            self._start_over(f"the server sends more than the {total:,} bytes it spoke of")
        if total is not None and have < total:
            raise Interrupted(f"the connection ended after {readable_size(have)} of {readable_size(total)}")
        if not have:
            raise self.trouble.error("the server sends an empty file")

    def _show(self, have: int) -> None:
        if self._bar is not None:
            self._bar.update(have - self._bar.n)


def _status(status: int) -> str:
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def _retry_after(response: requests.Response) -> float:
    text = response.headers.get("Retry-After", "").strip()  # a date, which is allowed as well, counts as nothing
    return float(text) if text.isdecimal() and text.isascii() else 0.0


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file by ``Content-Range``, if it says."""
    text = response.headers.get("Content-Range", "").rpartition("/")[2].strip()
    return int(text) if text.isdecimal() and text.isascii() else None


def _validator(response: requests.Response) -> str | None:
    """What to put into ``If-Range``: a strong ETag, else the date of change (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "").strip() or None
