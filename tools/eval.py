"""Score a checkpoint or an exported model on a COCO-format data set: the twelve COCO figures and AP by class.

The same as ``mobiledet eval``, see :mod:`mobiledet.cli.commands.eval`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("eval")
