"""A whole run: from a config and a folder to trained, scored and saved weights."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobiledet.config import Config, config_from_plain
from mobiledet.data.coco import CocoDataset
from mobiledet.data.loader import Batch, Batches, DetectionImages, EpochSampler, ImageCache, in_order
from mobiledet.data.transforms import TrainTransform
from mobiledet.errors import CheckpointError, DataError, WorkerError
from mobiledet.evaluation.metrics import Metrics, score_detections
from mobiledet.evaluation.predictions import checkpoint_record, metrics_record
from mobiledet.evaluation.scoring import Score, most_counted
from mobiledet.evaluation.thresholds import best_threshold
from mobiledet.models.build import build_detector
from mobiledet.models.distributed import synchronise_norms
from mobiledet.models.quantization import imitate_int8, measure_ranges, trained_ranges
from mobiledet.runtime.detector import Detector
from mobiledet.runtime.pytorch import PyTorchBackend, model_card, set_threads
from mobiledet.training.distributed import ProcessGroup, predict_together
from mobiledet.training.hooks import Hooks
from mobiledet.training.loggers import Loggers, flatten
from mobiledet.training.loop import Trainer, train_one_epoch
from mobiledet.training.optim import WeightAverage, build_optimizer, lr_factor, parameter_groups
from mobiledet.training.precision import Precision, choose_precision
from mobiledet.training.progress import Progress, Row, TimeLeft, random_states, set_random_states
from mobiledet.training.reporting import Reporter
from mobiledet.training.stopping import StopRequest
from mobiledet.training.teacher import TEACHER_FILE, taught_images
from mobiledet.utils.files import file_digest, write_json
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import listing
from mobiledet.version import __version__
from mobiledet.weights.checkpoint import load_latest, save_checkpoint
from mobiledet.weights.folded_norms import reinsert_norms
from mobiledet.weights.transfer import InitialWeights, Transfer, load_into

logger = logging.getLogger(__name__)

COCO_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

MAX_PREDICTION_BATCH = 16

NORM_IMAGES = 256
"""Training images on which folded norms are measured; a channel sees thousands of places in each."""

NORM_IMAGES_OF_PROPOSALS = 32
"""The same where a second stage sees every proposal of each: as many places, and slow."""

RANGE_IMAGES = 128
"""Training images on which the ranges of INT8 are measured, before each epoch that rounds."""

SAVE_SECONDS = 600
"""Longest time without a checkpoint; a long epoch is saved in its middle, and resumed there."""

RESUMABLE_SETTINGS = ("data.root", "data.workers", "data.cache", "train.threads", "train.device", "train.devices")
"""What may change between a run and its resumption: where the data lies and how fast it is read."""


class Run:
    """One training run in its folder.

    The config has ``num_classes`` filled in, the folder is held by the first process, and ``stop`` is asked after every
    step. ``hooks`` are a program's own parts.
    """

    def __init__(
        self,
        *,
        config: Config,
        folder: Path,
        train: CocoDataset,
        val: CocoDataset | None,
        stop: StopRequest,
        hooks: Hooks | None = None,
        processes: ProcessGroup | None = None,
    ) -> None:
        self.hooks, self.processes = hooks or Hooks(), processes or ProcessGroup()
        self.config, self.folder, self.train, self.val, self.stop = config, folder, train, val, stop
        self.images = taught_images(train, folder / TEACHER_FILE) if config.train.teacher else train
        device = self.processes.device(config.train.device)
        self.threads = set_threads(self.processes.threads(config.train.threads))
        random.seed(config.seed)
        np.random.seed(config.seed)
        torch.manual_seed(config.seed)
        self.model = build_detector(config.model, weights_follow=True).to(device)
        if config.train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.model.freeze(stages=config.train.freeze_stages, norm=config.train.freeze_norm)
        if config.train.sync_norm and self.processes.size > 1:
            synchronise_norms(self.model, device)
        self.average = WeightAverage(self.model, config.train.ema_decay) if config.train.ema_decay else None
        self.precision = Precision(choose_precision(config.train.precision, device), device)
        make = self.hooks.optimizer
        if make is not None:
            self.optimizer = make(parameter_groups(self.model, config.optimizer), config.optimizer.lr)
        else:
            self.optimizer = build_optimizer(self.model, config.optimizer)
        self.progress = Progress()
        self.sampler = EpochSampler(
            len(self.images),
            batch_size=config.schedule.batch_size,
            seed=config.seed,
            rank=self.processes.rank,
            world_size=self.processes.size,
        )
        self.batches = self._training_batches(device)
        self.trainer = self._trainer(device)
        self.reporter = Reporter(
            folder,
            epochs=config.schedule.num_epochs,
            batches_per_epoch=self.sampler.batches_per_epoch,
            loggers=self._loggers(),
            time_left=TimeLeft(
                config.schedule, batches_per_epoch=self.sampler.batches_per_epoch, scored=val is not None
            ),
            processes=self.processes,
        )

    def start_from(self, weights: InitialWeights) -> Transfer:
        """Begin with other weights than fresh ones.

        Folded batch-norm layers are restored with statistics of the training images, unless the recipe keeps the
        backbone's frozen anyway.
        """
        with torch.random.fork_rng(devices=[]):
            transfer = load_into(self.model, weights, self.train.names)
            if weights.folded:
                two_stages = len(self.model.backbone_parts()) > 1
                dataset = self.train.first(NORM_IMAGES_OF_PROPOSALS if two_stages else NORM_IMAGES)
                images = self._as_they_are(dataset, "measuring norms", batch_size=1 if two_stages else 16)
                count = reinsert_norms(self.model, images, transfer.loaded)
                what = f"{count} batch-norm layers restored and re-estimated on {len(dataset)} images"
                transfer.rows.append(("norms", what))
        if self.average is not None:
            self.average.restart()
        return transfer

    def _as_they_are(self, dataset: CocoDataset, what: str, *, batch_size: int) -> Iterator[Any]:
        """Images in the network's size, not augmented, as the model takes them; ``what`` names the bar."""
        sampler = in_order(len(dataset), batch_size)
        batches = Batches(DetectionImages(dataset, resize=self.config.model.resize_rule), sampler)
        bar = progress_bar(batches, what=what, total=len(sampler), unit="batch")
        return (batch.images_on(self.trainer.device) for batch in bar)

    def fit(self) -> bool:
        """Train from wherever the run stands to its end.

        Returns:
            True when it is finished, False when it was asked to stop and saved.

        Raises:
            TrainingError: too many steps weren't finite, or another process stopped or was lost.
            CheckpointError: a checkpoint can't be written.
            DataError: an image vanished, or who reads it; saved first.
        """
        with closing(self.batches):
            self.trainer.call = self.processes.parallel(self.model, self.trainer.device)
            try:
                self._train_to_the_end()
            except DataError:
                self.save_last()  # between two steps, so that a resume goes on exactly
                raise
        self.reporter.finish(self.progress, f"{self.config.name} ({self.folder})")
        return self.progress.finished

    def _train_to_the_end(self) -> None:
        progress, schedule = self.progress, self.config.schedule
        while not progress.finished:
            row = self._train_and_score()
            if row is None:  # stopped inside the epoch, or inside its scoring, which a resume does again
                with self.processes.together():
                    self.save_last()
                break
            progress.next_epoch(row)
            out_of_patience = schedule.patience is not None and progress.scorings_since_best >= schedule.patience
            progress.finished = progress.epoch >= schedule.num_epochs or out_of_patience
            timings = self.processes.gather(self.reporter.timing(row["epoch"]))
            with self.processes.together():
                self.reporter.end_epoch(progress, row, timings)
                self.save_last()
            if out_of_patience:
                logger.info("no better AP in %d scorings: stopping early", progress.scorings_since_best)
            called = self.hooks.on_epoch
            if self._asked_to_stop(called is not None and called(dict(row)) is False):
                break

    def resume(self) -> None:
        """Continue from the newest checkpoint of the folder, if there is one.

        Raises:
            CheckpointError: it is damaged, or the data isn't what it was trained on.
        """
        with self.processes.together():
            content = load_latest(self.folder) if self.processes.is_first else None
        content = self.processes.share(content)
        if content is None:
            logger.info("no checkpoint in %s yet: starting from the beginning", self.folder)
            return
        try:
            self._take_up(content)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(f"{self.folder}: its last checkpoint is not of this run: {why:.200}") from None
        logger.info("resuming %s after epoch %d, batch %d", self.folder, self.progress.epoch, self.progress.batch)

    def _take_up(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: Something that decides the results isn't what it was.
        """
        training = content["training"]
        before, now = (dict(flatten(config.plain())) for config in (config_from_plain(content["config"]), self.config))
        changed = [
            f"{key} was {before.get(key)!r:.60} and is {now.get(key)!r:.60} in {self.folder / 'config.json'}"
            for key in now | before
            if key not in RESUMABLE_SETTINGS and before.get(key) != now.get(key)
        ]
        texts = {
            "teacher": f"{self.folder / TEACHER_FILE} is not what this run was taught by",
            "data": f"{self.train.annotation_file} is not what this run was trained on",
            "images": f"images below {self.train.image_dir} are not those that this run was trained on",
        }
        if self.val is not None:
            texts["val"] = f"{self.val.annotation_file} is not what this run was scored on"
            texts["val_images"] = f"images below {self.val.image_dir} are not those that this run was scored on"
        changed += [text for key, text in texts.items() if training.get(key, self.data[key]) != self.data[key]]
        if changed:
            raise CheckpointError(
                f"{listing(changed, 3, '; ')}; restore what was there, or start a new run: going on with something "
                "else would give the results of neither"
            )
        then = training.get("processes", 1), training["threads"], training["precision"]
        here = self.processes.size, self.threads, self.precision.name
        if then != here:
            logger.warning(
                "this run used %d processes of %d threads in %s, now %d of %d in %s: sums round differently, so "
                "results will too",
                *then,
                *here,
            )
        self.model.load_state_dict(content["model"])
        imitate_int8(self.model, content.get("ranges"))
        if self.average is not None:
            self.average.load(content["ema"], training["ema_updates"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.precision.load_state_dict(training["scaler"])
        self.progress = Progress.from_plain(training["progress"])
        set_random_states(training["random"])

    @cached_property
    def data(self) -> dict[str, str | None]:
        """Fingerprints of what this run is trained and scored on."""
        train, val = self.train, self.val
        return {
            "data": train.fingerprint(),
            "images": train.image_fingerprint(),
            "val": None if val is None else val.fingerprint(),
            "val_images": None if val is None else val.image_fingerprint(),
            "teacher": file_digest(self.folder / TEACHER_FILE) if self.config.train.teacher else None,
        }

    def save_last(self) -> None:
        """Have the first process write ``last.pt``, from which :meth:`resume` continues exactly."""
        if not self.processes.is_first:
            return
        content = {
            **self._identity(),
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(self.model) if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "training": {
                "progress": self.progress.plain(),
                "ema_updates": self.average.updates if self.average else 0,
                "scaler": self.precision.state_dict(),
                "random": random_states(),
                "threads": self.threads,
                "precision": self.precision.name,
                "processes": self.processes.size,
                **self.data,
            },
        }
        save_checkpoint(self.folder / "last.pt", content, keep_previous=True)

    def _train_and_score(self) -> Row | None:
        """The epoch's line of results; None when asked to stop before it was complete."""
        try:
            if self.progress.epoch >= self.config.float_epochs and self.progress.batch == 0:
                self._imitate_int8()
            self.reporter.start_epoch(self.progress)
            done = self._train_epoch()
            self.reporter.pause()
            return self._score() if done and not self._asked_to_stop() else None
        except WorkerError:
            self.reporter.pause()
            # A signal to the whole process group ends the workers, and may reach this process a moment later.
            time.sleep(0.5)
            if not self._asked_to_stop():
                raise
            return None

    def _imitate_int8(self) -> None:
        """Train and score from here on as the INT8 file rounds, in ranges measured with the weights as they are."""
        if trained_ranges(self.model) is None:  # no score so far says anything of that file
            self.progress.best_ap, self.progress.best_epoch, self.progress.scorings_since_best = None, 0, 0
            logger.info("from epoch %d on weights and results are rounded as in INT8", self.progress.epoch + 1)
        imitate_int8(self.model, None)
        with torch.random.fork_rng(devices=[]):
            images = self._as_they_are(self.train.first(RANGE_IMAGES), "measuring ranges", batch_size=16)
            # Statistics of batch-norm, and with them ranges, are those of the first process.
            imitate_int8(self.model, self.processes.share(measure_ranges(self.model, images)))

    def _train_epoch(self) -> bool:
        self.sampler.start(self.progress.epoch, self.progress.batch)
        saved = time.monotonic()

        def after_step(losses: dict[str, float], images: int) -> bool:
            nonlocal saved
            stop = False
            with self.processes.together():
                self.reporter.step(self.progress, losses, images * self.processes.size)
                called = self.hooks.on_step
                if called is not None:
                    named = {f"loss/{name}": value for name, value in losses.items()}
                    position = {"epoch": self.progress.epoch + 1, "step": self.progress.step, "images": images}
                    stop = called({**position, **named}) is False
                if not stop and time.monotonic() - saved > SAVE_SECONDS:
                    self.save_last()
                    saved = time.monotonic()
            return not self._asked_to_stop(stop)

        return train_one_epoch(
            self.trainer,
            self._next_batches(),
            self.progress,
            batches_per_epoch=self.sampler.batches_per_epoch,
            after_step=after_step,
            waiting=self.reporter.clock.waiting,
        )

    def _next_batches(self) -> Iterator[Batch]:
        """Batches as long as every process has its part of the next one; the first is drawn."""
        batches, numbers = iter(self.batches), itertools.count(self.progress.batch)
        while True:
            batch = None
            with self.processes.together():
                batch = next(batches, None)
                if batch is not None:
                    self.reporter.first_batch(batch, self.train.names)
            if batch is None:
                return
            if self.processes.size > 1:
                # Random samples of boxes depend on where the run stands alone, as nothing else of them is saved.
                where = [self.config.seed, self.progress.epoch, next(numbers), self.processes.rank]
                torch.manual_seed(int(np.random.SeedSequence(where).generate_state(1)[0]))
            yield batch

    def _asked_to_stop(self, here: bool = False) -> bool:
        """Whether any of the processes was asked to, or wants to."""
        return self.processes.any(here or bool(self.stop))

    def _score(self) -> Row | None:
        """The epoch's line of results; saves the best weights. None when asked to stop meanwhile."""
        progress, schedule = self.progress, self.config.schedule
        row: Row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": self.trainer.learning_rate(max(0, progress.step - 1)),
            **{f"loss/{name}": value for name, value in progress.mean_losses().items()},
            "skipped_steps": progress.skipped_steps,
        }
        last = progress.epoch + 1 == schedule.num_epochs
        if self.val is None or not (last or (progress.epoch + 1) % schedule.val_every == 0):
            if self.val is None:
                with self.processes.together():
                    self._save_best(None)
            return row
        backend = self._scored_model()
        detector = Detector(backend)
        results, losses = predict_together(
            self.processes,
            backend,
            self.val,
            batch_size=min(MAX_PREDICTION_BATCH, schedule.batch_size),
            workers=min(self.config.data.workers, 2),
            go_on=lambda: not self.stop,
        )
        if self._asked_to_stop():
            return None
        figures, threshold = None, None
        with self.processes.together():
            if self.processes.is_first:
                truth = self.val.coco_json()
                figures = score_detections(truth, results, max_detections=most_counted(detector.card.max_detections))
                threshold = best_threshold(truth, results)
        metrics = self.processes.share(figures)
        assert metrics is not None
        row |= {f"val/{name}": getattr(metrics, name) for name in COCO_FIGURES}
        row |= {f"val_loss/{name}": value for name, value in losses.items()}
        if metrics.AP is not None and progress.best_ap is not None and progress.best_ap >= metrics.AP:
            progress.scorings_since_best += 1
            return row
        progress.best_ap, progress.best_epoch, progress.scorings_since_best = metrics.AP, progress.epoch + 1, 0
        with self.processes.together():
            record = self._save_best(metrics, threshold)
            self.reporter.predictions(detector, self.val, threshold)
            if record is not None and self.hooks.on_best is not None:
                self.hooks.on_best(Score(metrics, threshold, results, record, self.val, detector.card, {}))
        return row

    def _save_best(self, metrics: Metrics | None, threshold: float | None = None) -> dict[str, Any] | None:
        """Save the weights and their figures; gives the content of metrics.json, in the first process."""
        if not self.processes.is_first:
            return None
        path = self.folder / "best.pt"
        content = {**self._identity(), "model": self._scored_weights(), "ema": None, "epoch": self.progress.epoch + 1}
        content["threshold"] = threshold
        save_checkpoint(path, content)
        if metrics is None:
            return None
        record = metrics_record(metrics, threshold, checkpoint_record(path, self.config.plain()))
        write_json(self.folder / "metrics.json", record)
        return record

    def _scored_model(self) -> PyTorchBackend:
        """The weights that count, in a model of their own, so that scoring can't disturb training."""
        # Its fresh weights, thrown away at once, must not draw from the generator whose state a resume restores.
        with torch.random.fork_rng(devices=[]):
            model = build_detector(self.config.model, weights_follow=True)
        model.load_state_dict(self.processes.copy_first(self._scored_weights()))
        imitate_int8(model, trained_ranges(self.model))
        return PyTorchBackend(model, model_card(model, self.train.names), device=self.trainer.device)

    def _scored_weights(self) -> dict[str, Tensor]:
        """The averaged weights, or the model's own where nothing is averaged."""
        return self.average.state_dict(self.model) if self.average else self.model.state_dict()

    def _identity(self) -> dict[str, Any]:
        return {
            "mobiledet": __version__,
            "config": self.config.plain(),
            "categories": [{"id": category.id, "name": category.name} for category in self.train.categories],
            "ranges": trained_ranges(self.model),
        }

    def _training_batches(self, device: torch.device) -> Batches:
        config = self.config
        fill = (round(config.model.mean[0]), round(config.model.mean[1]), round(config.model.mean[2]))
        images = DetectionImages(
            self.images,
            resize=config.model.resize_rule,
            transform=TrainTransform(
                resize=config.model.resize_rule, augment=config.data.augment, fill=fill, own=self.hooks.augment
            ),
            seed=config.seed,
            cache=ImageCache(self.images) if config.data.cache else None,
        )
        return Batches(images, self.sampler, workers=config.data.workers, pin_memory=device.type == "cuda")

    def _loggers(self) -> Loggers:
        settings = self.config.train
        names = (*settings.loggers, *(("tensorboard",) if settings.tensorboard else ()))
        return Loggers(names if self.processes.is_first else (), self.folder, self.config.plain())

    def _trainer(self, device: torch.device) -> Trainer:
        own, config = self.hooks.schedule, self.config
        steps = -(-self.sampler.batches_per_epoch // config.schedule.accumulate)

        def learning_rate(step: int) -> float:
            if own is None:
                return config.optimizer.lr * lr_factor(step, steps_per_epoch=steps, config=config.schedule)
            return config.optimizer.lr * own(step, steps * config.schedule.num_epochs)

        return Trainer(
            model=self.model,
            call=self.model,
            optimizer=self.optimizer,
            average=self.average,
            precision=self.precision,
            learning_rate=learning_rate,
            clip_norm=config.optimizer.clip_norm,
            accumulate=config.schedule.accumulate,
            max_bad_steps=config.train.max_bad_steps,
            device=device,
            processes=self.processes,
        )
