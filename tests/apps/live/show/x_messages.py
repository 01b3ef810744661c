"""What a window manager sends when somebody clicks a window's cross: no such program is needed, nor its keys."""

import ctypes

CLIENT_MESSAGE = 33


class ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent, padded to the size of an XEvent."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 24),
    )


def ask_to_close(display: str, window: int) -> None:
    """Send WM_DELETE_WINDOW to a window of the screen ``display`` (ICCCM, 4.2.8.1)."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    screen = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    assert screen
    try:
        atoms = [x11.XInternAtom(screen, name, False) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")]
        message = ClientMessage(type=CLIENT_MESSAGE, window=window, message_type=atoms[0], format=32)
        message.data[0] = atoms[1]
        assert x11.XSendEvent(screen, ctypes.c_ulong(window), False, ctypes.c_long(0), ctypes.byref(message))
    finally:
        x11.XCloseDisplay(screen)  # which sends it
