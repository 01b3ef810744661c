"""Streams from the network, read with OpenCV's FFmpeg."""

from __future__ import annotations

import re
import time
from typing import Any

from mobiledet.apps.live.sources.base import Source, SourceKind, SourceOptions
from mobiledet.apps.live.sources.capture import CaptureSource
from mobiledet.apps.live.sources.capture_devices import CaptureFailedError, CaptureJob, OpenCVDevice
from mobiledet.data.videos import check_frame_size, usable_fps
from mobiledet.errors import SourceError
from mobiledet.utils.addresses import http_request, is_address, parse_address

STALL_S = 6.0
"""Silence after which a stream is considered lost, once it runs."""


class _StreamDevice(OpenCVDevice):
    patience = 30  # damaged packets count as failures, too

    def __init__(self, job: CaptureJob) -> None:
        import cv2

        settings = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(job.open_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            30_000,  # the parent gives up long before
        ]
        if hasattr(cv2, "CAP_PROP_N_THREADS"):
            settings += [cv2.CAP_PROP_N_THREADS, 1]  # each further decoding thread holds back one more frame
        start = time.monotonic()
        capture = cv2.VideoCapture(job.target, cv2.CAP_FFMPEG, settings)
        if not capture.isOpened():
            if time.monotonic() - start >= 0.9 * job.open_s:
                raise CaptureFailedError(f"no frames within {job.open_s:g} s; check that it is sending")
            # FFmpeg gives the code of a web server's refusal only to those who ask for all its warnings.
            raise CaptureFailedError(ask_http(job.target), explained=False)
        try:
            check_frame_size(capture, "the stream")
        except SourceError as error:
            raise CaptureFailedError(str(error)) from None
        super().__init__(capture)

    def about(self) -> dict[str, Any]:
        import cv2

        form = self.format()
        # JPEG after JPEG has no frame rate of its own; FFmpeg then reports 25.
        fps = None if form == "MJPG" else usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        return {"size": self.size(), "fps": fps, "note": f"FFmpeg {form}".strip()}

    def lost(self) -> str:
        return "the stream ended"


def ask_http(url: str, timeout: float = 3.0) -> str:
    """Why a web address gives no video, by its server's answer; empty when that answer explains nothing."""
    import urllib.error
    import urllib.request

    if not re.match("https?:", url, re.IGNORECASE):
        return ""
    try:
        with urllib.request.urlopen(http_request(url), timeout=timeout) as answer:
            kind = answer.headers.get_content_type()
            return f"{kind}, a page and not a video" if kind.startswith("text/") else ""
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP error {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(error)


def _open(text: str, options: SourceOptions) -> Source:
    address = parse_address(text)
    stall_s = STALL_S if options.stall_s is None else options.stall_s
    return CaptureSource(CaptureJob(STREAMS.name, text), name=address.shown, stall_s=stall_s, address=address)


STREAMS = SourceKind(
    name="stream",
    plural="streams",
    examples=("rtsp://...", "http://..."),
    options=frozenset({"stall_s"}),
    recognises=is_address,
    open=_open,
    device=_StreamDevice,
)
