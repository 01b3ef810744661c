"""Write a data set in Pascal VOC, YOLO or unusual COCO format as a COCO folder that training reads.

The same as ``mobiledet convert``, see :mod:`mobiledet.cli.commands.convert`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("convert")
