"""Batches: what the loop gets, in an order that any number of workers and any interruption leave unchanged."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mobiledet.data.coco import ImageRecord
from mobiledet.data.transforms import TrainTransform
from mobiledet.errors import DataError, ImageError, WorkerError
from mobiledet.preprocess import fit_image
from mobiledet.structures import ImageArray, ImageGeometry, ResizeRule, Target
from mobiledet.utils.processes import keep_socket_paths_short

WORKER_NICENESS = 10
"""Workers step back: the network's threads wait for the slowest of them, so interrupting one delays all."""


class SampleKey(NamedTuple):
    """Names one sample of a run: the same key is the same pixels, in whichever process."""

    epoch: int
    image: int


@dataclass(frozen=True)
class Sample:
    """One image ready for the network: ``(H, W, 3)`` uint8 RGB, and its boxes in network pixels."""

    image: ImageArray
    target: Target
    geometry: ImageGeometry
    image_id: int


@dataclass(frozen=True)
class Batch:
    """Several of them.

    Attributes:
        images: ``(B, 3, H, W)`` uint8 RGB, stored channels-last; a list of ``(3, H_i, W_i)`` where sizes differ.
        targets: What is in each image; NumPy, because every tensor passed between processes costs a file handle.
        geometries: How each image was fitted.
        image_ids: The data set's own ids.
    """

    images: Tensor | list[Tensor]
    targets: list[Target]
    geometries: list[ImageGeometry]
    image_ids: list[int]

    def images_on(self, device: torch.device) -> Tensor | list[Tensor]:
        """The images, moved to a device."""
        if isinstance(self.images, Tensor):
            return self.images.to(device, non_blocking=True)
        return [image.to(device, non_blocking=True) for image in self.images]

    def target_tensors(self, device: torch.device | str = "cpu") -> list[dict[str, Tensor]]:
        """Targets as the detector takes them."""
        names = ("boxes", "labels", "iscrowd", "scores")
        return [
            {
                name: torch.from_numpy(values).to(device)
                for name in names
                if (values := getattr(target, name)) is not None
            }
            for target in self.targets
        ]


class ImageSet(Protocol):
    """What samples are made of: a `CocoDataset`, or one with other targets."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageRecord: ...

    def read(self, index: int) -> ImageArray:
        """The image at ``index``, ``(height, width, 3)`` uint8 RGB; raises ImageError."""


class ImageCache:
    """Decoded images kept in memory; filled before workers start, so that they share one copy."""

    def __init__(self, dataset: ImageSet) -> None:
        needed = sum(record.height * record.width * 3 for record in (dataset[i] for i in range(len(dataset))))
        free = _available_memory()
        if needed > 0.7 * free:
            raise DataError(
                f"data.cache needs {needed / 2**30:.1f} GiB for {len(dataset)} images but only "
                f"{free / 2**30:.1f} GiB are free; leave it off"
            )
        self._images = [dataset.read(index) for index in range(len(dataset))]

    def __getitem__(self, index: int) -> ImageArray:
        return self._images[index]


class DetectionImages(Dataset[Sample | ImageError]):
    """Reads, augments or fits the images of a data set.

    Without a transform images are only fitted. The seed is the start of every sample's random numbers.
    """

    def __init__(
        self,
        dataset: ImageSet,
        *,
        resize: ResizeRule,
        transform: TrainTransform | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
    ) -> None:
        self.dataset = dataset
        self.resize = resize
        self.transform = transform
        self.seed = seed
        self.cache = cache

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> Sample | ImageError:
        """The sample of a key; an image that can't be read comes back as the error, for :class:`Batches` to raise."""
        record = self.dataset[key.image]
        seed, others = 0, []
        if self.transform is not None:
            seed = int(np.random.SeedSequence([self.seed, key.epoch, key.image]).generate_state(1)[0])
            others = self.transform.mosaic.others(seed, len(self.dataset))
        try:
            image, *more = (self.cache[i] if self.cache else self.dataset.read(i) for i in (key.image, *others))
        except ImageError as error:
            return error
        if self.transform is None:
            fitted, geometry = fit_image(image, self.resize)
            target = record.target.moved(geometry.to_network(record.target.boxes))
            return Sample(fitted, target, geometry, record.image_id)
        target = record.target
        if more:
            targets = [target, *(self.dataset[index].target for index in others)]
            image, target = self.transform.mosaic.join([image, *more], targets, seed)
        changed, target = self.transform(image, target, seed)
        geometry = ImageGeometry((image.shape[0], image.shape[1]), (changed.shape[0], changed.shape[1]))
        return Sample(changed, target, geometry, record.image_id)


