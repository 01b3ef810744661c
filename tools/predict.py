"""Detect objects in images: writes drawn copies of them and one detections.json.

The same as ``mobiledet predict``, see :mod:`mobiledet.cli.commands.predict`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("predict")
