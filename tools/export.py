"""Write a detector as a file that runs without PyTorch, and prove that it finds the same.

The same as ``mobiledet export``, see :mod:`mobiledet.cli.commands.export`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("export")
