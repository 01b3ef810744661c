"""What a person sees of a run: the live bar, log lines, results.csv, images and curves."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledet.data.coco import CocoDataset
from mobiledet.data.loader import Batch
from mobiledet.draw.boxes import draw_comparison, draw_target, image_grid, legend_strip, write_image
from mobiledet.draw.figures import plot_history
from mobiledet.runtime.detector import Detector
from mobiledet.training.distributed import ProcessGroup
from mobiledet.training.loggers import Loggers
from mobiledet.training.progress import FIRST_STEPS, Progress, Row, TimeLeft
from mobiledet.utils.files import read_csv, write_csv
from mobiledet.utils.text import count

logger = logging.getLogger(__name__)

SMOOTHING = 0.05
"""Weight of the newest step in the losses that the bar shows."""

DRAWN_SCORE = 0.3
"""Detections below this are scored but not drawn."""


class EpochClock:
    """Time spent in an epoch, and how much of it waiting for data."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.waited = 0.0
        self.images = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time what happens inside as waiting."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Images trained on, each second."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / max(self.seconds, 1e-9)


class Reporter:
    """Tells how a run goes.

    Of several processes only the first one does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        epochs: int,
        batches_per_epoch: int,
        loggers: Loggers,
        time_left: TimeLeft,
        processes: ProcessGroup,
    ) -> None:
        self.folder = folder
        self.epochs = epochs
        self.batches_per_epoch = batches_per_epoch
        self.processes, self.main = processes, processes.is_first
        self.clock = EpochClock()
        self._bar: Any = None
        self._smooth: dict[str, float] = {}
        self._loggers = loggers
        self._time_left = time_left
        self._estimated = False

    def start_epoch(self, progress: Progress) -> None:
        """Begin a new bar."""
        self.clock = EpochClock()
        self.processes.communicating = 0.0
        self._time_left.start_epoch()
        live = self.main and sys.stderr.isatty()
        self._bar = tqdm(
            total=self.batches_per_epoch,
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}/{self.epochs}",
            disable=not live,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}% |{bar}| ETA {remaining}{postfix}",
        )

    def step(self, progress: Progress, losses: dict[str, float], images: int) -> None:
        """Move the bar on; the first ten steps in a row give an estimate of the whole run."""
        self.clock.images += images
        if self._time_left.step() == FIRST_STEPS and not self._estimated and self.main:
            self._estimated = True
            self._bar.clear()
            logger.info(
                "%s: %s, %.2f s each (median of the first %d)",
                self._time_left.text(progress),
                count(self._time_left.steps_left(progress), "step"),
                self._time_left.median_step,
                FIRST_STEPS,
            )
        for name, value in losses.items():
            self._smooth[name] = value + (1 - SMOOTHING) * (self._smooth.get(name, value) - value)
        if self._bar.disable:
            return
        shown = " ".join(f"{name} {value:.3f}" for name, value in self._smooth.items())
        speed = f"{self.clock.images_per_second:.1f} img/s, {self.clock.waiting_share:.0%} waiting"
        self._bar.set_postfix_str(f"{shown}  {speed}", refresh=False)
        self._bar.update(progress.batch - self._bar.n)

    def pause(self) -> None:
        """Take the bar away, before something else is printed."""
        if self._bar is not None:
            self._bar.close()
        self._time_left.trained()

    def timing(self, epoch: int) -> Row:
        """This process's line of timing.csv; images are those of all processes."""
        seconds = self.clock.seconds
        return {
            "epoch": epoch,
            "rank": self.processes.rank,
            "seconds": round(seconds, 2),
            "images_per_second": round(self.clock.images_per_second, 2),
            "waiting_for_data": round(self.clock.waiting_share, 4),
            "communicating": round(self.processes.communicating / max(seconds, 1e-9), 4),
        }

    def end_epoch(self, progress: Progress, row: Row, timings: list[Row]) -> None:
        """Log the epoch's line and write results.csv anew.

        results.csv holds what an interrupted and resumed run reproduces exactly; times, of each process, are in
        timing.csv.
        """
        if not self.main:
            return
        write_csv(self.folder / "results.csv", progress.history)
        path = self.folder / "timing.csv"
        earlier = [old for old in read_csv(path) if int(old["epoch"]) < row["epoch"]]
        write_csv(path, [*earlier, *timings])
        timing = timings[0]
        parts = [f"{key.partition('/')[2]} {value:.3f}" for key, value in row.items() if key[:5] == "loss/" and value]
        if "val/AP" in row:
            self._time_left.scoring()
        if row.get("val/AP") is not None:
            parts.append(f"AP {row['val/AP']:.3f} AP50 {row['val/AP50']:.3f}")
        logger.info(
            "epoch %d/%d  %s  %.1f img/s, %.0f%% waiting for data%s, %s",
            row["epoch"],
            self.epochs,
            "  ".join(parts),
            timing["images_per_second"],
            100 * timing["waiting_for_data"],
            f", {timing['communicating']:.0%} for other processes" if self.processes.size > 1 else "",
            self._time_left.text(progress),
        )
        self._loggers.log(
            row["step"], {key: v for key, v in row.items() if isinstance(v, int | float) and key != "epoch"}
        )

    def first_batch(self, batch: Batch, names: tuple[str, ...]) -> None:
        """Draw what the network is fed: ``train_batch.jpg``."""
        path = self.folder / "train_batch.jpg"
        if not self.main or path.exists():
            return
        drawn = [
            draw_target(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), target, names)
            for image, target in zip(batch.images[:16], batch.targets, strict=False)
        ]
        write_image(path, image_grid(drawn, columns=min(4, len(drawn)), cell=drawn[0].shape[:2]))

    def predictions(
        self, detector: Detector, dataset: CocoDataset, threshold: float | None = None, count: int = 12
    ) -> None:
        """Draw detections over the ground truth of some validation images: ``val_predictions.jpg``.

        Detections are shown from ``threshold`` on, or from a usual score where there is none.
        """
        if not self.main:
            return
        shown = DRAWN_SCORE if threshold is None else threshold
        chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
        drawn = []
        for index in np.unique(chosen):
            image = dataset.read(int(index))
            found = detector(image).above(shown)
            drawn.append(draw_comparison(image, dataset[int(index)].target, found, dataset.names))
        sheet = image_grid(drawn, columns=min(4, len(drawn)), cell=(300, 360))
        why = "a usual score" if threshold is None else "where F1 is best"
        colours = f"in colours: detections from score {shown:.2f} on, {why}; the colour is the class's"
        legend = legend_strip([((255, 255, 255), "ground truth"), (None, colours)], sheet.shape[1])
        write_image(self.folder / "val_predictions.jpg", np.concatenate([sheet, legend]))

    def finish(self, progress: Progress, title: str) -> None:
        """Draw the curves and close files."""
        if self.main and progress.history:
            plot_history(progress.history, self.folder / "curves.png", title)
        self._loggers.close()
