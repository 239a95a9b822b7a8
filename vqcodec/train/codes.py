"""Phase 1: codebooks by entropy-constrained k-means, then on with hard codes."""

import torch
from torch import Tensor

from vqcodec.quantize import VectorQuantizer
from vqcodec.train.loop import Run
from vqcodec.train.vae import VAEPhase, draw_lambda
from vqcodec.vqvae import VQVAE

__all__ = ["CodesPhase"]

FIT_BATCHES = 12
REVIVE_STEPS = 200


class CodesPhase(VAEPhase):
    """Train the whole VQ-VAE on the codes it will write, from the end of phase 0."""

    name = "codes"
    hard = True

    def __init__(self, run: Run, model: VQVAE) -> None:
        super().__init__(run, model)
        self.config = run.config.codes
        self.extra_lr = {"codebook": run.config.codebook_lr}

    def prepare(self) -> None:
        self.rng.seed(f"{self.run.config.seed}/fit")
        x = torch.cat([self.batch() for _ in range(FIT_BATCHES)])
        lmbda = torch.cat([draw_lambda(self.module.config, self.config.batch, x.device) for _ in range(FIT_BATCHES)])
        self.module.deal_channels(x, lmbda)
        for quantizer, (r, precision) in zip(self._quantizers(), self.module.residuals(x, lmbda), strict=True):
            quantizer.fit(r, precision, seed=self.run.config.seed)

    def after_step(self, step: int) -> dict[str, float]:
        if step % REVIVE_STEPS or step > self.config.steps // 2:
            return {}
        x = self.batch()
        pairs = self.module.residuals(x, draw_lambda(self.module.config, len(x), x.device))
        figures: dict[str, float] = {}
        for index, (quantizer, (r, _)) in enumerate(zip(self._quantizers(), pairs, strict=True)):
            figures[f"revived_{index}"] = float(quantizer.revive(r, below=self.run.config.revive_below))
            figures[f"perplexity_{index}"] = float(perplexity(quantizer.usage))
        return figures

    def _quantizers(self) -> list[VectorQuantizer]:
        return [module for module in self.module.modules() if isinstance(module, VectorQuantizer)]


def perplexity(usage: Tensor) -> Tensor:
    """Mean over groups of 2^entropy of the running frequencies ``usage [G, K]``."""
    return (-(usage * usage.clamp_min(1e-12).log2()).sum(1)).exp2().mean()
