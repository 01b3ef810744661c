"""Files that are whole or not there, and locks that another process respects."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mobiledet.errors import DownloadError, MobiledetError, TrainingError
from mobiledet.utils.files import (
    cache_folder,
    check_space,
    create_run_folder,
    file_digest,
    lock_run_folder,
    locked,
    read_csv,
    refuse_existing,
    replacing,
    write_csv,
    write_json,
)

HOLDER = """
import sys, time
from pathlib import Path
from mobiledet.utils.files import lock_run_folder
with lock_run_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / ("n" * 250)
    path.write_text("before")

    def fail_halfway():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "before"
    with replacing(path, durable=True) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cant_be_written_is_named(tmp_path):
    write_json(tmp_path / "new" / "a.json", {})
    with pytest.raises(MobiledetError, match=r"a\.json.b"):
        write_json(tmp_path / "new" / "a.json" / "b", {})


def test_csv_comes_back(tmp_path):
    assert read_csv(tmp_path / "a.csv") == []
    write_csv(tmp_path / "a.csv", [{"epoch": 1, "AP": 0.5}, {"epoch": 2, "note": 'a, "b"'}])
    expected = [{"epoch": "1", "AP": "0.5", "note": ""}, {"epoch": "2", "AP": "", "note": 'a, "b"'}]
    assert read_csv(tmp_path / "a.csv") == expected


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a").startswith("ba7816bf8f01cfea")
    assert file_digest(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MOBILEDET_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mobiledet"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(MobiledetError, match="MOBILEDET_CACHE"):
        cache_folder()


def test_results_overwrite_nothing(tmp_path):
    refuse_existing(None)
    refuse_existing(tmp_path / "absent" / "new")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "new"):
        with pytest.raises(MobiledetError, match="name another file"):
            refuse_existing(path)


def test_run_folders_are_counted(tmp_path):
    (tmp_path / "run" / "7").mkdir(parents=True)
    (tmp_path / "run" / "notes").mkdir()
    assert create_run_folder(tmp_path, "run") == tmp_path / "run" / "8"
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="elsewhere"):
        create_run_folder(tmp_path / "file", "run", remedy="choose elsewhere")


def test_what_does_not_fit_is_counted(tmp_path):
    check_space(tmp_path, 1, "a byte")
    with pytest.raises(DownloadError, match="the universe needs"):
        check_space(tmp_path, 10**24, "the universe")


def test_one_thread_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        with locked(tmp_path / "lock", "waiting"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [1] * 6
    assert not list(tmp_path.iterdir())


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


def test_a_lock_nobody_may_write_to_holds_all_the_same(tmp_path, monkeypatch):
    """As on Windows."""

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    refused = pytest.raises(TrainingError, match="another process")
    with lock_run_folder(tmp_path), refused, lock_run_folder(tmp_path):
        pytest.fail("two holders")


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


def test_a_system_without_fcntl_can_train(tmp_path):
    code = HOLDER.replace("import sys, time", "import sys; sys.modules['fcntl'] = None").replace("time.sleep(600)", "")
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
