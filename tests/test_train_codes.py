"""The phase of codes: codebooks fitted, and dead codes revived."""

import torch

from vqcodec.train.codes import CodesPhase
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
