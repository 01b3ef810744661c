"""The measuring itself: every model in a worker of its own, all taking turns in rounds."""

from __future__ import annotations

import json
import logging
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.apps.benchmark.candidates import (
    Candidate,
    CertificateSummary,
    bytes_of,
    model_path,
    summarise_certificate,
)
from mobiledet.apps.benchmark.images import make_images, size_name
from mobiledet.apps.benchmark.measured import About
from mobiledet.apps.benchmark.process import WORKER, ModelRefusedError, Worker, WorkerFailedError
from mobiledet.errors import DataError, MobiledetError
from mobiledet.structures import ImageArray, Size
from mobiledet.utils.text import count

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset

logger = logging.getLogger(__name__)

MATRIX_BASELINE = Candidate("matrix product", "matrix")  # measured along with the models: what the processor can do


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: Processor threads of every worker.
        rounds: Turns of each candidate; one more, the first, isn't counted.
        calls: Calls of a turn, for each size of image; one more, the first, isn't counted.
        stage_rounds: Turns for the stages.
        starts: Cold starts of each; the first fills the system's file cache and counts only if it is the only one.
        sizes: ``(height, width)`` of the images; None is the network's own size.
        timeout: Seconds until a worker that doesn't answer is ended.
        seed: For the order within rounds.
        labels: File with the class names of ``.tflite`` files that mobiledet didn't write.
        command: Starts a worker.
    """

    threads: int = 1
    rounds: int = 10
    calls: int = 5
    stage_rounds: int = 5
    starts: int = 3
    sizes: tuple[Size | None, ...] = ((480, 640), (720, 1280), None)
    timeout: float = 60.0
    seed: int = 0
    labels: str | None = None
    command: tuple[str, ...] = WORKER


@dataclass
class Outcome:
    """What was measured of one candidate.

    Attributes:
        candidate: Which.
        about: What it says about itself; None where it could not be opened.
        certificate: The one beside it.
        file_bytes: Its size on disk.
        starts_ms: Milliseconds from the start of its process to its first detection, each time.
        before_mib: Memory of the worker before the model and its runtime were loaded.
        peak_mib: The most memory it held during the timed calls; None where the system doesn't report it.
        busy: Cores its calls kept busy, round by round.
        rounds: Size of the images to rounds of milliseconds.
        stage_blocks: Milliseconds by stage and of the ``whole``, for the first size.
        ap: In points of 100.
        problem: Why it is incomplete.
    """

    candidate: Candidate
    about: About | None = None
    certificate: CertificateSummary = field(default_factory=CertificateSummary)
    file_bytes: int | None = None
    starts_ms: list[float] = field(default_factory=list)
    before_mib: float | None = None
    peak_mib: float | None = None
    busy: list[float] = field(default_factory=list)
    rounds: dict[str, list[list[float]]] = field(default_factory=dict)
    stage_blocks: list[dict[str, float | None]] = field(default_factory=list)
    ap: float | None = None
    problem: str | None = None

    @property
    def label(self) -> str:
        """The candidate's name."""
        return self.candidate.label


