"""Annotated videos and detection logs."""
