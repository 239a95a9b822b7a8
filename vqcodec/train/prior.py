"""Phase 2: the PixelCNN on the codes of a frozen VQ-VAE."""

import torch
from torch import Tensor, nn

from vqcodec.config import QUALITY_MAX, QUALITY_MIN
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.loop import Phase, Run
from vqcodec.train.vae import EVALUATED_QUALITIES

__all__ = ["PriorPhase"]


class PriorPhase(Phase):
    """Train the prior by the bits that it gives to codes of random crops at random qualities."""

    name = "prior"
    module: PixelCNN

    def __init__(self, run: Run, prior: PixelCNN, vqvae: VQVAE) -> None:
        super().__init__(run)
        self.config = run.config.prior
        self.module, self.vqvae = prior, vqvae.eval()

    def prepare(self) -> None:
        self.module.start_from([quantizer.usage for quantizer in self.vqvae.quantizers()])

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        x = self.batch()
        lmbda = draw_quality_lambda(self.vqvae, len(x), x.device)
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

    @torch.no_grad()
    def evaluate(self, module: nn.Module, label: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        for quality in EVALUATED_QUALITIES:
            lmbda = torch.tensor([self.vqvae.config.lmbda(quality)], device=self.run.device)
            bpps: list[float] = []
            for x in self.run.validation.centres():
                with self.run.autocast():
                    codes = self.vqvae.encode(x.contiguous(memory_format=torch.channels_last), lmbda)
                    bits = module(codes, lmbda)
                bpps.append(float(sum(bits)) / (x.shape[2] * x.shape[3]))
            figures[f"bpp_q{quality}"] = sum(bpps) / len(bpps)
        return figures


def draw_quality_lambda(vqvae: VQVAE, batch: int, device: torch.device) -> Tensor:
    """λ ``[batch]`` of whole qualities drawn uniformly, the only ones that files are coded at."""
    qualities = torch.randint(QUALITY_MIN, QUALITY_MAX + 1, (batch,)).tolist()
    return torch.tensor([vqvae.config.lmbda(quality) for quality in qualities], device=device)
