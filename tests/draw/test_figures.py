from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from mobiledet.draw.figures import plot_history
from mobiledet.errors import DataError, ImageError


def history(epochs: int) -> list[dict[str, float | int | None]]:
    return [
        {
            "epoch": epoch,
            "lr": 0.1 / epoch,
            "loss/total": 30.0 / epoch,
            "loss/box": float("nan") if epoch == 2 else 1.0 / epoch,
            "val/AP": None if epoch % 2 else 0.01 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(
    "rows",
    [
        history(1),
        history(40),
        [{"epoch": 1, "loss/total": 2.5}],
        [
            {"epoch": 1, "loss/total": 2.5, "val_loss/total": 3.5},
            {"epoch": 2, "loss/total": 1.5, "val_loss/total": 2.0},
        ],
        [{"loss/total": 0.0, "val/AP": 0.0, "val/AP50": 0.0}, {"lr": float("inf"), "loss/total": None}],
        [{"epoch": 3, "lr": 0.0, "loss/total": -1.0}, {"epoch": 4, "loss/total": 100.0}],
    ],
)
def test_history_is_drawn(tmp_path: Path, rows: list[dict[str, float | int | None]]) -> None:
    path = tmp_path / "run" / "history.png"
    plot_history(rows, path, "a run 苹果")
    image = cv2.imread(str(path))
    assert image.shape[0] > 300
    assert image.std() > 5


def test_history_refuses_what_it_cannot_draw(tmp_path: Path) -> None:
    for rows in ([], [{"epoch": 1, "val/AP": None}]):
        with pytest.raises(DataError, match="no curve"):
            plot_history(rows, tmp_path / "a.png", "a run")
    for name in ("a.xyz", "a"):
        with pytest.raises(ImageError, match=r"\.png"):
            plot_history(history(2), tmp_path / name, "a run")
    assert not list(tmp_path.iterdir())
