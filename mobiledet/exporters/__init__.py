"""Writing a detector as one file that runs without PyTorch, and proving that it finds the same."""
