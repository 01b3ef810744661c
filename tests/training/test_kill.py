"""Real kills: see benchmarks/kill_resume.py."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_killed_and_resumed_runs_end_as_if_undisturbed(checkout):
    command = [sys.executable, "benchmarks/kill_resume.py", "--kills", "5", "--seed", "1", "--epochs", "4"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line and ":" not in line]
    summary = dict(line.rsplit(maxsplit=1) for line in lines)
    assert (summary["kills"], summary["identical to the undisturbed run"]) == ("5", "yes")
    assert int(summary["resumed"]) + int(summary["killed before the run had begun"]) == 5
