"""Locks that another process respects, and what happens where there are none."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from mobiledet.errors import TrainingError
from mobiledet.utils.files import lock_run_folder, locked

HOLDER = """
import sys, time
from pathlib import Path
from mobiledet.utils.files import lock_run_folder
with lock_run_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_holder_at_a_time(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(TimeoutError), locked(tmp_path / "lock"):
        pytest.fail("two holders")
    with locked(tmp_path / "lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_holder_of_a_run_folder_is_named_and_releases_it_by_dying(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(TrainingError, match=f"process {holder.pid} "), lock_run_folder(tmp_path):
            pytest.fail("two holders")
        holder.send_signal(signal.SIGKILL)
    with lock_run_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_leftovers_of_a_crash_are_removed(tmp_path):
    (tmp_path / ".last.pt.0a1b.tmp").write_bytes(b"half a file")
    with lock_run_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_drive_without_locks_keeps_nobody_from_training(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    with lock_run_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_run_folder_that_cant_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="can't write to run folder"), lock_run_folder(tmp_path / "file"):
        pytest.fail("held")


@pytest.mark.parametrize("module", ["utils.files", "download.coco", "apps.live.card.fps_card"])
def test_a_system_without_fcntl_can_import_them(module):
    # What Windows looks like to these modules, as far as that can be had elsewhere; Python's own ssl is another there.
    code = f"import ssl, sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; import mobiledet.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
