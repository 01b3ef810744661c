"""From nothing to a detector: generate images, train, score, draw. What `make quickstart` runs.

See :mod:`mobiledet.cli.quickstart`.
"""

from mobiledet.cli import quickstart
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(quickstart.main)
