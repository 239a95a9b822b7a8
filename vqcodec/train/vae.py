"""Phase 0: the VQ-VAE as a VAE, with noise where codes will be; and what phases 0 and 1 share.

Hard codes from a random start collapse: a few codewords win, and the coarse levels carry nothing. Under noise
the model converges like any learned codec, and the codebooks are then fitted to residuals of a trained model.
"""

import torch
from torch import Tensor, nn

from vqcodec.networks.choices import Round
from vqcodec.networks.vqvae import VQVAE, Reconstruction
from vqcodec.train import monitor
from vqcodec.train.lambdas import draw_lambda
from vqcodec.train.loop import Figures, Phase, Run
from vqcodec.train.sheet import write_sheet
from vqcodec.train.start import start_linear
from vqcodec.visual.distortion import VisualDistortion

__all__ = ["EVALUATED_QUALITIES", "VAEPhase", "rate_distortion"]

EVALUATED_QUALITIES = (10, 40, 70, 95)
SHEET_QUALITIES = (10, 40, 70)
SHEET_IMAGES = 6
START_BATCHES = 4  # that a linear start takes its components from


def rate_distortion(
    x: Tensor, out: Reconstruction, lmbda: Tensor, distortion: str = "mse"
) -> tuple[Tensor, Tensor, Tensor]:
    """``(loss, bpp, mse)``, each ``[B]``, of ``x [B, 3, H, W]`` at ``lmbda [B]``: ``loss = bpp + λ·255²·MSE``.

    With ``distortion="visual"``, D of :class:`vqcodec.visual.distortion.VisualDistortion` takes the place of the MSE
    in the loss.

    In phase 0 the loss is the negative ELBO of Kingma and Welling 2014, in bits a pixel, up to a constant:

        −ELBO = E_q[−log2 p(x | r_hat)] + KL(q(r_hat | x) ‖ p(r_hat))

    - q is uniform and one step wide around r, and sampled as r + noise (the reparameterisation is in
      :class:`vqcodec.networks.choices.Noise`). Its density is 1, so the KL divergence is E_q[−log2 p(r_hat)], the bits.
    - p(x | r_hat) is a Gaussian around x_hat with variance s² = 3 / (2 ln 2 · λ · 255²) in every channel of a pixel, so
      −log2 p(x | r_hat) = Σ (x − x_hat)² / (2 ln 2 · s²) + const, which is λ·255²·MSE a pixel.

    λ takes the place of the β of a β-VAE: a larger λ is a smaller assumed noise in the picture. With hard codes q is a
    point, the bits are those of the codes, and the loss is the Lagrangian of rate–distortion theory.
    """
    bpp = torch.stack(out.bits).sum(0) / (x.shape[2] * x.shape[3])
    mse = (out.x_hat - x).square().mean((1, 2, 3))
    d = VisualDistortion(x)(out.x_hat) if distortion == "visual" else mse
    return bpp + lmbda * 255**2 * d, bpp, mse


class VAEPhase(Phase):
    """Train the whole VQ-VAE in its noise form."""

    name = "vae"
    hard = False
    module: VQVAE

    def __init__(self, run: Run, model: VQVAE) -> None:
        super().__init__(run)
        self.config = run.config.vae
        self.module = model

    def prepare(self) -> None:
        if self.run.config.linear_start:
            start_linear(self.module, torch.cat([self.batch() for _ in range(START_BATCHES)]))

    def loss(self) -> tuple[Tensor, Figures]:
        x = self.batch()
        lmbda = draw_lambda(self.module.config, len(x), x.device)
        out = self.module(x, lmbda, hard=self.hard, rounded=self.run.config.rounded)
        loss, bpp, mse = rate_distortion(x, out, lmbda, self.run.config.distortion)
        # A file's loss grows about as √λ; dividing by it lets every rate weigh the same.
        weight = (self.module.config.lambda_min / lmbda).sqrt()
        # The last two are the terms of van den Oord et al. 2017, eq. 3: β·‖z_e − sg(e)‖² + ‖sg(z_e) − e‖². Both are
        # zero under noise, and the second one also when codebooks learn by EMA.
        total = (weight * loss).mean() + self.run.config.beta * out.commitment_loss + out.codebook_loss
        return total, {"bpp": float(bpp.detach().mean()), "psnr": float(-10 * mse.detach().log10().mean())}

    def measure(self, module: nn.Module, x: Tensor) -> Figures:
        assert isinstance(module, VQVAE)
        figures: Figures = {}
        for quality in EVALUATED_QUALITIES:
            lmbda = torch.tensor([module.config.lmbda(quality)], device=x.device)
            _, bpp, mse = rate_distortion(x, self._coded(module, x, lmbda), lmbda)
            figures[f"bpp_q{quality}"] = float(bpp)
            figures[f"psnr_q{quality}"] = float(-10 * mse.log10())
        return figures

    def survey(self, module: nn.Module, images: list[Tensor], label: str) -> Figures:
        assert isinstance(module, VQVAE)
        rows = [[x[0]] for x in images[:SHEET_IMAGES]]
        for row, x in zip(rows, images, strict=False):
            for quality in SHEET_QUALITIES:
                lmbda = torch.tensor([module.config.lmbda(quality)], device=x.device)
                row.append(self._coded(module, x, lmbda).x_hat[0].clamp(0, 1))
        write_sheet(self.run.folder / "sheets" / f"{label}.png", rows)
        return monitor.figures(monitor.activity(module, images, hard=self.hard))

    def warning(self, figures: Figures) -> str | None:
        return monitor.warning(figures["live_share"])

    def _coded(self, module: VQVAE, x: Tensor, lmbda: Tensor) -> Reconstruction:
        """What a file would give: by codes or, as long as there are no codebooks, by rounded residuals.

        Noise would cost bits and error in every silent channel, of which a file holds only zeros.
        """
        if self.hard:
            coded: Reconstruction = module(x, lmbda, hard=True)
            return coded
        choice, none = Round(), x.new_zeros(())
        return Reconstruction(module.reconstruct(x, lmbda, choice, pixels=False), choice.bits, [], none, none)
