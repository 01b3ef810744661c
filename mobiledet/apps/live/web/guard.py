"""Who may send requests to the view server, and what its answers forbid a browser.

There are two dangers: strangers in the network, who are kept out by a token; and foreign pages in the user's own
browser, which can send requests to this machine, too.
"""

from __future__ import annotations

import secrets

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The address holds the token.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "mobiledet",
}


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has, refusals too."""
    for name, value in _HEADERS.items():
        response.headers[name] = value


def make_guard(*, host: str, port: int, token: str | None) -> Middleware:
    """The middleware that decides who gets an answer; others get 403.

    Cookies are shared by all ports of a host, so the port is part of the cookie's name. Every request must carry the
    token; it is None on a loopback address only.
    """
    names, cookie = {"localhost", "127.0.0.1", "::1", host.lower()}, f"mobiledet_{port}"

    def refusal(request: web.Request) -> str:
        """Why a request gets no answer; empty for one that does."""
        if token is not None:
            given = request.query.get("token", ""), request.cookies.get(cookie, "")
            if not any(secrets.compare_digest(one.encode("utf-8", "replace"), token.encode()) for one in given):
                return "the token is missing or wrong; open the address that the program printed"
        elif _name_of(request.headers.get(hdrs.HOST, "")) not in names:
            # Otherwise a foreign page whose host name resolves to this machine would count as ours (DNS rebinding).
            return "this view is for this machine only; open it as http://localhost"
        return _foreign(request)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if reason := refusal(request):
            raise web.HTTPForbidden(text=f"403: {reason}\n")
        response = await handler(request)
        if token is not None and request.path == "/" and not response.prepared:
            response.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/")
        return response

    return guard


def _foreign(request: web.Request) -> str:
    """Why a request of a foreign page is refused; empty for others. The page itself may be opened from anywhere."""
    opened = request.method == hdrs.METH_GET and request.path == "/"
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
