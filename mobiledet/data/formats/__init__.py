"""Data sets in Pascal VOC, YOLO and unusual COCO layouts, read as `mobiledet.data.coco.CocoDataset`."""
