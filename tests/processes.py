"""What becomes of processes."""

from pathlib import Path


def gone(pid):
    """Whether a process has ended, even if nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
