"""Scoring: COCO metrics, predictions over a data set, and the choice of a display threshold."""
