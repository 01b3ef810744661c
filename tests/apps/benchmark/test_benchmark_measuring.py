import logging
import sys
import time

import psutil
import pytest

from mobiledet.apps.benchmark.candidates import Candidate
from mobiledet.apps.benchmark.measuring import Bench
from mobiledet.apps.benchmark.process import ModelRefusedError, Worker, WorkerFailedError
from mobiledet.apps.benchmark.report import make_report
from mobiledet.errors import MobiledetError

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def candidates(**targets):
    return [Candidate(label, "model", target) for label, target in targets.items()]


def run(rows, settings):
    with Bench(rows, settings) as bench:
        bench.open_all()
        bench.time_all()
        bench.stage_all()
        return {outcome.candidate.label: outcome for outcome in bench.outcomes}


def test_candidates_take_turns_in_changing_order(tmp_path, quick):
    log = tmp_path / "log"
    rows = candidates(**{name: f"steady:{tmp_path / name}" for name in "abc"})
    for row in rows:  # one log for all, under the name of who calls
        (tmp_path / row.label).symlink_to(log)
    found = run(rows, quick(rounds=6, sizes=((48, 64),)))
    calls = [line.split()[0] for line in log.read_text().splitlines()][3:]  # without each one's first detection
    block = 3  # one call that isn't counted, two that are
    blocks = [calls[start : start + block] for start in range(0, len(calls), block)]
    assert all(len(set(block)) == 1 for block in blocks), "a turn was interrupted"
    rounds = [[block[0] for block in blocks[start : start + 3]] for start in range(0, len(blocks), 3)]
    assert len(rounds) == 7
    assert all(sorted(round_) == ["a", "b", "c"] for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 1, "the order never changes"
    assert all(len(found[name].rounds["48x64"]) == 6 for name in "abc"), "the first round doesn't count"


def test_all_sizes_are_measured_and_own_is_the_networks(tmp_path, quick):
    log = tmp_path / "log"
    found = run(candidates(a=f"steady:{log}"), quick(starts=2))["a"]
    assert {line.split()[1] for line in log.read_text().splitlines()} == {"48x64", "40x60"}
    calls = {size: [len(calls) for calls in rounds] for size, rounds in found.rounds.items()}
    assert calls == {"48x64": [2, 2], "own": [2, 2]}
    assert all(1 <= time < 100 for rounds in found.rounds.values() for calls in rounds for time in calls)
    assert len(found.starts_ms) == 2
    assert min(found.starts_ms) > 20
    assert found.stage_blocks == [{"whole": 4.0, "resize": 1.0, "network": 2.0, "decode+nms": None}]
    if sys.platform == "linux":
        assert 10 < found.before_mib <= found.peak_mib


FAILURES = {
    "crash": "its process was ended by SIGSEGV",
    "exit": "its process ended with status 7: out of <luck>",
    "throw": "ZeroDivisionError: a <b> by nothing",
    "hang": "no answer within 2.5 s; raise --timeout, or remove this model",
}


def test_those_that_fail_are_named_and_the_others_go_on(quick, caplog):
    settings = quick(timeout=2.5)
    with caplog.at_level(logging.WARNING):
        found = run(candidates(good="steady", **{word: word for word in FAILURES}, last="steady"), settings)
    for word, reason in FAILURES.items():
        assert found[word].problem.startswith(f"{word}: {reason}")
        assert found[word].problem in caplog.text
    for name in ("good", "last"):
        assert found[name].problem is None
        assert len(found[name].rounds["own"]) == 2
        assert found[name].stage_blocks
    report = make_report(list(found.values()), settings, {}, images="drawn images")
    assert report.failed
    assert [row.label for row in report.rows if not row.problem] == ["good", "last"]


def test_a_model_that_cannot_be_opened_ends_it_before_the_measuring(tmp_path, quick):
    log = tmp_path / "log"
    with pytest.raises(MobiledetError, match="refused: damaged; copy it again"):
        run(candidates(good=f"steady:{log}", bad="refuse"), quick())
    assert len(log.read_text().splitlines()) == 1, "only the first detection"


def test_afterwards_no_worker_is_left(quick):
    before = set(psutil.Process().children())
    with Bench(candidates(a="steady", b="steady"), quick()) as bench:
        bench.open_all()
        workers = set(psutil.Process().children()) - before
        assert len(workers) == 3, "two models and the matrix product"
    assert not any(worker.is_running() for worker in workers)


def test_a_peer_that_is_not_installed_is_skipped(quick):
    rows = [Candidate("good", "model", "steady"), Candidate("torchvision", "torchvision", "missing")]
    found = run(rows, quick(rounds=1))
    assert "nothing is not installed" in found["torchvision"].problem
    assert found["good"].rounds
    assert not make_report(list(found.values()), quick(), {}, images="").failed


@linux
def test_between_requests_a_worker_is_stopped_and_close_ends_it(quick):
    worker = Worker("a", threads=1, command=quick().command)
    process = psutil.Process(worker.pid)
    try:
        with pytest.raises(ModelRefusedError, match="damaged"):
            worker.ask(request("refuse"), timeout=20)
        deadline = time.monotonic() + 5
        while process.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline, process.status()
            time.sleep(0.01)
        process.kill()
        with pytest.raises(WorkerFailedError, match="its process was ended by SIGKILL"):
            worker.ask(request("steady"), timeout=20)
    finally:
        worker.close()
        worker.close()
    assert not process.is_running()


def request(target):
    return {"do": "load", "kind": "model", "target": target, "threads": 1, "labels": None, "image": "nothing.npy"}


def test_a_command_that_cannot_run_is_a_failure_not_a_traceback(quick):
    found = run(candidates(a="steady"), quick(command=(sys.executable, "-c", "raise SystemExit('no such thing')")))
    assert found["a"].problem == "a: its process ended with status 1: no such thing"
    assert not found["a"].rounds
