"""Why a request failed, in a few words, and whether another try may help.

The libraries' own messages repeat the whole address, secrets included, so none of their text is passed on.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why no file came.

    Attributes:
        text: a few words.
        when: whether to try again: "always", "answered" (only if the server was seen to work: without a network
            nobody wants to wait for the fourth refusal) or "never".
    """

    text: str
    when: str


def explain(error: BaseException, timeout: float) -> Reason:
    """The reason behind an exception of requests or urllib3.

    Args:
        error: the exception.
        timeout: seconds that were waited for an answer.
    """
    import requests
    from urllib3.exceptions import ConnectTimeoutError, LocationParseError, ReadTimeoutError

    chain = list(_chain(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if has(requests.exceptions.ProxyError):
        return Reason("the proxy named by HTTP_PROXY or HTTPS_PROXY can't be used", "answered")
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return Reason(f"the server's certificate is refused ({link.verify_message})", "never")
    if has(ssl.SSLError, requests.exceptions.SSLError):
        return Reason("no secure connection (TLS) can be made", "answered")
    if has(socket.gaierror):
        return Reason("the server's name can't be resolved (is there a network?)", "answered")
    if has(ConnectionRefusedError):
        return Reason("the server refuses the connection", "answered")
    if has(ConnectTimeoutError, requests.exceptions.ConnectTimeout):
        return Reason(f"no connection within {timeout:g} s", "answered")
    if has(ReadTimeoutError, requests.exceptions.ReadTimeout, TimeoutError):
        return Reason(f"nothing came for {timeout:g} s", "always")
    for link in chain:
        if isinstance(link, OSError) and link.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
            return Reason(f"{os.strerror(link.errno).lower()} (is there a network?)", "answered")
    if has(requests.exceptions.TooManyRedirects):
        return Reason("the server redirects in circles", "never")
    # InvalidURL, InvalidSchema and their like are ValueErrors; a broken chunk is one for urllib3, but not for requests.
    if isinstance(error, ValueError) or has(LocationParseError, UnicodeError):
        return Reason("the address is not a valid http or https address", "never")
    return Reason("the connection broke", "always")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception with all that it wraps; urllib3 keeps the cause in ``reason`` or among the arguments."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        link = todo.pop()
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        todo += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
