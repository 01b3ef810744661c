"""Make one page of the reports of live runs, to look at a board or to compare several.

The same as ``mobiledet fps-card``, see :mod:`mobiledet.cli.commands.fps_card`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("fps-card")
