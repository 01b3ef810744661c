"""Addresses of streams and files: checked before anything is opened, shown without passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from mobiledet.errors import SourceError
from mobiledet.utils.text import nearest

if TYPE_CHECKING:
    import urllib.request

SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "rtmp", "rtmps", "tcp", "srt")
"""Protocols that a stream's address may begin with."""

_PLACE = re.compile(r"([^/?#]*)([/?#]?)(.*)", re.DOTALL)
_NUMBER = re.compile(r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:.]+\])(:\d*)?")
_USER = re.compile(r"(?<=://)[^/\s]*@")  # of other addresses, in a library's messages

_LOG_PREFIX = re.compile(r"^(\[[^\]]*\]\s*)+")


@dataclass(frozen=True)
class StreamAddress:
    """Where a stream is.

    Attributes:
        url: The complete address, as it is opened.
        shown: The same without user, password, query and the parts of its path that may be one of them, for the
            screen, logs and reports.
        host: Its host and port.
    """

    url: str
    shown: str
    host: str

    def scrub(self, text: str) -> str:
        """A library's message without this address's user, password and query."""
        user, plain = split_user(self.url)
        parts = urlsplit(plain)
        secrets = [segment for segment in parts.path.split("/") if _is_secret(segment)]
        for secret in (self.url, parts.query, user.partition(":")[2], *secrets):
            for written in {secret, unquote(secret), quote(secret)} if secret else ():
                text = text.replace(written, self.shown if secret == self.url else "...")
        return _USER.sub("", text)

    def explain(self, message: str) -> str:
        """Cause and remedy for a user, from the last message of FFmpeg."""
        text = _LOG_PREFIX.sub("", self.scrub(message)).strip()
        low = text.lower()
        if "refused" in low:
            return (
                f"nothing answers at {self.host} (connection refused); start the sender there, or correct the address"
            )
        if "resolve" in low or "name or service" in low:
            return f"there is no host {urlsplit(self.shown).hostname!r}, or no network; correct the address"
        if "401" in low or "403" in low or "unauthorized" in low:
            if split_user(self.url)[0]:
                return "its user or password isn't accepted; correct them in the address"
            scheme, _, rest = self.shown.partition("://")
            return f"a user and password are required: {scheme}://USER:PASSWORD@{rest}"
        if "404" in low or "not found" in low:
            return "there is no such stream there (404); correct the address"
        if "timed out" in low or "timeout" in low:
            return f"{self.host} doesn't answer; correct the address, or check the network"
        if "unreachable" in low or "no route" in low:
            return f"{self.host} can't be reached ({text}); check the network"
        return f"no video that OpenCV can read{f' ({text[:200]})' if text else ''}; correct the address"


def is_address(text: str) -> bool:
    """Whether a text is an address in a network, not a path; also one with a slash too few, as a path it'd be shown."""
    return re.match(rf"(?!file:)[a-z][a-z0-9+.-]*://|({'|'.join(SCHEMES)}):", text, re.IGNORECASE) is not None


def file_path(text: str | Path) -> Path:
    """The path that a text names: a path, ``~/...`` or a ``file://`` address.

    Raises:
        SourceError: It is a file of another machine.
    """
    text = str(text)
    if not re.match(r"file://", text, re.IGNORECASE):
        return Path(text).expanduser() if text.startswith("~/") else Path(text)
    from urllib.request import url2pathname

    host, _, path = text[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise SourceError(f"{without_user(text)}: a file of another machine can't be read; write file:///PATH")
    return Path(url2pathname(f"/{path}"))


def split_user(address: str) -> tuple[str, str]:
    """``"USER:PASSWORD"`` of an address, empty without one, and the address without it.

    Raises:
        SourceError: A password may end at several places; nothing of it is shown.
    """
    scheme, mark, rest = address.partition("://")
    place, end, tail = _PLACE.fullmatch(rest).groups()  # type: ignore[union-attr]  # which fits everything
    user, _, host = place.rpartition("@")
    # An @ further on may end a password with a slash, a # or a ? in it; unless what stands before it is a host for
    # certain, or is bare and a path follows. A number behind a colon may be a port or begin a password.
    bare = place == host and ":" not in host and end == "/"
    if "@" in tail and not _NUMBER.fullmatch(host) and not bare:
        raise SourceError(
            f"{scheme}://...: it isn't clear where a password ends; in a password write / as %2F, ? as %3F, # as %23 "
            "and @ as %40, and in what follows the host @ as %40"
        )
    return user, f"{scheme}{mark}{host}{end}{tail}"


def without_user(address: str) -> str:
    """An address for messages: without user and password; without anything where it isn't clear where these end."""
    try:
        return split_user(address)[1]
    except SourceError:
        return f"{address.partition('://')[0]}://..."


def http_request(url: str) -> urllib.request.Request:
    """A request for a web address, whose user and password go into a header that no other server gets.

    Python would take them for a part of the host's name, and look that up.

    Raises:
        SourceError: It isn't clear where the password ends.
        ValueError: It isn't an address.
    """
    import base64
    import urllib.request  # here: it takes as long to load as the rest of a small program

    user, plain = split_user(url)
    request = urllib.request.Request(plain, headers={"User-Agent": "mobiledet"})
    if user:
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(unquote(user).encode()).decode())
    return request


def parse_address(text: str) -> StreamAddress:
    """Parse the address of a stream.

    Raises:
        SourceError: It isn't one.
    """
    scheme, mark, _ = text.partition("://")
    if not mark:  # rtsp:/host
        raise SourceError(f"{text.partition(':')[0]}:...: two slashes are missing; write rtsp://HOST:PORT/PATH")
    _, plain = split_user(text)
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        # The same letters in another order come first: rstp means rtsp, not rtp.
        near = next((known for known in SCHEMES if sorted(known) == sorted(scheme)), nearest(scheme, SCHEMES))
        hint = f"did you mean {near}://?" if near else f"streams begin with {', '.join(SCHEMES)}"
        raise SourceError(f"{scheme}:// is an unsupported kind of address; {hint}")
    try:
        parts = urlsplit(plain)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise SourceError(
            f"{scheme}://...: not an address; write {scheme}://HOST:PORT/PATH, the port a number up to 65535"
        ) from None
    if not host and scheme not in ("udp", "rtp"):
        raise SourceError(f"{scheme}://...: the address names no host; write {scheme}://HOST:PORT/PATH")
    # Many cameras take their password in the query, and many recorders in the path.
    path = "/".join("..." if _is_secret(segment) else segment for segment in parts.path.split("/"))
    path += "?..." if parts.query else ""
    bracketed = f"[{host}]" if ":" in host else host
    place = f"{bracketed}:{port}" if port is not None else bracketed
    return StreamAddress(url=text, shown=f"{scheme}://{place}{path}", host=place)


def _is_secret(segment: str) -> bool:
    """Whether a part of a path may hold a password, as in ``user=admin_password=1234``."""
    return "=" in segment or "@" in segment
