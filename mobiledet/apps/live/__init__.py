"""Live detection: where pictures come from, how they are paced, and what can be measured about it. No torch."""
