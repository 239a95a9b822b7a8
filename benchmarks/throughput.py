"""Speed of training in pixels per second, and its FLOP/s relative to those of a bare convolution.

::

    preset ──▶ one step of phase 0, of phase 1, of the prior ── seconds, multiply–adds ──▶ pixels/s, FLOP/s
    a 3×3 convolution, 128 → 128 channels, forwards and backwards ── seconds ──▶ FLOP/s, the machine's

A timed step includes everything: crops from photographs, loss, gradients, optimiser, average of the weights.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import options
from vqcodec.codec import pick_device
from vqcodec.config import Config, PhaseConfig
from vqcodec.errors import VqcodecError
from vqcodec.files.images import image_files
from vqcodec.jsonfile import write_json
from vqcodec.networks.layers import Conv
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.rd.provenance import surroundings
from vqcodec.train.codes import CodesPhase
from vqcodec.train.data import Photographs
from vqcodec.train.loop import Phase, Run
from vqcodec.train.optim import Optimizer, averaged
from vqcodec.train.prior import PriorPhase
from vqcodec.train.vae import VAEPhase

__all__ = ["bare_convolution", "main", "markdown", "measure"]

WARM_UP = 3  # steps that are not timed
CHANNELS, SIDE = 128, 64  # of the bare convolution


def measure(phase: Phase, steps: int) -> dict[str, Any]:
    """Median seconds of a step, pixels per second and FLOP per second."""
    optimizer, average = Optimizer(phase.module, phase.config), averaged(phase.module, 0.999)
    phase.module.train()

    def step() -> None:
        with phase.run.autocast():
            loss, _ = phase.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(1e-3)
        average.update_parameters(phase.module)

    seconds = _median(step, phase.run.device, steps)
    with FlopCounterMode(display=False) as counter:
        step()
    pixels = phase.config.batch * phase.config.crop**2
    return {
        "phase": phase.name,
        "crop": phase.config.crop,
        "batch": phase.config.batch,
        "seconds": seconds,
        "pixels_per_second": pixels / seconds,
        "flop_per_second": counter.get_total_flops() / seconds,
    }


def bare_convolution(device: torch.device, batch: int, steps: int) -> float:
    """FLOP per second of one 3×3 convolution in bfloat16, forwards and backwards."""
    conv = Conv(CHANNELS, CHANNELS).to(device)
    x = torch.randn(batch, CHANNELS, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            y = conv(x)
        y.backward(torch.ones_like(y))

    seconds = _median(step, device, steps)
    return 3 * 2 * 9 * CHANNELS**2 * batch * SIDE**2 / seconds


def _median(step: Callable[[], None], device: torch.device, steps: int) -> float:
    times: list[float] = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


def markdown(result: dict[str, Any]) -> str:
    """A table with one row per phase."""
    bare = result["bare_convolution_flop_per_second"]
    lines = [
        f"A bare 3×3 convolution reaches {bare / 1e9:.0f} GFLOP/s.",
        "",
        "| phase | crops | s a step | Mpixel/s | GFLOP/s | of the bare convolution |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {p['phase']} | {p['batch']} × {p['crop']}² | {p['seconds']:.3f} | {p['pixels_per_second'] / 1e6:.2f} | "
        f"{p['flop_per_second'] / 1e9:.0f} | {100 * p['flop_per_second'] / bare:.0f} % |"
        for p in result["phases"]
    ]
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--config", type=options.STORED, help="A TOML preset.  [default: the shipped model]", metavar="FILE")
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True, help="Timed steps of each phase.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads to compute with.")
@options.device
@options.output
def main(data: Path, config: Path | None, steps: int, threads: int | None, device: str, output: Path) -> None:
    torch.set_num_threads(threads or torch.get_num_threads())
    try:
        settings = Config.from_toml(config) if config else Config()
        where = pick_device(device)
        phases: list[PhaseConfig] = [settings.train.vae, settings.train.codes, settings.train.prior]
        smallest = max(phase.crop for phase in phases)
        photographs = Photographs(image_files(data), where, smallest=smallest, downscale_share=0.25)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), settings.train, where, photographs, photographs, quiet=True)
        vqvae = VQVAE(settings.model).to(where)
        prior = PixelCNN(settings.model, settings.prior).to(where)
        made = [VAEPhase(run, vqvae), CodesPhase(run, vqvae), PriorPhase(run, prior, vqvae)]
        measured = [measure(phase, steps) for phase in made]
    result = {
        "phases": measured,
        "bare_convolution_flop_per_second": bare_convolution(where, batch=4, steps=steps),
        "device": str(where),
        "provenance": surroundings(threads=torch.get_num_threads()),
    }
    write_json(output, result)
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
