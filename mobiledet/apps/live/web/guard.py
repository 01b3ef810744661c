"""Who may send requests to the view server, and what its answers forbid a browser.

There are two dangers: strangers in the network, who are kept out by a token; and foreign pages in the user's own
browser, which can send requests to this machine, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # The address holds the token.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "mobiledet",
}
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "


class Guard:
    """Decides who gets an answer; others get 403.

    Every request must carry the token; it is None on a loopback address only. ``frames`` are the origins whose pages
    may show ours in a frame, ``hosts`` further names that this machine goes by.
    """

    def __init__(
        self, *, host: str, port: int, token: str | None, frames: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> None:
        self._token = token
        self._names = {"localhost", "127.0.0.1", "::1", *(name.lower() for name in (host, *hosts))}
        self._cookie = f"mobiledet_{port}"  # cookies are shared by all ports of a host
        self._frames = bool(frames)
        self._headers = {**_HEADERS, "Content-Security-Policy": _POLICY + (" ".join(frames) or "'none'")}
        if not frames:  # else the policy says who may; this header knows no names
            self._headers["X-Frame-Options"] = "DENY"

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every answer has, refusals too."""
        for name, value in self._headers.items():
            response.headers[name] = value

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or refuse it."""
        if reason := self._refusal(request):
            raise web.HTTPForbidden(text=f"403: {reason}\n")
        response = await handler(request)
        if self._token is not None and request.path == "/" and not response.prepared:
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict", path="/")
        return response

    def _refusal(self, request: web.Request) -> str:
        """Why a request gets no answer; empty for one that does."""
        if self._token is None:
            if _name_of(request.headers.get(hdrs.HOST, "")) not in self._names:
                # Otherwise a foreign page whose host name resolves to this machine would count as ours (DNS rebinding).
                return "this view is for this machine only; open it as http://localhost"
        # In a frame the page can't send the cookie for its own style sheet and scripts; anybody has these files.
        elif not (self._frames and request.path.startswith("/static/")):
            given = request.query.get("token", ""), request.cookies.get(self._cookie, "")
            if not any(secrets.compare_digest(one.encode("utf-8", "replace"), self._token.encode()) for one in given):
                return "the token is missing or wrong; open the address that the program printed"
        return _foreign(request)


def _foreign(request: web.Request) -> str:
    """Why a request of a foreign page is refused; empty for others. The page itself may be opened from anywhere."""
    opened = request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and request.path == "/"
    own = opened or request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
    origin = request.headers.get(hdrs.ORIGIN)
    if request.method == hdrs.METH_POST and origin is not None:
        host = request.headers.get(hdrs.HOST, "").lower()
        own = own and origin.lower() in (f"http://{host}", f"https://{host}")
    return "" if own else "the request comes from another page"


def _name_of(host: str) -> str:
    """The name in a Host header, without the port: tunnels change that."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
