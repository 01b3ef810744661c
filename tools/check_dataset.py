"""Look at a data set before training on it: what there is, what fits the anchors, what is twice, what looks wrong.

The same as ``mobiledet check``, see :mod:`mobiledet.cli.commands.check`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("check")
