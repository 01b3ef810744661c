"""Programs built on the package; nothing below imports them."""
