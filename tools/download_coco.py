"""Fetch COCO 2017 (train 118,287 and val 5,000 images, 20 GB) into the layout that training reads.

See :mod:`mobiledet.cli.download_coco`.
"""

from mobiledet.cli import download_coco
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(download_coco.main)
