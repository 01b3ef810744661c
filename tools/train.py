"""Train a detector, or go on with an interrupted run.

The same as ``mobiledet train``, see :mod:`mobiledet.cli.commands.train`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("train")
