"""The order of images and every byte of a batch depend on the seed alone."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from mobiledet.config import AugmentConfig
from mobiledet.data.coco import load_coco
from mobiledet.data.loader import Batches, DetectionImages, EpochSampler, ImageCache, SampleKey, collate, in_order
from mobiledet.data.transforms import TrainTransform
from mobiledet.errors import DataError, ImageError, WorkerError
from mobiledet.structures import ResizeRule

SIZE = (64, 80)


def images(dataset, *, augment=True, cache=None, seed=7):
    # With a mosaic in half of the samples, which read three images more, and with copies in half.
    chances = AugmentConfig(mosaic=0.5, copy_small=0.5)
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=chances) if augment else None
    return DetectionImages(dataset, resize=ResizeRule(SIZE), transform=transform, seed=seed, cache=cache)


def digest(batch):
    parts = [batch.images.contiguous().numpy(), *(getattr(t, name) for t in batch.targets for name in vars(t))]
    text = repr((batch.image_ids, batch.geometries, batch.images.shape)).encode()
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts) + text).hexdigest()


def two_epochs(dataset, *, workers, cache=None, seed=7):
    sampler = EpochSampler(len(dataset), batch_size=5, seed=seed)
    batches = Batches(images(dataset, cache=cache, seed=seed), sampler, workers=workers)
    found = []
    for epoch in range(2):
        sampler.start(epoch)
        found.append([digest(batch) for batch in batches])
    return found


@pytest.fixture(scope="module")
def dataset(tiny_shapes):
    return load_coco(tiny_shapes, "train")


@pytest.fixture(scope="module")
def expected(dataset):
    return two_epochs(dataset, workers=0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there are fewer cores
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_bytes(dataset, expected, workers):
    assert two_epochs(dataset, workers=workers) == expected


def test_epochs_and_seeds_differ(dataset, expected):
    assert [len(epoch) for epoch in expected] == [3, 3]
    found = {digest for epoch in expected for digest in epoch}
    assert len(found) == 6
    assert found.isdisjoint(digest for epoch in two_epochs(dataset, workers=0, seed=8) for digest in epoch)


def test_a_picture_changes_from_epoch_to_epoch(dataset):
    found = images(dataset)
    assert (found[SampleKey(0, 3)].image != found[SampleKey(1, 3)].image).any()
    np.testing.assert_array_equal(found[SampleKey(1, 3)].image, images(dataset)[SampleKey(1, 3)].image)


def test_half_of_the_samples_are_mosaics(dataset):
    transform = images(dataset).transform
    others = [transform.mosaic.others(seed, len(dataset)) for seed in range(400)]
    assert 150 < sum(map(bool, others)) < 250
    assert {index for three in others for index in three} == set(range(len(dataset)))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_gives_the_same_bytes(dataset, expected, workers):
    assert two_epochs(dataset, workers=workers, cache=ImageCache(dataset)) == expected


def test_the_cache_is_refused_when_memory_is_short(dataset, monkeypatch):
    monkeypatch.setattr("mobiledet.data.loader._available_memory", lambda: 100_000)
    with pytest.raises(DataError, match=r"data\.cache needs .* 12 images .* leave it off"):
        ImageCache(dataset)


def test_starting_in_the_middle_gives_the_tail(dataset, expected):
    sampler = EpochSampler(len(dataset), batch_size=5, seed=7)
    batches = Batches(images(dataset), sampler)
    for epoch in range(2):
        for first in range(4):
            sampler.start(epoch, first)
            assert len(batches) == 3 - first
            assert [digest(batch) for batch in batches] == expected[epoch][first:]


def test_the_rest_of_an_abandoned_epoch_never_appears(dataset, expected):
    """Persistent workers have read ahead when somebody leaves an epoch; the next one starts clean."""
    sampler = EpochSampler(len(dataset), batch_size=5, seed=7)
    batches = Batches(images(dataset), sampler, workers=2)
    sampler.start(0)
    for batch in batches:
        assert digest(batch) == expected[0][0]
        break
    sampler.start(1, 1)
    assert [digest(batch) for batch in batches] == expected[1][1:]


@pytest.mark.parametrize("length", [1, 2, 5, 12, 13])
@pytest.mark.parametrize("batch_size", [6, 12, 30])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_picture_is_seen_and_every_batch_is_full(length, batch_size, world_size):
    samplers = [
        EpochSampler(length, batch_size=batch_size, seed=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for epoch in (0, 1, 5):
        seen = Counter()
        for sampler in samplers:
            sampler.start(epoch)
            batches = list(sampler)
            assert len(batches) == len(sampler) == sampler.batches_per_epoch
            assert all(len(batch) == batch_size // world_size for batch in batches)
            assert {key.epoch for batch in batches for key in batch} == {epoch}
            seen.update(key.image for batch in batches for key in batch)
        assert set(seen) == set(range(length))
        # Only what fills the last batches up is seen more often than the rest.
        assert max(seen.values()) - min(seen.values()) <= 1
        assert sum(seen.values()) - length < batch_size


def test_processes_share_out_the_order_of_one():
    alone = EpochSampler(24, batch_size=6, seed=3)
    both = [EpochSampler(24, batch_size=6, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    for sampler in (alone, *both):
        sampler.start(2)
    for whole, first, second in zip(alone, *both, strict=True):
        assert sorted(whole) == sorted(first + second)
        assert not set(first) & set(second)


def test_orders_differ_by_epoch_and_seed():
    def order(epoch, **options):
        sampler = EpochSampler(40, batch_size=8, **options)
        sampler.start(epoch)
        return [key.image for batch in sampler for key in batch]

    assert order(0, seed=1) == order(0, seed=1)
    orders = {tuple(order(epoch, seed=seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize(("length", "sizes"), [(1, [1]), (8, [4, 4]), (9, [4, 4, 1])])
def test_in_order_every_image_comes_once(length, sizes):
    batches = in_order(length, batch_size=4)
    assert [len(batch) for batch in batches] == sizes
    assert [key.image for batch in batches for key in batch] == list(range(length))


def test_no_pictures_is_an_error():
    with pytest.raises(DataError, match="no images"):
        EpochSampler(0, batch_size=4)


def test_batches_have_the_shapes_the_detector_takes(dataset):
    samples = [images(dataset, augment=False)[SampleKey(0, index)] for index in range(3)]
    batch = collate(samples)
    assert batch.images.shape == (3, 3, *SIZE)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for index, (one, geometry) in enumerate(zip(batch.target_tensors(), batch.geometries, strict=True)):
        record = dataset[index]
        assert (one["boxes"].dtype, one["labels"].dtype, one["iscrowd"].dtype) == (
            torch.float32,
            torch.int64,
            torch.bool,
        )
        assert geometry.original_size == (record.height, record.width)
        assert batch.image_ids[index] == record.image_id
        np.testing.assert_allclose(one["boxes"].numpy(), record.target.boxes * geometry.scale, rtol=1e-6)


@pytest.fixture
def vanishing(tiny_shapes, tmp_path):
    """A data set of which an image goes missing once it has been checked."""
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    checked = load_coco(root, "train")
    return checked, checked[4].path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["gone", "truncated"])
def test_a_picture_that_vanishes_is_one_line_with_its_name(vanishing, workers, damage):
    dataset, path = vanishing
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-200])
    sampler = EpochSampler(len(dataset), batch_size=4)
    with pytest.raises(DataError) as caught:
        list(Batches(images(dataset), sampler, workers=workers))
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert multiprocessing.active_children() == []  # although the error, and with it the frames, are still held


def test_a_worker_hands_the_error_over_instead_of_raising(vanishing):
    dataset, path = vanishing
    path.unlink()
    assert isinstance(images(dataset)[SampleKey(0, 4)], ImageError)


@pytest.mark.parametrize("workers", [0, 2])
def test_feeding_opens_no_connection(tiny_shapes, expected, workers, monkeypatch):
    connect = socket.socket.connect

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    def refuse_beyond_this_machine(self, address):
        if self.family != socket.AF_UNIX:  # how workers hand their memory over
            refuse()
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse_beyond_this_machine)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert two_epochs(load_coco(tiny_shapes, "train"), workers=workers) == expected


def test_importing_asks_nobody_for_updates():
    """albumentations looks for a newer version on import unless forbidden."""
    code = """
