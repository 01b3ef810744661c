"""Training: one readable loop, and what keeps it exact and its work safe."""
