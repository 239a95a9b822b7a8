"""The phase of codes: codebooks fitted, and dead codes revived."""

import dataclasses
from typing import Any

import pytest
import torch

from vqcodec.config import Config
from vqcodec.train.codes import CodesPhase
from vqcodec.train.initial import COARSE, FINEST, initial
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run


def test_dead_codes_are_moved_only_while_there_is_time(tiny_state: Run, tiny_model: Model) -> None:
    phase = CodesPhase(tiny_state, tiny_model.vqvae)
    quantizers = tiny_model.vqvae.quantizers()
    assert len(quantizers) == 3
    for quantizer in quantizers:
        quantizer.usage[0, :3] = 0
    before = [quantizer.codebook.clone() for quantizer in quantizers]
    assert phase.after_step(199, 0.1) == {}
    late = phase.after_step(200, 0.5)
    perplexities = {f"perplexity_{i}" for i in range(3)}
    assert late.keys() == perplexities
    assert all(torch.equal(a, q.codebook) for a, q in zip(before, quantizers, strict=True))
    early = phase.after_step(400, 0.49)
    assert early.keys() == perplexities | {f"revived_{i}" for i in range(3)}
    assert early["revived_0"] >= 3
    assert all(not torch.equal(a[0, 1:3], q.codebook[0, 1:3]) for a, q in zip(before, quantizers, strict=True))
    assert all(1 <= early[f"perplexity_{i}"] <= 16 for i in range(3))


def test_codebooks_are_fitted_alike_whatever_came_before(tiny_state: Run, tiny_model: Model) -> None:
    fitted = []
    start = {name: tensor.clone() for name, tensor in tiny_model.vqvae.state_dict().items()}
    for seed in range(2):
        torch.manual_seed(seed)
        tiny_model.vqvae.load_state_dict(start)
        phase = CodesPhase(tiny_state, tiny_model.vqvae)
        phase.rng.seed(seed)
        phase.seed("prepare")
        phase.prepare()
        fitted.append([tensor.clone() for tensor in tiny_model.vqvae.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*fitted, strict=True))


def test_the_fit_takes_as_many_crops_as_there_is_time_for(
    tiny_state: Run, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, fitted = [0.0], list[int]()

    def fit(model: Any, index: int, x: torch.Tensor, lmbda: torch.Tensor, **_: Any) -> None:
        assert len(x) == len(lmbda)
        if index == 0:
            fitted.append(len(x))
            now[0] += len(x)  # a second a crop

    monkeypatch.setattr("vqcodec.train.codes.fit_level", fit)
    monkeypatch.setattr("vqcodec.train.codes.time.monotonic", lambda: now[0])

    def crops(minutes: float) -> list[int]:
        phase = CodesPhase(tiny_state, tiny_model.vqvae)
        phase.config = dataclasses.replace(phase.config, batch=4, minutes=minutes)
        fitted.clear()
        phase.prepare()
        assert phase.most_crops is None
        return list(fitted)

    assert tiny_state.config.fit_batches == 24
    assert crops(60.0) == [1, 96]
    assert crops(1.0) == [1, 14]  # of the 15 s that are a quarter of a minute
    assert crops(0.1) == [1]


def test_integers_are_chosen_for_less_error_than_the_head_alone_would(tiny_config: Config) -> None:
    weights = {
        codebook: [
            quantizer.distortion_weight
            for quantizer in initial(
                dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, codebook=codebook)), None
            )[0].vqvae.quantizers()
        ]
        for codebook in ("ema", "integers")
    }
    assert weights == {"ema": [1.0, 1.0, 1.0], "integers": [COARSE, COARSE, FINEST]}
