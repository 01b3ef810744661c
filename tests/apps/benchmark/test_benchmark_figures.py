import numpy as np
import pytest

from mobiledet.apps.benchmark.figures import ratio, shared_out, spread


def test_spread_is_of_all_calls_and_keeps_each_rounds_median():
    found = spread([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0, 6.0]])
    assert (found.median, found.calls) == (4.0, 7)
    assert found.round_medians == (2.0, 4.5)
    assert found.p90 == pytest.approx(np.quantile([1, 2, 9, 3, 4, 5, 6], 0.9))
    assert found.p90 < found.p95 < 9


def test_nothing_measured_is_no_figure():
    assert spread([]) is None
    assert spread([[], []]) is None
    assert shared_out(5.0, []) == {}
    assert shared_out(5.0, [{"whole": 0.0, "network": 1.0}]) == {}


def test_ratio_forgives_slow_rounds():
    found = ratio([10.0, 20.0, 100.0], [5.0, 10.0, 50.0])
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_ratio_needs_the_same_rounds():
    assert ratio([1.0], [1.0, 2.0]) is None
    assert ratio([], []) is None
    assert ratio([1.0], [0.0]) is None


def test_stages_are_shares_so_that_a_slow_moment_changes_nothing():
    block = {"whole": 10.0, "resize": 1.0, "network": 6.0, "decode+nms": 2.0}
    slow = {name: 3 * value for name, value in block.items()}
    assert shared_out(20.0, [block, slow, slow]) == {"resize": 2.0, "network": 12.0, "decode+nms": 4.0, "rest": 2.0}


def test_stages_never_exceed_the_whole():
    found = shared_out(10.0, [{"whole": 10.0, "resize": 4.0, "network": 8.0}])
    assert sum(found.values()) == pytest.approx(10.0, abs=1e-3)
    assert found["rest"] == pytest.approx(0, abs=1e-3)
    assert found["network"] == pytest.approx(2 * found["resize"], abs=1e-3)


def test_a_stage_that_cannot_be_told_apart_stays_none():
    assert shared_out(8.0, [{"whole": 8.0, "network": 6.0, "decode+nms": None}]) == {
        "network": 6.0,
        "decode+nms": None,
        "rest": 2.0,
    }
