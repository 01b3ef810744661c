"""Live detection: sources, windows and browser view, recordings and measurements. It doesn't import torch."""
