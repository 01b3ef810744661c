"""Running a detector without PyTorch: from an exported file, on a laptop or a Raspberry Pi."""
