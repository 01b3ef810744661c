"""Live detection from a camera, a stream, a video or images, with honest numbers.

See :mod:`mobiledet.cli.webcam`.
"""

from mobiledet.cli import webcam
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(webcam.main)
