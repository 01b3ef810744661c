"""From nothing to a detector: generate images, train, score, draw. What `make quickstart` runs.

The same as ``mobiledet quickstart``, see :mod:`mobiledet.cli.commands.quickstart`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("quickstart")
