"""Make one page of the reports of live runs, to look at a board or to compare several.

See :mod:`mobiledet.cli.fps_card`.
"""

from mobiledet.cli import fps_card
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(fps_card.main)
