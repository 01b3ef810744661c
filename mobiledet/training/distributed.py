"""The processes that train one model together, as torchrun starts them.

Gradients are averaged by PyTorch's `DistributedDataParallel`; here is what else must be the same in all processes:
whether there is a next step, its losses, and what the run knows of its scoring. What goes wrong in one process ends
all of them at the same step. A process that trains alone passes through all of this unchanged.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mobiledet.config import Config
from mobiledet.data.coco import CocoDataset
from mobiledet.data.loader import Batches, DetectionImages, SampleKey, in_order
from mobiledet.errors import (
    ConfigError,
    DataError,
    MobiledetError,
    OtherProcessDataError,
    OtherProcessError,
    OtherProcessWorkerError,
    TrainingError,
    WorkerError,
)
from mobiledet.evaluation.predictions import predict_dataset
from mobiledet.runtime.detector import Detector
from mobiledet.runtime.pytorch import PyTorchBackend, choose_device
from mobiledet.utils.machine import read_text, usable_cores
from mobiledet.utils.processes import process_rank

PATIENCE = "MOBILEDET_PROCESS_TIMEOUT"
"""Environment variable: seconds that a process waits for the others before it gives them up for lost."""

PATIENCE_SECONDS = 600
"""Without it. Scoring COCO's validation images takes the first process a minute, in which the others wait."""

SMALL_SPLIT = 300
"""Images up to which a split is scored without processes that read: starting them takes longer."""

_FAILURES = (
    (WorkerError, OtherProcessWorkerError),
    (DataError, OtherProcessDataError),
    (MobiledetError, OtherProcessError),
)
"""Kinds of errors that training answers differently, the gravest last, and what each is in the other processes."""

T = TypeVar("T")