class Bench:
    """The workers and what they measured. To be used as a context: at its end every worker is ended.

    Without ``sources`` it detects in drawn images; ``on_step`` is called with what is being done.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        settings: Settings,
        *,
        sources: Sequence[ImageArray] = (),
        on_step: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.outcomes = [Outcome(candidate) for candidate in (*candidates, MATRIX_BASELINE)]
        self._sources = sources
        self._on_step = on_step
        self._workers: dict[str, Worker] = {}
        self._saved: dict[Size, list[str]] = {}

    def __enter__(self) -> Bench:
        self._folder = tempfile.TemporaryDirectory(prefix="mobiledet-benchmark-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()

    def open_all(self) -> None:
        """Start every worker, one after the other, ``starts`` times; the last one stays.

        Raises:
            MobiledetError: A model can't be opened; peers that can't are skipped.
        """
        for number in range(1, self.settings.starts + 1):
            last = number == self.settings.starts
            for outcome in self.outcomes:
                if outcome.problem is None and (last or outcome.candidate is not MATRIX_BASELINE):
                    self._on_step(f"start {number} of {self.settings.starts}: {outcome.label}")
                    self._open(outcome, keep=last)

    def time_all(self) -> None:
        """The rounds: whole calls, all candidates in turn, in another order each time."""
        order = random.Random(self.settings.seed)
        for number in range(self.settings.rounds + 1):
            self._on_step(f"round {number} of {self.settings.rounds}")
            for outcome in self._running(order):
                self._time(outcome, counts=number > 0)
        for outcome in self._running():
            if (answer := self._ask(outcome, {"do": "memory"})) is not None:
                outcome.peak_mib = answer["peak_mib"]

    def stage_all(self) -> None:
        """The stages, likewise in turns. It can take a second copy of the model, so memory is read before."""
        order = random.Random(self.settings.seed + 1)
        for number in range(1, self.settings.stage_rounds + 1):
            self._on_step(f"stages, round {number} of {self.settings.stage_rounds}")
            for outcome in self._running(order):
                if outcome.candidate is MATRIX_BASELINE:
                    continue
                image = self._images(outcome, self.settings.sizes[0])[0]
                request = {"do": "stages", "image": image, "rounds": self.settings.calls}
                if (answer := self._ask(outcome, request)) is not None:
                    outcome.stage_blocks.append(answer["ms"])
        for outcome in self._running():
            about = outcome.about
            if about and about.gmacs is None and (answer := self._ask(outcome, {"do": "count"})) is not None:
                outcome.about = replace(about, gmacs=answer["gmacs"])

    def check_classes(self, dataset: CocoDataset) -> None:
        """Make sure, before the long part, that some model knows some of the data's classes.

        Raises:
            DataError: None does.
        """
        from mobiledet.evaluation.predictions import match_categories

        problem = DataError("--data: no model here knows the names of its classes; remove --data")
        named = [outcome.about.names for outcome in self.outcomes if outcome.about is not None and outcome.about.names]
        for names in named:
            try:
                match_categories(names, dataset.categories)
                return
            except DataError as error:
                problem = error
        raise problem

    def score_all(self, dataset: CocoDataset, data: dict[str, Any]) -> None:
        """AP of every model that has class names.

        Args:
            dataset: What is detected in.
            data: ``root``, ``split`` and ``limit``, for the workers.
        """
        from mobiledet.evaluation.metrics import score_detections

        for outcome in self._running():
            if outcome.about is None or not outcome.about.names:
                continue
            self._on_step(f"AP on {count(len(dataset), 'image')}: {outcome.label}")
            results = Path(self._folder.name) / "results.json"
            request = {"do": "score", "data": data, "names": outcome.about.names, "results": str(results)}
            if self._ask(outcome, request) is None:
                continue
            try:
                ap = score_detections(dataset.coco_json(), json.loads(results.read_text(encoding="utf-8"))).AP
            except MobiledetError as error:  # what was measured is kept
                outcome.problem = f"{outcome.label}: no AP: {error}"
            else:
                outcome.ap = None if ap is None else round(100 * ap, 3)

    def _open(self, outcome: Outcome, *, keep: bool) -> None:
        candidate = outcome.candidate
        # Any size will do for a first call; the network's own isn't known yet.
        size = next((size for size in self.settings.sizes if size is not None), (480, 640))
        image = self._save(size)[0]
        worker = Worker(
            candidate.label,
            threads=self.settings.threads,
            command=self.settings.command,
            environment={"YOLO_CONFIG_DIR": self._folder.name},
        )
        self._workers[candidate.label] = worker
        request = {"do": "load", "kind": candidate.kind, "target": candidate.target, "threads": self.settings.threads}
        request["labels"] = self.settings.labels
        try:
            answer = worker.ask({**request, "image": image}, timeout=self.settings.timeout)
        except (ModelRefusedError, WorkerFailedError) as error:
            if isinstance(error, ModelRefusedError) and candidate.kind == "model":
                raise
            self._give_up(outcome, error)
            return
        outcome.starts_ms.append(round(1e3 * (worker.answered - worker.started), 2))
        plain = answer["about"]  # from JSON, where tuples are lists
        height, width = plain["input_size"]
        outcome.about = About(**{**plain, "input_size": (height, width), "names": tuple(plain["names"])})
        outcome.before_mib = answer["before_mib"]
        if keep:
            self._describe(outcome)
        else:
            self._workers.pop(candidate.label).close()

    def _describe(self, outcome: Outcome) -> None:
        """Find out what needs no worker: size on disk, certificate."""
        candidate = outcome.candidate
        assert outcome.about is not None
        if candidate.target:
            outcome.file_bytes = bytes_of(Path(outcome.about.file or model_path(candidate.target)))
        found = summarise_certificate(candidate)
        if found.checkpoint and outcome.about.checkpoint and found.checkpoint != outcome.about.checkpoint:
            found = replace(found, state="other model")
        outcome.certificate = found

    def _time(self, outcome: Outcome, *, counts: bool) -> None:
        sizes = self.settings.sizes[:1] if outcome.candidate is MATRIX_BASELINE else self.settings.sizes
        for size in sizes:
            request = {"do": "time", "images": self._images(outcome, size), "calls": self.settings.calls}
            answer = self._ask(outcome, request)
            if answer is None:
                return
            if counts:
                outcome.rounds.setdefault(size_name(size), []).append(answer["ms"])
                outcome.busy.append(round(answer["cores"], 3))

    def _ask(self, outcome: Outcome, request: dict[str, Any]) -> dict[str, Any] | None:
        """An answer; None when the candidate has failed, now or before."""
        worker = self._workers.get(outcome.label)
        if worker is None:
            return None
        try:
            return worker.ask(request, timeout=self.settings.timeout)
        except (ModelRefusedError, WorkerFailedError) as error:
            if isinstance(error, ModelRefusedError) and request["do"] == "score":
                outcome.problem = f"{outcome.label}: no AP: {error}"
            else:
                self._give_up(outcome, error)
        return None

    def _give_up(self, outcome: Outcome, error: MobiledetError) -> None:
        outcome.problem = " ".join(str(error).split())
        logger.warning("%s", outcome.problem)
        self._workers.pop(outcome.label).close()

    def _running(self, order: random.Random | None = None) -> list[Outcome]:
        """Those whose worker is alive, in another order each time where there is an ``order``."""
        running = [outcome for outcome in self.outcomes if outcome.label in self._workers]
        if order is not None:
            order.shuffle(running)
        return running

    def _images(self, outcome: Outcome, size: Size | None) -> list[str]:
        assert outcome.about is not None
        return self._save(outcome.about.input_size if size is None else size)

    def _save(self, size: Size) -> list[str]:
        """Files of the images of a size."""
        if size not in self._saved:
            self._saved[size] = []
            for index, image in enumerate(make_images(size, self._sources)):
                path = f"{self._folder.name}/{size_name(size)}-{index}.npy"
                np.save(path, image)
                self._saved[size].append(path)
        return self._saved[size]
