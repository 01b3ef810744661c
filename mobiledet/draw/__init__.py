"""Drawing that several programs share: boxes on images, curves."""
