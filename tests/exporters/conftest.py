"""Detectors with random weights, shared with the tests of what runs them, as checkpoints."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def traced_once():
    """Tracing takes seconds, and most tests here are about what comes after it: the same network is traced once."""
    from mobiledet.exporters import onnx as onnx_file

    trace, made = onnx_file.trace_onnx, {}

    def traced(model, **options):
        weights = tuple(float(p.detach().double().abs().sum()) for p in (*model.parameters(), model.mean))
        key = (type(model.head), weights, model.postprocess, *options.items())
        if key not in made:
            made[key] = trace(model, **options)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "trace_onnx", traced)
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """``tiny_checkpoint(head)``: the file of a detector of three classes."""
    from tiny_detectors import tiny_detector

    from mobiledet.config import Config, ModelConfig
    from mobiledet.weights.checkpoint import save_checkpoint

    made = {}

    def make(head, **changes):
        key = (head, str(changes))
        if key not in made:
            model, card = tiny_detector(head)
            config = Config(model=ModelConfig(**{**card.config["model"], **changes}))
            path = tmp_path_factory.mktemp("checkpoint") / f"{head}.pt"
            categories = [{"id": i, "name": n} for i, n in zip(card.category_ids, card.names, strict=True)]
            weights = model.state_dict()
            save_checkpoint(path, {"config": config.plain(), "model": weights, "ema": None, "categories": categories})
            made[key] = path
        return made[key]

    return make
