"""What to do next: each rule speaks on data that calls for it, and is silent on the same data with too little in it."""

import re

import pytest
from made_up_scores import made_up_score, results_of, truth_of

from mobiledet.apps.report.advice import MOST, Rule, next_steps
from mobiledet.apps.report.analysis import analyse

A, B, FAR = (30, 50, 60, 60), (180, 70, 50, 70), (120, 180, 40, 30)
CAT, DOG = 1, 2
ALWAYS = {Rule.LARGEST, Rule.THRESHOLD, Rule.CERTAINTY}
ENOUGH, FEW = 60, 6


def advice(image, images, **options):
    """Sentences on as many images as asked for; ``image(number)`` gives objects and detections of one."""
    size = options.pop("size", (240, 320))
    annotations, detections = [], []
    for number in range(1, images + 1):
        objects, found = image(number)
        annotations += [(number, *one) for one in objects]
        detections += [(number, *one) for one in found]
    score = made_up_score(truth_of(annotations, images, size=size), results_of(detections), **options)
    return {step.rule: step.text for step in next_steps(analyse(score, "made-up", resamples=60))}


def healthy(number):
    """Both objects found; every tenth image has a mistake of every kind."""
    objects, found = [(CAT, A), (DOG, B)], [(CAT, A, 0.9), (DOG, B, 0.8)]
    if number % 10 == 0:
        return objects, [(CAT, FAR, 0.7), (CAT, (60, 50, 60, 60), 0.6), (CAT, B, 0.85)]
    return objects, found


def small_ones_missed(_):
    return [(CAT, A), (CAT, (200, 200, 20, 20))], [(CAT, A, 0.9)]


def rather_small_ones_missed(_):
    """20 px at half the size of the image; the others are 35."""
    return [(CAT, (30, 50, 70, 70)), (CAT, (200, 150, 40, 40))], [(CAT, (30, 50, 70, 70), 0.9)]


def tiny_ones_missed(_):
    return [(CAT, A), (CAT, (200, 200, 9, 9))], [(CAT, A, 0.9)]


def nothing_labelled(_):
    return [(CAT, A), (DOG, B)], [(CAT, A, 0.8), (DOG, B, 0.7), (CAT, FAR, 0.9)]


def taken_for_the_other(number):
    return [(CAT, A), (DOG, B)], [(CAT, A, 0.9), (CAT if number % 3 == 0 else DOG, B, 0.8)]


def too_far_off(_):
    return [(CAT, A), (DOG, B)], [(CAT, A, 0.9), (DOG, (205, 70, 50, 70), 0.9)]


def found_twice(_):
    return [(CAT, A), (CAT, B)], [(CAT, A, 0.9), (CAT, A, 0.85), (CAT, B, 0.6)]


def overlapping_missed(_):
    return [(CAT, A), (CAT, (45, 50, 60, 60)), (CAT, B)], [(CAT, A, 0.9), (CAT, B, 0.9)]


def missed_at_the_border(_):
    return [(CAT, A), (CAT, (270, 80, 50, 70))], [(CAT, A, 0.9)]


def missed_in_the_dark(number):
    return [(CAT, A), (CAT, B)], [(CAT, A, 0.9)] if number % 2 else [(CAT, A, 0.9), (CAT, B, 0.9)]


DARK = {number: 30.0 if number % 2 else 120.0 for number in range(1, ENOUGH + 1)}


def one_class_never_found(_):
    return [(CAT, A), (DOG, B), (3, FAR)], [(CAT, A, 0.9), (DOG, B, 0.9)]


CASES = {
    Rule.SMALL_OBJECTS: (small_ones_missed, {"input_size": (120, 160)}, "60 small objects"),
    Rule.UNLABELLED: (nothing_labelled, {}, "60 detections"),
    Rule.CONFUSION: (taken_for_the_other, {}, "20 of 60"),
    Rule.LOCALISATION: (too_far_off, {}, "50.0 points"),
    Rule.DUPLICATES: (found_twice, {}, "iou_threshold=0.5"),
    Rule.OVERLAPPING: (overlapping_missed, {}, "120 objects"),
    Rule.AT_BORDER: (missed_at_the_border, {"config": {"data": {"augment": {"crop": 0.3}}}}, "60 objects"),
    Rule.DARK: (
        missed_in_the_dark,
        {"brightness": DARK, "config": {"data": {"augment": {"color": 0.3}}}},
        "60 objects",
    ),
    Rule.WEAK_CLASSES: (one_class_never_found, {}, "'owl' 0.000 (60 objects)"),
}


@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.value)
def test_a_rule_speaks_where_the_figures_carry_it_and_only_there(rule):
    image, options, number = CASES[rule]
    steps = advice(image, ENOUGH, **options)
    assert number in steps[rule]
    assert 3 <= len(steps) <= MOST
    assert rule not in advice(image, FEW, **options)


def test_no_rule_speaks_where_little_is_wrong():
    options = [one for _, one, _ in CASES.values() if one]
    assert len(options) >= 3
    for one in [{}, *options]:
        assert set(advice(healthy, ENOUGH, **one)) == ALWAYS


def test_every_rule_has_a_case():
    assert CASES.keys() | ALWAYS == set(Rule)


def test_a_larger_input_is_recommended_with_its_gain_and_cost():
    """20 px are 10 at 120x160 and 18 at 1.75 times, 224x288; 9 px would still be far below 16."""
    text = advice(small_ones_missed, ENOUGH, input_size=(120, 160))[Rule.SMALL_OBJECTS]
    assert "model.input_size=224,288" in text
    assert "100 %" in text
    assert "3.4 times" in text
    assert Rule.SMALL_OBJECTS not in advice(tiny_ones_missed, ENOUGH, input_size=(120, 160))
    larger = advice(rather_small_ones_missed, ENOUGH, input_size=(120, 160))[Rule.SMALL_OBJECTS]
    assert "16 to 32 px" in larger


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Rule.SMALL_OBJECTS, {"input_size": (240, 320)}),  # images have no more pixels
        (Rule.AT_BORDER, {"config": {"data": {"augment": {"crop": 0.9}}}}),
        (Rule.AT_BORDER, {}),  # nothing is known of its training
        (Rule.DARK, {"brightness": DARK, "config": {"data": {"augment": {"color": 0.9}}}}),
        (Rule.DARK, {"brightness": 30.0, "config": {"data": {"augment": {"color": 0.3}}}}),  # all are dark
        (Rule.DUPLICATES, {"iou_threshold": 0.4}),
        (Rule.OVERLAPPING, {"iou_threshold": 0.7}),
    ],
)
def test_no_rule_recommends_what_is_so_already(rule, options):
    assert rule not in advice(CASES[rule][0], ENOUGH, **options)


def test_threshold_and_certainty_have_their_numbers():
    steps = advice(healthy, ENOUGH)
    assert re.search(r"--threshold 0\.\d\d", steps[Rule.THRESHOLD])
    assert "60 images" in steps[Rule.CERTAINTY]
    assert "sure to about" in steps[Rule.CERTAINTY]
    assert "sure to about" not in advice(healthy, 10)[Rule.CERTAINTY]


def test_without_objects_there_is_nothing_to_say():
    assert advice(lambda _: ([], [(CAT, A, 0.9)]), ENOUGH) == {}
