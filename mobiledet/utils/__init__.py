"""Small helpers that every layer may use: files, processes, text, the machine."""
