"""Phase 1: codebooks by entropy-constrained k-means, or of integers, then on with hard codes."""

import time

import torch
from torch import Tensor

from vqcodec.networks.codebooks import Usage
from vqcodec.networks.fitting import fit_level, residuals
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.distributed import broadcast
from vqcodec.train.lambdas import draw_lambda
from vqcodec.train.loop import Figures, Run
from vqcodec.train.vae import VAEPhase

__all__ = ["CodesPhase"]

FITTING = 0.25  # share of the phase's minutes that the codebooks' fit may take
REVIVE_UNTIL = 0.5  # of the phase; codes that move later have no time to settle


class CodesPhase(VAEPhase):
    """Train the whole VQ-VAE on the codes it will write, from the end of phase 0."""

    name = "codes"
    hard = True

    def __init__(self, run: Run, model: VQVAE) -> None:
        super().__init__(run, model)
        self.config = run.config.codes
        self.extra_lr = {"codebook": run.config.codebook_lr}
        if run.config.freeze_encoder:
            model.freeze_encoder()

    def prepare(self) -> None:
        """Fit the codebooks, to fewer crops than configured if these would take more than FITTING of the minutes."""
        wanted, count = self.run.config.fit_batches * self.config.batch, 1
        if wanted == 0:
            return
        deadline = time.monotonic() + FITTING * 60 * self.config.minutes
        while True:
            begun = time.monotonic()
            self._fit(count)
            now = time.monotonic()
            affordable = min(float(wanted), count * (deadline - now) / (now - begun))
            if affordable < 2 * count:  # nothing that is worth another fit
                break
            count = int(affordable)
        self.most_crops = None

    def _fit(self, count: int) -> None:
        """Fit the codebooks of all levels to ``count`` crops."""
        parts = [min(self.config.batch, count - done) for done in range(0, count, self.config.batch)]
        crops, lmbdas = list[Tensor](), list[Tensor]()
        for self.most_crops in parts:
            crops.append(self.batch())
            lmbdas.append(draw_lambda(self.module.config, self.most_crops, crops[-1].device))
        x, lmbda, levels = torch.cat(crops), torch.cat(lmbdas), len(self.module.levels)
        with self.run.bar(f"{self.name}: fitting codebooks, crops: {count}") as bar:
            for index in range(levels):

                def show(share: float, done: int = index) -> None:
                    bar.update((done + share) / levels - bar.n)

                fit_level(self.module, index, x, lmbda, seed=self.run.config.seed, progress=show)

    def after_step(self, step: int, progress: float) -> Figures:
        if step % self.run.config.revive_steps:
            return {}
        quantizers = self.module.quantizers()
        figures = {f"perplexity_{i}": float(Usage.of(q.usage).perplexity.mean()) for i, q in enumerate(quantizers)}
        if progress < REVIVE_UNTIL:
            x = self.batch()
            lmbda = draw_lambda(self.module.config, len(x), x.device)
            pairs = residuals(self.module, x, lmbda, quantized=len(quantizers))
            for i, (quantizer, (r, _)) in enumerate(zip(quantizers, pairs, strict=True)):
                figures[f"revived_{i}"] = float(quantizer.revive(r, below=self.run.config.revive_below))
            broadcast(self.module)
        return figures

    def warning(self, figures: Figures) -> str | None:
        return None  # phase 0 had the last word on channels
