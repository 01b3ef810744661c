"""How long a run will still take is said from what was measured, and not before."""

import pytest

from mobiledet.config import ScheduleConfig
from mobiledet.data.shapes import generate_shapes
from mobiledet.training.progress import Progress, TimeLeft, duration
from mobiledet.training.start import start_run


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def after_ten_steps(**schedule):
    """Ten of 40 steps of the first of 6 epochs, 2 s each but for the first."""
    clock = Clock()
    settings = ScheduleConfig(epochs=6, val_every=4, **schedule)
    left = TimeLeft(settings, batches_per_epoch=40, scored=True, clock=clock)
    left.start_epoch()
    for number in range(1, 11):
        clock.now += 50 if number == 1 else 2
        assert left.step() == number
    return left, clock, Progress(batch=10)


def test_steps_first_and_scorings_once_they_were_timed():
    left, clock, progress = after_ten_steps()
    assert (left.median_step, left.steps_left(progress), left.scorings_left(progress)) == (2, 230, 2)
    assert left.text(progress) == "7 min 40 s left, and 2 scorings not timed yet"
    clock.now += 1
    left.trained()
    clock.now += 30
    left.scoring()
    assert left.text(Progress(epoch=4)) == "3 min 10 s left"  # 80 steps and one scoring
    assert left.text(Progress(epoch=6)) == "0 min 00 s left"


def test_accumulated_batches_are_one_step_and_patience_may_end_it_earlier():
    left, _, progress = after_ten_steps(accumulate=3, patience=2)
    assert left.steps_left(progress) == 6 * 14 - 4
    assert left.text(progress).startswith("at most 2 min 40 s left")


def test_nothing_is_said_before_a_step():
    left, *_ = after_ten_steps()
    left.start_epoch()
    assert left.text(Progress(epoch=1)) == ""


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "0 min 05 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("batch_size", "estimates"), [(2, 1), (4, 0)])
def test_a_run_gives_one_estimate_after_ten_steps_of_an_epoch(tiny_config, tmp_path, caplog, batch_size, estimates):
    caplog.set_level("INFO", "mobiledet")
    data = generate_shapes(tmp_path / "shapes", train=20, val=2, size=(72, 96), seed=3)
    config = tiny_config(data, f"schedule.batch_size={batch_size}", f"train.output={tmp_path}")
    assert start_run(config)[1] == 0
    messages = [record.getMessage() for record in caplog.records]
    assert sum("median of the first 10" in message for message in messages) == estimates
    assert len([message for message in messages if message.startswith("epoch ") and message.endswith(" left")]) == 2
