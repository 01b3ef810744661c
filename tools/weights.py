"""Pretrained weights: see which there are, fetch them, or convert your own file.

The same as ``mobiledet weights``, see :mod:`mobiledet.cli.commands.weights`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("weights")
