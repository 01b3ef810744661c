"""The sizes of the pictures, and what fitting them into the network's input does to them."""

from __future__ import annotations

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.report import Section, Table, percent
from mobiledet.structures import Size

SQUEEZE = 1.5
"""A picture whose proportions change by more than this factor looks squeezed to the network."""


def describe_sizes(collection: Collection, chosen: Size) -> Section:
    """Heights, widths and proportions of the pictures, and how they meet an input of ``chosen`` (height, width)."""
    section = Section("Picture sizes")
    heights, widths = collection.sizes.T.astype(np.float64)
    if not len(heights):
        return section
    aspects = widths / heights
    rows, data = [], {}
    for name, values, form in (
        ("width", widths, ".0f"),
        ("height", heights, ".0f"),
        ("width / height", aspects, ".2f"),
    ):
        low, middle, high = (float(f(values)) for f in (np.min, np.median, np.max))
        rows.append((name, *(format(value, form) for value in (low, middle, high))))
        data[name] = {"min": low, "median": middle, "max": high}
    section.say(Table(("", "least", "median", "most"), tuple(rows)))
    sizes, number = np.unique(collection.sizes, axis=0, return_counts=True)
    common = sizes[np.argmax(number)]
    section.say(
        f"{len(sizes):,} different sizes; the most common is {common[1]} x {common[0]} (width x height), "
        f"{percent(float(number.max() / len(heights)))} of the pictures."
        if len(sizes) > 1
        else f"All pictures are {common[1]} x {common[0]} (width x height)."
    )
    stretch = aspects / (chosen[1] / chosen[0])
    squeezed = np.maximum(stretch, 1 / stretch) > SQUEEZE
    enlarged = (heights < chosen[0]) & (widths < chosen[1])
    shrunk = float(np.median(np.sqrt(heights * widths / (chosen[0] * chosen[1]))))
    change = f"{shrunk:.1f} times smaller" if shrunk >= 1 else f"{1 / shrunk:.1f} times larger"
    section.say(
        f"Fitted into {chosen[0]} x {chosen[1]} (height x width), the median picture gets {change}, its width / height "
        f"goes from {float(np.median(aspects)):.2f} to {chosen[1] / chosen[0]:.2f}. {percent(float(squeezed.mean()))} "
        f"of the pictures change their proportions by more than {SQUEEZE:g} times, {percent(float(enlarged.mean()))} "
        "are enlarged."
    )
    section.data = {
        **data,
        "different_sizes": len(sizes),
        "squeezed": float(squeezed.mean()),
        "enlarged": float(enlarged.mean()),
    }
    if squeezed.mean() > 0.25:
        wide = float(np.median(stretch)) > 1
        root = float(np.median(aspects)) ** 0.5
        side = (chosen[0] * chosen[1]) ** 0.5
        own = tuple(max(1, round(s / 16)) * 16 for s in (side / root, side * root))
        text = (
            f"{percent(float(squeezed.mean()))} of the pictures are squeezed or stretched by more than {SQUEEZE:g} "
            f"times, mostly {'wide' if wide else 'tall'} ones into {chosen[0]} x {chosen[1]}"
        )
        remedy = f"model.input_size={own[0]},{own[1]} costs about the same and keeps the median picture's proportions"
        section.find("advice", "squeezed", text, remedy)
    if enlarged.mean() > 0.5:
        text = f"{percent(float(enlarged.mean()))} of the pictures are smaller than the input and get enlarged"
        section.find("advice", "enlarged", text, "a smaller model.input_size shows the network as much")
    return section