import os, socket
def refuse(*args, **kwargs):
    raise SystemExit("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
socket.socket.__init__ = refuse
import mobiledet.data.transforms
print(os.environ["NO_ALBUMENTATIONS_UPDATE"])
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1", "")


def test_crowds_reach_the_batch(tmp_coco):
    batch = collate([images(tmp_coco.load(), augment=False)[SampleKey(0, index)] for index in range(2)])
    assert json.loads(json.dumps(batch.image_ids)) == [10, 20]
    assert [target.iscrowd.tolist() for target in batch.targets] == [[False, False, True], [False]]
    assert batch.target_tensors()[0]["iscrowd"].tolist() == [False, False, True]


def test_a_killed_worker_is_one_line(dataset):
    batches = Batches(images(dataset), in_order(len(dataset), batch_size=2), workers=1)
    iterator = iter(batches)
    next(iterator)
    os.kill(batches._loader._iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"fewer data\.workers"):
        for _ in iterator:
            pass


READ_BY_A_WORKER = """
from pathlib import Path
import sys
from mobiledet.data.coco import load_coco
from mobiledet.data.loader import Batches, DetectionImages, in_order
from mobiledet.structures import ResizeRule
images = DetectionImages(load_coco(Path(sys.argv[1]), "train"), resize=ResizeRule((64, 80)))
print(sum(len(batch.image_ids) for batch in Batches(images, in_order(len(images), 5), workers=1)))
"""


@pytest.mark.skipif(os.name != "posix", reason="sockets with paths")
def test_a_long_folder_for_temporary_files_stops_no_worker(tiny_shapes, dataset, tmp_path):
    folder = tmp_path / ("x" * (119 - len(str(tmp_path))))
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_A_WORKER, str(tiny_shapes)],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"{len(dataset)}\n", "")
