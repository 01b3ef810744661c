"""A step that isn't finite changes nothing; accumulated batches are one batch; what is frozen stays."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from mobiledet.config import BackboneConfig, ModelConfig, OptimizerConfig
from mobiledet.data.loader import Batch
from mobiledet.errors import TrainingError
from mobiledet.models.build import build_detector
from mobiledet.structures import ImageGeometry, Target
from mobiledet.training.loop import Trainer, train_one_epoch
from mobiledet.training.optim import WeightAverage, build_optimizer
from mobiledet.training.precision import Precision
from mobiledet.training.progress import Progress

SIZE = (64, 80)


def batch(seed, count=4):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    targets = []
    for _ in range(count):
        corner = rng.uniform(0, 35, (2, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 29, (2, 2))], axis=1).astype(np.float32)
        targets.append(Target(boxes, rng.integers(1, 4, 2), np.zeros(2, np.bool_)))
    ids = [1000 * seed + index for index in range(count)]
    return Batch(images, targets, [ImageGeometry(SIZE, SIZE)] * count, ids)


def join(first, second):
    return Batch(
        torch.cat([first.images, second.images]),
        first.targets + second.targets,
        first.geometries + second.geometries,
        first.image_ids + second.image_ids,
    )


def make_trainer(*, optimizer="sgd", lr=0.01, accumulate=1, max_bad_steps=3, stages=0, norm=False, clip=10.0, **extra):
    torch.manual_seed(0)
    model = build_detector(ModelConfig(backbone=BackboneConfig(alpha=0.25), num_classes=3, input_size=SIZE))
    model.backbone.freeze(stages=stages, norm=norm)
    device = torch.device("cpu")
    return Trainer(
        model=model,
        call=model,
        optimizer=build_optimizer(model, OptimizerConfig(name=optimizer, lr=lr)),
        average=WeightAverage(model, 0.9),
        precision=Precision(extra.pop("precision", "float32"), device),
        learning_rate=lambda step: lr,
        clip_norm=clip,
        accumulate=accumulate,
        max_bad_steps=max_bad_steps,
        device=device,
    )


def train(trainer, batches, progress=None, after_step=lambda losses, seen: True):
    progress = progress or Progress()
    done = train_one_epoch(
        trainer,
        batches[progress.batch :],
        progress,
        batches_per_epoch=len(batches),
        after_step=after_step,
        waiting=nullcontext,
    )
    return done, progress


def everything(trainer):
    """Weights, statistics, averages and the optimiser's memory, copied."""
    return copy.deepcopy(
        (trainer.model.state_dict(), trainer.average.state_dict(trainer.model), trainer.optimizer.state_dict())
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


class Spoil(torch.autograd.Function):
    """Leaves the loss as it is and makes its gradient infinite."""

    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


def spoiled(model, kind, bad_calls):
    """Call the model; now and then the result isn't finite."""
    calls = iter(range(10_000))

    def call(images, targets):
        losses = model(images, targets)
        if next(calls) in bad_calls:
            losses["box"] = Spoil.apply(losses["box"]) if kind == "gradient" else losses["box"] * float(kind)
        return losses

    return call


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("kind", ["nan", "inf", "-inf", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(kind, optimizer, caplog):
    trainer = make_trainer(optimizer=optimizer)
    train(trainer, [batch(1)])  # so that the optimiser has a memory to protect
    before = everything(trainer)
    trainer.call = spoiled(trainer.model, kind, {0})
    seen = []
    done, progress = train(trainer, [batch(2)], after_step=lambda *step: seen.append(step) or True)
    assert done
    assert same(everything(trainer), before)
    assert trainer.average.updates == 1
    assert all(p.grad is None for p in trainer.model.parameters())
    assert (progress.step, progress.batch, progress.skipped_steps, progress.skipped_in_a_row) == (1, 1, 1, 1)
    assert (progress.loss_sums, progress.good_steps) == ({}, 0)
    assert seen == [({}, 4)]
    assert "epoch 1, batch 1" in caplog.text
    assert "[2000, 2001, 2002, 2003]" in caplog.text


def test_after_a_bad_step_training_goes_on_as_if_it_had_not_been():
    batches = [batch(seed) for seed in range(1, 4)]
    trainer = make_trainer()
    trainer.call = spoiled(trainer.model, "nan", {1})
    _, progress = train(trainer, batches)
    other = make_trainer()
    _, clean = train(other, [batches[0], batches[2]])
    assert same(everything(trainer), everything(other))
    assert (progress.skipped_steps, progress.skipped_in_a_row, progress.good_steps) == (1, 0, 2)
    assert progress.mean_losses() == clean.mean_losses()


def test_a_bad_half_spoils_an_accumulated_step():
    trainer = make_trainer(accumulate=2)
    train(trainer, [batch(1), batch(2)])
    before = everything(trainer)
    trainer.call = spoiled(trainer.model, "nan", {1})
    _, progress = train(trainer, [batch(3), batch(4)])
    assert same(everything(trainer), before)
    assert (progress.step, progress.batch, progress.skipped_steps) == (1, 2, 1)


def test_too_many_in_a_row_end_training():
    trainer = make_trainer(max_bad_steps=3)
    before = everything(trainer)
    trainer.call = spoiled(trainer.model, "nan", set(range(100)))
    progress = Progress()
    with pytest.raises(TrainingError, match=r"3 steps in a row .*\[3000, 3001, 3002, 3003\].*lower optimizer\.lr"):
        train(trainer, [batch(seed) for seed in range(1, 9)], progress)
    assert progress.skipped_steps == 3
    assert same(everything(trainer), before)


def test_a_good_step_between_resets_the_count():
    trainer = make_trainer(max_bad_steps=3)
    trainer.call = spoiled(trainer.model, "nan", {0, 1, 3, 4})
    _, progress = train(trainer, [batch(seed) for seed in range(1, 7)])
    assert (progress.skipped_steps, progress.skipped_in_a_row, progress.good_steps) == (4, 0, 2)


def freeze_all_norms(trainer):
    """A batch of eight and two of four have different statistics; without them the gradients are the same."""

    def train_without_norms(mode=True):
        nn.Module.train(trainer.model, mode)
        for module in trainer.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return trainer.model

    trainer.model.train = train_without_norms
    return trainer


class MeanOverPictures:
    """A detector's losses are divided by its matched anchors, another number in each batch; this one by images."""

    def __init__(self, model):
        self.model = model

    def __call__(self, images, targets):
        features = self.model.features(images)
        return {name: (x.square().mean(dim=(1, 2, 3)) - x.mean(dim=(1, 2, 3))).mean() for name, x in features.items()}


def test_two_batches_of_four_are_one_of_eight():
    results = []
    for accumulate, batches in ((2, [batch(1), batch(2)]), (1, [join(batch(1), batch(2))])):
        trainer = freeze_all_norms(make_trainer(accumulate=accumulate, clip=None, lr=0.5))
        start = copy.deepcopy(trainer.model.state_dict())
        trainer.call = MeanOverPictures(trainer.model)
        _, progress = train(trainer, batches)
        assert progress.step == 1
        moved = {name: tensor - start[name] for name, tensor in trainer.model.state_dict().items()}
        results.append((moved, progress.mean_losses()))
    (moved, losses), (expected, expected_losses) = results
    assert sum(float(tensor.abs().sum()) for tensor in expected.values()) > 0.1
    for name in expected:
        torch.testing.assert_close(moved[name], expected[name], rtol=1e-3, atol=1e-6)
    assert losses == pytest.approx(expected_losses, rel=1e-5)


def test_the_last_group_of_an_epoch_may_be_smaller():
    trainer = make_trainer(accumulate=2)
    steps = []
    done, progress = train(
        trainer, [batch(seed) for seed in range(5)], after_step=lambda losses, seen: steps.append(seen) or True
    )
    assert done
    assert steps == [8, 8, 4]
    assert (progress.step, progress.batch, progress.good_steps) == (3, 5, 3)


def test_stopping_after_a_step_and_going_on():
    batches = [batch(seed) for seed in range(4)]
    trainer, other = make_trainer(), make_trainer()
    done, progress = train(trainer, batches, after_step=lambda losses, seen: False)
    assert (done, progress.batch) == (False, 1)
    done, progress = train(trainer, batches, progress)
    assert (done, progress.batch) == (True, 4)
    train(other, batches)
    assert same(everything(trainer), everything(other))


def test_stopping_on_the_last_step_is_a_finished_epoch():
    done, _ = train(make_trainer(), [batch(1)], after_step=lambda losses, seen: False)
    assert done


def test_frozen_stages_stay_as_they_are():
    trainer = make_trainer(stages=6)
    before = copy.deepcopy(trainer.model.state_dict())
    train(trainer, [batch(1), batch(2)])
    for name, tensor in trainer.model.state_dict().items():
        frozen = any(name.startswith(f"backbone.layers.conv{index}.") for index in range(6))
        if frozen:
            assert torch.equal(tensor, before[name]), name
        elif "norm.running_mean" in name or name.endswith("conv.weight"):
            assert not torch.equal(tensor, before[name]), name


def test_frozen_norms_stay_as_they_are():
    trainer = make_trainer(norm=True)
    before = copy.deepcopy(trainer.model.state_dict())
    train(trainer, [batch(1), batch(2)])
    for name, tensor in trainer.model.state_dict().items():
        if name.startswith("backbone") and ".norm." in name:
            assert torch.equal(tensor, before[name]), name
    name = "backbone.layers.conv0.conv.weight"
    assert not torch.equal(trainer.model.state_dict()[name], before[name])


def test_gradients_are_clipped():
    moved = []
    for clip in (None, 1e-3):
        trainer = make_trainer(clip=clip, lr=1.0)
        trainer.optimizer.param_groups[0]["weight_decay"] = trainer.optimizer.param_groups[2]["weight_decay"] = 0
        before = [p.detach().clone() for p in trainer.parameters]
        train(trainer, [batch(1)])
        squares = [float((p.detach() - q).square().sum()) for p, q in zip(trainer.parameters, before, strict=True)]
        moved.append(sum(squares) ** 0.5)
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)


def test_the_learning_rate_follows_the_steps():
    trainer, rates = make_trainer(accumulate=2), []
    trainer.learning_rate = lambda step: 0.001 * (step + 1)
    train(
        trainer,
        [batch(seed) for seed in range(4)],
        after_step=lambda losses, seen: rates.append(trainer.optimizer.param_groups[-1]["lr"]) or True,
    )
    assert rates == [0.001, 0.002]


def test_bfloat16_trains_and_keeps_weights_in_float32():
    trainer = make_trainer(precision="bfloat16")
    _, progress = train(trainer, [batch(1), batch(2)])
    assert progress.skipped_steps == 0
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_losses_fall_on_one_batch():
    trainer = make_trainer(optimizer="adamw", lr=3e-3)
    losses = []
    train(trainer, [batch(1)] * 25, after_step=lambda found, seen: losses.append(sum(found.values())) or True)
    assert losses[-1] < 0.6 * losses[0]
