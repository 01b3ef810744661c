"""What a model costs: multiply-adds (GMACs) of one image, and parameters.

The same as ``mobiledet cost``, see :mod:`mobiledet.cli.commands.cost`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("cost")
