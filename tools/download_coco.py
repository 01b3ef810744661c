"""Fetch COCO 2017 (train 118,287 and val 5,000 images, 20 GB) into the layout that training reads.

The same as ``mobiledet download-coco``, see :mod:`mobiledet.cli.commands.download_coco`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("download-coco")
