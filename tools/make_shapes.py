"""Make a small detection data set of generated shapes, to try training without downloading anything.

The same as ``mobiledet make-shapes``, see :mod:`mobiledet.cli.commands.make_shapes`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("make-shapes")
