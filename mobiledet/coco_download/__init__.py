"""Fetching COCO 2017 into the folder layout that training reads, complete and checked.

    <root>/annotations/instances_val2017.json
    <root>/val2017/000000000139.jpg, ...

A folder of pictures appears under its name only when every picture of the json is in it. Whatever is interrupted
goes on at the next call; what is there already stays as it is.
"""

from mobiledet.coco_download.release import COCO_2017, CocoRelease, CocoSplit
from mobiledet.coco_download.work import download_coco

__all__ = ["COCO_2017", "CocoRelease", "CocoSplit", "download_coco"]
