"""Lines and zones in a camera's view, and what is counted at them."""
