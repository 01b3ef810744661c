"""Pure tensor functions: boxes, anchors, matching, sampling."""
