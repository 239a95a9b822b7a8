"""Phase 0 as it is measured: by what a file would give."""

import dataclasses

import pytest
import torch
from PIL import Image

from vqcodec.config import Config
from vqcodec.networks.choices import Round
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.loop import Run
from vqcodec.train.vae import EVALUATED_QUALITIES, SHEET_QUALITIES, VAEPhase, rate_distortion
from vqcodec.visual.distortion import VisualDistortion


@pytest.fixture
def model(tiny_config: Config) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(tiny_config.model).eval()


@pytest.mark.parametrize("rounded", [False, True])
@torch.no_grad()
def test_it_is_measured_by_rounded_residuals_whatever_form_is_trained(
    rounded: bool, tiny_state: Run, model: VQVAE
) -> None:
    tiny_state.config = dataclasses.replace(tiny_state.config, rounded=rounded)
    phase, x = VAEPhase(tiny_state, model), next(tiny_state.validation.centres())
    figures = phase.measure(model, x)
    assert figures == phase.measure(model, x)  # noise would differ
    for quality in EVALUATED_QUALITIES:
        choice = Round()
        x_hat = model.reconstruct(x, torch.tensor([model.config.lmbda(quality)]), choice, pixels=False)
        assert figures[f"bpp_q{quality}"] == pytest.approx(float(sum(choice.bits)) / (64 * 64))
        assert figures[f"psnr_q{quality}"] == pytest.approx(float(-10 * (x_hat - x).square().mean().log10()))


@torch.no_grad()
def test_an_evaluation_takes_the_images_that_there_is_time_for(tiny_state: Run, model: VQVAE) -> None:
    phase = VAEPhase(tiny_state, model)
    whole = phase.evaluate(model, "whole")
    assert whole["images"] == 2
    with tiny_state.autocast():
        each = [phase.measure(model, x) for x in tiny_state.validation.centres()]
    assert whole["psnr_q40"] == pytest.approx((each[0]["psnr_q40"] + each[1]["psnr_q40"]) / 2)
    assert whole.keys() >= {"live_share", "live_0", "live_1"}
    hurried = phase.evaluate(model, "hurried", seconds=0.0)
    assert hurried["images"] == 1
    assert hurried["psnr_q40"] == pytest.approx(each[0]["psnr_q40"])
    for name, count in (("whole", 2), ("hurried", 1)):
        with Image.open(tiny_state.folder / "sheets" / f"{name}.png") as sheet:
            assert sheet.size == (64 * (1 + len(SHEET_QUALITIES)), 64 * count)


def test_the_visual_distortion_takes_the_place_of_the_squared_error(tiny_state: Run, model: VQVAE) -> None:
    x, lmbda = next(tiny_state.validation.centres()), torch.tensor([0.01])
    out = model(x, lmbda, hard=True)
    loss, bpp, mse = rate_distortion(x, out, lmbda)
    seen, *same = rate_distortion(x, out, lmbda, "visual")
    assert loss.item() == pytest.approx((bpp + 0.01 * 255**2 * mse).item())
    assert seen.item() == pytest.approx((bpp + 0.01 * 255**2 * VisualDistortion(x)(out.x_hat)).item())
    assert seen.item() != pytest.approx(loss.item(), rel=0.01)
    assert same == [bpp, mse]


def test_a_run_trains_for_the_distortion_that_it_names(tiny_state: Run, model: VQVAE) -> None:
    losses = []
    for distortion in ("mse", "visual"):
        tiny_state.config = dataclasses.replace(tiny_state.config, distortion=distortion)
        torch.manual_seed(0)
        phase = VAEPhase(tiny_state, model)
        phase.seed("0")
        losses.append(float(phase.loss()[0].detach()))
    assert losses[0] != pytest.approx(losses[1], rel=0.01)
