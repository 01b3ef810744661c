import threading
import time

import pytest

from mobiledet.apps.live.frames import Handover, Newest


def test_the_newest_wins_and_the_rest_is_counted():
    box = Handover(newest=True)
    for item in "ab":
        box.put(item)
    assert box.take(0) == "b"
    box.put("c")
    assert box.take(0) == "c"
    assert box.dropped == 1
    assert box.take(0.01) is None


def test_a_reader_is_woken():
    box = Handover(newest=True)
    timer = threading.Timer(0.05, box.put, ["late"])
    timer.start()
    assert box.take(10) == "late"
    timer.join()


@pytest.mark.parametrize("room", [Handover(newest=True), Handover(2)])
def test_closing_wakes_the_reader_and(room):
    timer = threading.Timer(0.05, room.close)
    start = time.monotonic()
    timer.start()
    assert room.take(30) is None
    assert time.monotonic() - start < 15
    assert room.closed
    timer.join()


def test_what_lies_there_at_the_end_can_be_taken():
    box = Handover(newest=True)
    box.put("last")
    box.close()
    assert box.take(0) == "last"


def test_reading_ahead_loses_nothing_and_waits_for_room():
    ahead = Handover(2)
    put = []

    def write():
        for number in range(5):
            ahead.put(number)
            put.append(number)
        ahead.close()

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)
    assert put == [0, 1]
    assert [ahead.take(10) for _ in range(5)] == list(range(5))
    writer.join()
    ahead.put("too late")
    assert ahead.take(0) is None


def test_all_readers_get_the_newest():
    newest = Newest()
    assert newest.get() is None
    newest.put("a")
    newest.put("b")
    assert newest.get() == newest.get(after=1) == (2, "b")
    assert newest.get(after=2, timeout=0.01) is None


@pytest.mark.parametrize(("act", "wanted"), [(lambda n: n.put("x"), (1, "x")), (lambda n: n.close(), None)])
def test_readers_are_woken(act, wanted):
    newest, got = Newest(), []
    threads = [threading.Thread(target=lambda: got.append(newest.get(timeout=30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    act(newest)
    for thread in threads:
        thread.join(15)
    assert got == [wanted] * 3


def test_the_last_item_is_there_after_the_end():
    newest = Newest()
    newest.put("last")
    newest.close()
    assert newest.get() == (1, "last")
    assert newest.get(after=1, timeout=30) is None