class ProcessGroup:
    """This process and the others; to be entered, which connects them.

    Attributes:
        rank: Number of this process; 0 writes the run folder and speaks.
        size: How many there are.
        local_rank: Number of this process on its machine, and of the GPU it takes.
        communicating: Seconds that this process has waited for the others' numbers.
    """

    def __init__(self) -> None:
        self.rank, self.size = process_rank()
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.communicating = 0.0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect the processes.

        Raises:
            MobiledetError: Inside, one of them was lost.
        """
        if self.size == 1:
            yield
            return
        seconds = os.environ.get(PATIENCE, str(PATIENCE_SECONDS))
        if not seconds.isdigit() or int(seconds) == 0:
            raise ConfigError(f"{PATIENCE}={seconds} must be a number of seconds")
        patience = timedelta(seconds=int(seconds))
        # Gradients go from GPU to GPU; messages about the run itself wait for none.
        backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        try:
            store, rank, size = next(rendezvous("env://", timeout=patience))
            # Processes that torchrun started again would find the addresses of those that are gone (PyTorch 2.14).
            store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            dist.init_process_group(backends, store=store, rank=rank, world_size=size, timeout=patience)
            yield
        except (RuntimeError, ValueError) as error:
            if not _is_lost_connection(error):
                raise
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"another process of this training ended, or can't be reached any more ({reason:.150}); go on from the "
                "last checkpoint with --resume"
            ) from None
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Whether what is inside went well in all processes is found out at its end; nothing inside may communicate.

        Raises:
            OtherProcessError: It failed in another process, more gravely than here; the subclass says how.
        """
        problem: MobiledetError | None = None
        try:
            yield
        except MobiledetError as error:
            problem = error
        if self.size > 1:
            grave = next((grade for grade, (kind, _) in enumerate(_FAILURES) if isinstance(problem, kind)), -1)
            gravest, rank = divmod(
                self._reduce(grave * self.size + self.rank if problem is not None else -1), self.size
            )
            if gravest > grave:
                raise _FAILURES[gravest][1](f"stopped, because process {rank} did")
        if problem is not None:
            raise problem

    def any(self, value: bool) -> bool:
        """Whether it is true in any process."""
        return bool(self._reduce(int(value))) if self.size > 1 else value

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of each value over all processes; NaN where it isn't finite in one of them."""
        if self.size == 1:
            return values
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        with self._timed():
            dist.all_reduce(sums)
        return dict(zip(values, (sums / self.size).tolist(), strict=True))

    def gather(self, value: T) -> list[T]:
        """The value of each process, in the order of their ranks, in the first one; nothing in the others."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_first else None
        with self._timed():
            dist.gather_object(value, found)
        return found or []

    def share(self, value: T) -> T:
        """The value that the first process has."""
        if self.size == 1:
            return value
        content: list[Any] = [value if self.is_first else None]
        with self._timed():
            dist.broadcast_object_list(content)
        shared: T = content[0]
        return shared

    def copy_first(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A copy of the first process's tensors, in all processes."""
        if self.size == 1:
            return state
        copied = {name: tensor.clone() for name, tensor in state.items()}
        with self._timed():
            for tensor in copied.values():
                dist.broadcast(tensor, 0)
        return copied

    def device(self, name: str) -> torch.device:
        """The device of this process: of several GPUs the one with its number.

        Raises:
            ConfigError: There is no such device.
        """
        device = choose_device(name, setting="train.device=")
        if self.size == 1 or device.type != "cuda" or ":" in name:
            return device
        if (gpus := torch.cuda.device_count()) < local_size():
            raise ConfigError(f"{local_size()} processes on a machine with {gpus} GPUs; start as many as there are")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def check(self, config: Config) -> None:
        """Make sure that these processes can train by a config.

        Raises:
            ConfigError: A batch can't be split evenly, or the config asks for more processes.
        """
        batch_size, devices = config.schedule.batch_size, config.train.devices
        if self.size == 1 and devices > 1:
            raise ConfigError(
                f"train.devices={devices}, but this is one process; mobiledet train and torchrun start several"
            )
        if batch_size % self.size:
            nearest = max(1, round(batch_size / self.size)) * self.size
            raise ConfigError(
                f"schedule.batch_size={batch_size} can't be split among {self.size} processes; the nearest is {nearest}"
            )

    def threads(self, wanted: int) -> int:
        """Processor threads of this process: what was asked for, or its part of the machine's cores; 0 for all."""
        return wanted or (max(1, usable_cores() // local_size()) if self.size > 1 else 0)

    def agents(self) -> list[str]:
        """What started the processes, each with its machine: the same again when torchrun restarts lost ones."""
        if self.size == 1:
            return []
        parent = os.getppid()
        started = read_text(f"/proc/{parent}/stat").rpartition(")")[2].split()[19:20]
        found = self.gather("-".join([socket.gethostname(), str(parent), *started]))
        return sorted(set(found))

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What is called in the place of the model, so that gradients become those of the whole batch."""
        if self.size == 1:
            return model
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(_Restride(parameter))  # type: ignore[no-untyped-call]
        # Before every batch it copies batch-norm's statistics from the first process, whose are saved.
        wrapped = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
        # A function's annotations, which here are text, would be compared with the type itself.
        wrapped.register_comm_hook(self, lambda state, bucket: _averaged(state, bucket))
        return wrapped

    def exchanging(self, call: object, now: bool) -> AbstractContextManager[None]:
        """A context for one of several batches whose gradients are added up; they are exchanged with the last."""
        return nullcontext() if now or not isinstance(call, DistributedDataParallel) else call.no_sync()

    def _reduce(self, code: int) -> int:
        """The largest code of all processes."""
        codes = torch.tensor([code])
        with self._timed():
            dist.all_reduce(codes, dist.ReduceOp.MAX)
        return int(codes)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.communicating += time.perf_counter() - start


def predict_together(
    processes: ProcessGroup,
    backend: PyTorchBackend,
    dataset: CocoDataset,
    *,
    batch_size: int,
    workers: int,
    go_on: Callable[[], bool],
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """COCO results of a whole data set, and its mean losses.

    Every process takes whole batches: the same images together as in one process, whose results are the same. They are
    those of the whole data set in the first process, and of one's own part in the others; the losses are everywhere
    those of the whole, without augmentation and in evaluation mode. Random numbers that a loss draws don't count.

    Raises:
        DataError: An image can't be read.
        OtherProcessError: Another process failed.
    """
    count, step = len(dataset), processes.size * batch_size
    starts = range(processes.rank * batch_size, count, step)
    mine = [index for start in starts for index in range(start, min(start + batch_size, count))]
    results: list[dict[str, Any]] = []
    with processes.together():
        if mine:
            detector = Detector(backend)
            results = predict_dataset(
                detector,
                detector.names,
                dataset if processes.size == 1 else dataset.subset(mine),
                batch_size=batch_size,
                workers=workers if len(mine) > SMALL_SPLIT else 0,
                on_batch=lambda _: go_on(),
            )
        losses = _losses(
            backend, dataset, in_order(count, batch_size)[processes.rank :: processes.size], workers, go_on
        )
    place = {dataset.image_id(index): index for index in range(count)}
    found = sorted(itertools.chain(*processes.gather(results)), key=lambda result: place[result["image_id"]])
    # In the order of the data set, so that sums are rounded as those of one process.
    parts = [part for row in itertools.zip_longest(*processes.gather(losses)) for part in row if part is not None]
    means = {name: sum(part[name] for part in parts) / count for name in (parts[0] if parts else ())}
    return found, processes.share(means)


def _losses(
    backend: PyTorchBackend,
    dataset: CocoDataset,
    batches: list[list[SampleKey]],
    workers: int,
    go_on: Callable[[], bool],
) -> list[dict[str, float]]:
    """Losses of each batch, times its number of images."""
    model, device = backend.model, backend.device
    sums: list[dict[str, float]] = []
    devices = [device] if device.type == "cuda" else []
    reader = Batches(
        DetectionImages(dataset, resize=model.resize),
        batches,
        workers=workers if sum(map(len, batches)) > SMALL_SPLIT else 0,
    )
    with torch.random.fork_rng(devices=devices), torch.no_grad(), closing(reader):
        for batch in reader:
            losses = model.losses(batch.images_on(device), batch.target_tensors(device))
            sums.append({name: len(batch.targets) * loss.item() for name, loss in losses.items()})
            if not go_on():
                break
    return sums


def local_size() -> int:
    """Processes of this training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class _Restride:
    """Gives a gradient the strides of its parameter where they name the same places in memory.

    Over a dimension of 1 any stride does, and convolutions choose another than `DistributedDataParallel` expects, which
    then warns of a copy.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.size, self.stride = parameter.shape, parameter.stride()

    def __call__(self, gradient: Tensor) -> Tensor | None:
        pairs = zip(self.size, self.stride, gradient.stride(), strict=True)
        if gradient.stride() != self.stride and all(size == 1 or own == other for size, own, other in pairs):
            return gradient.as_strided(self.size, self.stride)
        return None


def _averaged(processes: ProcessGroup, bucket: Any) -> torch.futures.Future[Tensor]:
    """DDP's own averaging, with a look at the clock: from when the last gradient is there, the process only waits."""
    start, is_last = time.perf_counter(), bucket.is_last()
    work = dist.all_reduce(bucket.buffer().div_(processes.size), async_op=True)
    assert work is not None

    def finish(future: torch.futures.Future[list[Tensor]]) -> Tensor:
        if is_last:
            processes.communicating += time.perf_counter() - start
        return future.value()[0]

    return work.get_future().then(finish)


def _is_lost_connection(error: Exception) -> bool:
    """Whether PyTorch couldn't reach another process; gloo has no exception of its own for that."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "Connection " in str(error)
