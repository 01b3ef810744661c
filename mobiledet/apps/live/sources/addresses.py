"""Addresses of streams: checked before anything is opened, shown without passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from mobiledet.errors import SourceError
from mobiledet.utils.text import nearest

SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "rtmp", "rtmps", "tcp", "srt")
"""Protocols that a stream's address may begin with."""

_USER = re.compile(r"(?<=://)[^/\s]*@")

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
        parts = urlsplit(self.url)
        secrets = [segment for segment in parts.path.split("/") if _is_secret(segment)]
        for secret in (self.url, parts.query, parts.password, *secrets):
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
            return f"there is no host {urlsplit(self.url).hostname!r}, or no network; correct the address"
        if "401" in low or "403" in low or "unauthorized" in low:
            if urlsplit(self.url).username:
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


def parse_address(text: str) -> StreamAddress:
    """Parse the address of a stream.

    Raises:
        SourceError: It isn't one.
    """
    shown = _USER.sub("", text)
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        # The same letters in another order come first: rstp means rtsp, not rtp.
        near = next((known for known in SCHEMES if sorted(known) == sorted(scheme)), nearest(scheme, SCHEMES))
        hint = f"did you mean {near}://?" if near else f"streams begin with {', '.join(SCHEMES)}"
        raise SourceError(f"{shown}: {scheme}:// is an unsupported address; {hint}")
    if re.match(r"[^/@]*:[^/@]*/[^?#]*@", text.partition("://")[2]):
        # Not shown: what looks like a host and its port may be a user and the beginning of the password.
        raise SourceError(
            f"{scheme}://...: an @ after the first slash may end a password or belong to the path; write a slash in a "
            "password as %2F, and an @ in a path as %40"
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise SourceError(f"{shown}: not an address ({error}); write {scheme}://HOST:PORT/PATH") from None
    if not host and scheme not in ("udp", "rtp"):
        raise SourceError(f"{shown}: the address names no host; write {scheme}://HOST:PORT/PATH")
    # Many cameras take their password in the query, and many recorders in the path.
    path = "/".join("..." if _is_secret(segment) else segment for segment in parts.path.split("/"))
    path += "?..." if parts.query else ""
    bracketed = f"[{host}]" if ":" in host else host
    place = f"{bracketed}:{port}" if port is not None else bracketed
    return StreamAddress(url=text, shown=f"{scheme}://{place}{path}", host=place)


def _is_secret(segment: str) -> bool:
    """Whether a part of a path may hold a password, as in ``user=admin_password=1234``."""
    return "=" in segment or "@" in segment


def ask_http(url: str, timeout: float = 3.0) -> str:
    """Why a web address gives no video, by its server's answer; empty when that answer explains nothing."""
    import base64
    import urllib.error
    import urllib.request

    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        return ""
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            kind = answer.headers.get_content_type()
            return f"{kind}, a page and not a video" if kind.startswith("text/") else ""
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP error {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(error)
