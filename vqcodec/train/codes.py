"""Phase 1: codebooks by entropy-constrained k-means, then on with hard codes."""

import torch

from vqcodec.networks.codebooks import Usage
from vqcodec.networks.fitting import fit_level, residuals
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.distributed import broadcast
from vqcodec.train.lambdas import draw_lambda
from vqcodec.train.loop import Figures, Run
from vqcodec.train.vae import VAEPhase

__all__ = ["CodesPhase"]

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
        batches = range(self.run.config.fit_batches)
        x = torch.cat([self.batch() for _ in batches])
        lmbda = torch.cat([draw_lambda(self.module.config, self.config.batch, x.device) for _ in batches])
        for index in range(len(self.module.levels)):
            fit_level(self.module, index, x, lmbda, seed=self.run.config.seed)

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
