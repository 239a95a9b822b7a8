"""The optimiser of coarse levels is Adam."""

import torch

from vqcodec.search.annealing import BETAS, COARSE_RATE, _Adam


def test_adam_is_torchs() -> None:
    torch.manual_seed(0)
    own = torch.randn(5, 3)
    theirs = own.clone().requires_grad_()
    adam, reference = _Adam(own), torch.optim.Adam([theirs], lr=COARSE_RATE, betas=BETAS)
    for _ in range(4):
        gradient = torch.randn(5, 3)
        adam.step(own, gradient)
        theirs.grad = gradient
        reference.step()
    torch.testing.assert_close(own, theirs.detach())
