"""Phase 3: VQ-VAE and prior together, on large crops, with small steps."""

import torch
from torch import Tensor, nn

from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.codes import CodesPhase
from vqcodec.train.lambdas import draw_quality_lambda
from vqcodec.train.loop import Figures, Phase, Run
from vqcodec.train.prior import PriorPhase
from vqcodec.train.vae import rate_distortion

__all__ = ["JointPhase", "Model"]


class Model(nn.Module):
    """The VQ-VAE and its prior, which are exported together."""

    def __init__(self, vqvae: VQVAE, prior: PixelCNN) -> None:
        super().__init__()
        self.vqvae, self.prior = vqvae, prior


class JointPhase(Phase):
    """Train the VQ-VAE further, and the prior on its codes as they change."""

    name = "joint"
    module: Model

    def __init__(self, run: Run, model: Model) -> None:
        super().__init__(run)
        self.config = run.config.joint
        self.extra_lr = {"codebook": 0.1 * run.config.codebook_lr}
        self.module = model
        if run.config.freeze_encoder:
            model.vqvae.freeze_encoder()

    def loss(self) -> tuple[Tensor, Figures]:
        x = self.batch()
        lmbda = draw_quality_lambda(self.module.vqvae.config, len(x), x.device)
        out = self.module.vqvae(x, lmbda, hard=True)
        loss, _, mse = rate_distortion(x, out, lmbda, self.run.config.distortion)
        bpp = torch.stack(self.module.prior(out.codes, lmbda)).sum(0) / (x.shape[2] * x.shape[3])
        weight = (self.module.vqvae.config.lambda_min / lmbda).sqrt()
        total = (weight * (loss + bpp)).mean() + self.run.config.beta * out.commitment_loss + out.codebook_loss
        return total, {"bpp": float(bpp.detach().mean()), "psnr": float(-10 * mse.detach().log10().mean())}

    def measure(self, module: nn.Module, x: Tensor) -> Figures:
        assert isinstance(module, Model)
        codes, prior = self._parts(module)
        return codes.measure(module.vqvae, x) | prior.measure(module.prior, x)

    def survey(self, module: nn.Module, images: list[Tensor], label: str) -> Figures:
        assert isinstance(module, Model)
        return self._parts(module)[0].survey(module.vqvae, images, label)

    def _parts(self, module: Model) -> tuple[CodesPhase, PriorPhase]:
        """The phases that measure either half."""
        return CodesPhase(self.run, module.vqvae), PriorPhase(self.run, module.prior, module.vqvae)
