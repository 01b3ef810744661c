"""Live detection from a camera, a stream, a video or images, with honest numbers.

The same as ``mobiledet webcam``, see :mod:`mobiledet.cli.commands.webcam`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("webcam")
