"""Phase 0: the VQ-VAE as a VAE, with noise where codes will be; and what phases 0 and 1 share.

Hard codes from a random start collapse: a few codewords win and the coarse levels fall silent. Under noise
the model converges like any learned codec, and the codebooks are fitted to residuals that already mean something.
"""

import math

import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig
from vqcodec.networks.vqvae import VQVAE, Reconstruction
from vqcodec.train.loop import Phase, Run
from vqcodec.train.sheet import write_sheet

__all__ = ["VAEPhase", "draw_lambda", "rate_distortion"]

EVALUATED_QUALITIES = (10, 40, 70, 95)
SHEET_QUALITIES = (10, 40, 70)


def draw_lambda(config: ModelConfig, batch: int, device: torch.device) -> Tensor:
    """λ ``[batch]``, log-uniform over the range and stratified over the batch."""
    t = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
    low, high = math.log(config.lambda_min), math.log(config.lambda_max)
    return (low + (high - low) * t).exp()


def rate_distortion(x: Tensor, out: Reconstruction, lmbda: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(loss, bpp, mse)``, each ``[B]``: ``loss = bpp + λ·255²·MSE``."""
    bpp = torch.stack(out.bits).sum(0) / (x.shape[2] * x.shape[3])
    mse = (out.x_hat - x).square().mean((1, 2, 3))
    return bpp + lmbda * 255**2 * mse, bpp, mse


class VAEPhase(Phase):
    """Train the whole VQ-VAE in its noise form."""

    name = "vae"
    hard = False
    module: VQVAE

    def __init__(self, run: Run, model: VQVAE) -> None:
        super().__init__(run)
        self.config = run.config.vae
        self.module = model

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        x = self.batch()
        lmbda = draw_lambda(self.module.config, len(x), x.device)
        out = self.module(x, lmbda, hard=self.hard)
        loss, bpp, mse = rate_distortion(x, out, lmbda)
        # A file's loss grows about as √λ; dividing by it lets every rate weigh the same.
        weight = (self.module.config.lambda_min / lmbda).sqrt()
        total = (weight * loss).mean() + self.run.config.beta * out.commitment_loss + out.codebook_loss
        return total, {"bpp": float(bpp.detach().mean()), "psnr": float(-10 * mse.detach().log10().mean())}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, label: str) -> dict[str, float]:
        assert isinstance(module, VQVAE)
        figures: dict[str, float] = {}
        sheet: list[list[Tensor]] = []
        for quality in EVALUATED_QUALITIES:
            lmbda = torch.tensor([module.config.lmbda(quality)], device=self.run.device)
            bpps: list[float] = []
            psnrs: list[float] = []
            for i, x in enumerate(self.run.validation.centres()):
                with self.run.autocast():
                    out = module(x.contiguous(memory_format=torch.channels_last), lmbda, hard=self.hard)
                _, bpp, mse = rate_distortion(x, out, lmbda)
                bpps.append(float(bpp))
                psnrs.append(float(-10 * mse.log10()))
                if i < 6:
                    if len(sheet) <= i:
                        sheet.append([x[0]])
                    if quality in SHEET_QUALITIES:
                        sheet[i].append(out.x_hat[0].clamp(0, 1))
            figures[f"bpp_q{quality}"] = sum(bpps) / len(bpps)
            figures[f"psnr_q{quality}"] = sum(psnrs) / len(psnrs)
        write_sheet(self.run.folder / "sheets" / f"{label}.png", sheet)
        return figures
