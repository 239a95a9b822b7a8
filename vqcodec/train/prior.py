"""Phase 2: the PixelCNN on the codes of a frozen VQ-VAE."""

import torch
from torch import Tensor, nn

from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.lambdas import draw_quality_lambda
from vqcodec.train.loop import Figures, Phase, Run
from vqcodec.train.vae import EVALUATED_QUALITIES

__all__ = ["PriorPhase"]


class PriorPhase(Phase):
    """Train the prior to give few bits to the codes of random crops at random qualities."""

    name = "prior"
    module: PixelCNN

    def __init__(self, run: Run, prior: PixelCNN, vqvae: VQVAE) -> None:
        super().__init__(run)
        self.config = run.config.prior
        self.module, self.vqvae = prior, vqvae.eval()

    def prepare(self) -> None:
        if self.run.config.fit_batches == 0:  # the codebooks are another run's, and so is the prior
            return
        quantizers = self.vqvae.quantizers()
        self.module.start_from([quantizer.usage for quantizer in quantizers])
        self.module.start_alike([quantizer.codebook for quantizer in quantizers])

    def loss(self) -> tuple[Tensor, Figures]:
        x = self.batch()
        lmbda = draw_quality_lambda(self.vqvae.config, len(x), x.device)
        codes = [grid.clone() for grid in self.vqvae.encode(x, lmbda)]
        bits = self.module(codes, lmbda)
        bpp = torch.stack(bits).sum(0) / (x.shape[2] * x.shape[3])
        weight = (self.module.model.lambda_min / lmbda).sqrt()
        figures = {"bpp": float(bpp.detach().mean())}
        figures |= {
            f"share_{i}": float(level.detach().sum() / sum(b.detach().sum() for b in bits))
            for i, level in enumerate(bits)
        }
        return (weight * bpp).mean(), figures

    def measure(self, module: nn.Module, x: Tensor) -> Figures:
        figures: Figures = {}
        for quality in EVALUATED_QUALITIES:
            lmbda = torch.tensor([self.vqvae.config.lmbda(quality)], device=x.device)
            bits = module(self.vqvae.encode(x, lmbda), lmbda)
            figures[f"bpp_q{quality}"] = float(sum(bits)) / (x.shape[2] * x.shape[3])
        return figures
