"""A lock that another process respects, and what happens where there are none."""

import errno
import os
import subprocess
import sys

import pytest

from mobiledet.utils.file_lock import try_lock
from mobiledet.utils.files import lock_run_folder

fcntl = pytest.importorskip("fcntl")


@pytest.fixture
def handle(tmp_path):
    number = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def test_one_holder_at_a_time(handle, tmp_path):
    other = os.open(tmp_path / "lock", os.O_RDWR)
    try:
        assert try_lock(handle)
        assert not try_lock(other)
    finally:
        os.close(other)


def test_a_holder_that_dies_gives_it_back(handle, tmp_path):
    code = (
        "import os, signal, sys; from mobiledet.utils.file_lock import try_lock\n"
        "print(try_lock(os.open(sys.argv[1], os.O_RDWR)), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-9, "True\n")
    assert try_lock(handle)


def test_a_drive_without_locks_keeps_nobody_from_training(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_run_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("module", ["mobiledet.utils.files", "mobiledet.download", "mobiledet.apps.live.card.fps_card"])
def test_a_system_without_fcntl_can_import_them(module):
    # What Windows looks like to these modules, as far as that can be had elsewhere; Python's own ssl is another there.
    code = f"import ssl, sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
