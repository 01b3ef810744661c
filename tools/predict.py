"""Detect objects in images: writes drawn copies of them and one detections.json.

See :mod:`mobiledet.cli.predict`.
"""

from mobiledet.cli import predict
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(predict.main)
