"""Write a data set in Pascal VOC, YOLO or unusual COCO format as a COCO folder that training reads.

See :mod:`mobiledet.cli.convert`.
"""

from mobiledet.cli import convert
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(convert.main)
