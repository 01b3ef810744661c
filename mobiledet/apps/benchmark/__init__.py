"""How fast detectors are on this machine, side by side: each in a process of its own, all in one run, taking turns."""
