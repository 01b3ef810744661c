"""The evaluation report: why a score is what it is, on one page, and two or more models side by side."""
