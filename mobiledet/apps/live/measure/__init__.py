"""Rates, ages, percentiles and the state of the machine during a live run."""