class EpochSampler:
    """Batches of keys in a new order every epoch, starting anywhere.

    Every batch is full: the last one is filled up from the start of the epoch's order, so batch-norm never meets a
    batch of one. Of several processes each gets its part of every batch: together they see what one would see.

    Args:
        length: Images in the data set.
        batch_size: Images of a batch, of all processes together.
        seed: Decides the orders.
        rank: This process among those training together.
        world_size: How many there are; must divide ``batch_size``.
    """

    def __init__(self, length: int, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if length < 1:
            raise DataError("the data set has no images")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.first_batch = 0

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, wherever this one starts."""
        return -(-self.length // self.batch_size)

    def __len__(self) -> int:
        return self.batches_per_epoch - self.first_batch

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration that of ``epoch``, from ``first_batch`` on."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        batches = np.resize(order, (self.batches_per_epoch, self.batch_size))
        for batch in batches[self.first_batch :]:
            yield [SampleKey(self.epoch, int(index)) for index in batch[self.rank :: self.world_size]]


def in_order(length: int, batch_size: int) -> list[list[SampleKey]]:
    """Every image once, in batches of which the last may be smaller."""
    keys = [SampleKey(0, index) for index in range(length)]
    return [keys[start : start + batch_size] for start in range(0, length, batch_size)]


class Batches:
    """Iterates over batches, read ahead by worker processes.

    Without workers they are read in this process; ``pin_memory`` is for a GPU.
    """

    def __init__(
        self,
        images: DetectionImages,
        sampler: EpochSampler | list[list[SampleKey]],
        *,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if workers:
            keep_socket_paths_short()
        self.sampler = sampler
        self._loader: DataLoader[Batch | ImageError] = DataLoader(
            images,  # type: ignore[arg-type]  # keyed by SampleKey, not by int
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            prefetch_factor=3 if workers else None,
            # Without its own, every pass draws a seed from torch's generator: one more in a resumed epoch.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def close(self) -> None:
        """End the worker processes; without it a program that still holds a batch waits for them when it exits."""
        if (iterator := self._loader._iterator) is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        self._loader._iterator = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches.

        Raises:
            DataError: an image that was fine when training started can't be read any more.
            WorkerError: a worker process died.
        """
        problem = None
        try:
            iterator = iter(self._loader)
            _notice_dead_workers_between_batches()
            for batch in iterator:
                if isinstance(batch, ImageError):
                    problem = batch
                    break
                yield batch
        except (RuntimeError, EOFError, OSError) as error:
            # EOFError and OSError: a batch was announced, but who holds its memory is gone.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise WorkerError(
                "a process that reads images was killed; if memory ran out, try fewer data.workers"
            ) from None
        if problem is not None:
            # Drops the last hold on the workers, which ends them; kept alive by the traceback, they would linger.
            del iterator
            self._loader._iterator = None
            raise DataError(str(problem))


def collate(found: Sequence[Sample | ImageError]) -> Batch | ImageError:
    """Stack samples that have one size, list others; pixels stay channels-last in memory. The first error, if any."""
    samples = [sample for sample in found if isinstance(sample, Sample)]
    if len(samples) < len(found):
        return next(error for error in found if isinstance(error, ImageError))
    pixels = [sample.image for sample in samples]
    images: Tensor | list[Tensor]
    if len({image.shape for image in pixels}) == 1:
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    else:
        images = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in pixels]
    return Batch(
        images,
        [sample.target for sample in samples],
        [sample.geometry for sample in samples],
        [sample.image_id for sample in samples],
    )


def _notice_dead_workers_between_batches() -> None:
    """Undo PyTorch's SIGCHLD handler.

    It raises wherever this process happens to be when a worker dies, halfway through an optimiser step for instance,
    after which nothing could be saved. Without it the death is noticed when the worker's batch doesn't come.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _start_worker(worker: int) -> None:  # noqa: ARG001 - the DataLoader passes it
    # Ctrl-C reaches the whole process group, and so does SIGTERM from a service manager or batch system; the main
    # process decides when to stop and ends the workers itself. If one hangs, a second SIGTERM does end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    cv2.setNumThreads(0)
    os.nice(WORKER_NICENESS)


def _available_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
