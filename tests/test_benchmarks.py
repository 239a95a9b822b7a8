"""The benchmarks: their options, and each script run as a user would."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import contexts, exactness, options, throughput, trials
from vqcodec.config import LevelConfig, ModelConfig, PhaseConfig, PriorConfig
from vqcodec.prior import LevelPrior, PixelCNN
from vqcodec.train.vae import rate_distortion
from vqcodec.vqvae import VQVAE, Level

ROOT = Path(__file__).resolve().parents[1]


def test_digest_tells_codes_and_shapes_apart() -> None:
    grid = np.arange(6, dtype=np.int16).reshape(1, 2, 3)
    grids: list[list[NDArray[np.int16]]] = [[grid], [grid + 1], [grid.reshape(1, 3, 2)], [grid, grid]]
    assert len({exactness.digest(codes) for codes in grids}) == 4
    assert exactness.digest([grid]) == exactness.digest([np.asfortranarray(grid).copy()])


# --- options ----------------------------------------------------------------------------------------------------

_CONTEXT, _PARAMETER = click.Context(click.Command("x")), click.Option(["--x"])


@pytest.mark.parametrize(("text", "expected"), [("50", [50]), ("90,10,90, 1", [1, 10, 90])])
def test_numbers(text: str, expected: list[int]) -> None:
    assert options.numbers(_CONTEXT, _PARAMETER, text) == expected


@pytest.mark.parametrize(
    ("callback", "text", "message"),
    [
        (options.numbers, "", "expected numbers such as"),
        (options.numbers, "10,x", "expected numbers such as"),
        (options.numbers, "0,10", "expected numbers from 1 to 100"),
        (options.numbers, "101", "expected numbers from 1 to 100"),
    ],
)
def test_options_refuse(callback: Callable[..., object], text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        callback(_CONTEXT, _PARAMETER, text)


def test_the_folder_of_the_output_is_made_before_hours_of_work(folder: Path) -> None:
    assert options.make_folder(_CONTEXT, _PARAMETER, folder / "new" / "rd.json") == folder / "new" / "rd.json"
    assert (folder / "new").is_dir()
    (folder / "file").touch()
    with pytest.raises(click.BadParameter, match="cannot be made"):
        options.make_folder(_CONTEXT, _PARAMETER, folder / "file" / "rd.json")


# --- whole runs -------------------------------------------------------------------------------------------------


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.slow
def test_exactness(tiny_data: Path, tiny_weights: Path, folder: Path) -> None:
    images = sorted((tiny_data / "val").iterdir())
    run = _run(
        "benchmarks.exactness", *images, "-o", folder / "e.json", "--weights", tiny_weights, "--qualities", "20,80"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((folder / "e.json").read_text(encoding="utf-8"))
    rows = {row["decoded_on"]: row for row in result["rows"] if row["made_on"] == exactness.REFERENCE.name}
    assert {way.name for way in exactness.OTHERS} <= rows.keys()
    assert {row["files"] for row in rows.values()} == {2 * len(images)}
    assert len({tuple(row["codes_sha256"]) for row in rows.values()}) == 1
    assert rows["CPU, no vector units"]["cpu_capability"] == "DEFAULT"
    assert max(row["largest_pixel_difference"] for row in rows.values()) <= 1


@pytest.mark.slow
def test_speed(tiny_data: Path, tiny_weights: Path, folder: Path) -> None:
    image = min((tiny_data / "val").iterdir())
    run = _run(
        "benchmarks.speed", image, "-o", folder / "s.json", "--weights", tiny_weights, "--repeats", 3, "--threads", 1
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    assert result["provenance"]["threads"] == 1
    assert all(len(times) == 3 for times in result["seconds"].values())
    assert result["median_seconds"]["decompress"] == sorted(result["seconds"]["decompress"])[1]
    with Image.open(image) as picture:
        width, height = picture.size
    steps = [-(-width // s) + 2 * (-(-height // s) - 1) for s in (16, 8, 8)]
    assert [level["steps"] for level in result["levels"]] == steps
    assert result["steps"] == sum(steps)
    assert f"{sum(steps)} wavefront steps" in run.stdout


@pytest.mark.slow
def test_trials(tiny_data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny architectures, one of which is changed beyond its configuration."""
    model = ModelConfig(
        levels=(LevelConfig(stride=16, groups=4), LevelConfig(stride=8, groups=4)), widths=(8, 8, 8), blocks=(1, 1, 1)
    )
    phase = PhaseConfig(batch=8, crop=64)
    pair = (trials.Trial("one", model, phase=phase), trials.Trial("other", model, trials.no_mean, phase))
    monkeypatch.setitem(trials.SETS, "architectures", pair)
    monkeypatch.setattr(trials, "CENTRE", 64)
    command = [str(tiny_data / "train"), "--validation", str(tiny_data / "val"), "--minutes", "0.02", "-o", "t.json"]
    run = CliRunner().invoke(trials.main, command)
    assert run.exit_code == 0, run.output
    result = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert [trial["name"] for trial in result["trials"]] == ["one", "other"]
    for trial in result["trials"]:
        assert trial["steps"] >= 1
        assert [row["lambda"] for row in trial["rows"]] == list(trials.LAMBDAS)
        for row in trial["rows"]:
            assert row["J"] > row["bpp"] > 0
    assert run.stdout == trials.markdown(result["trials"]) + "\n"


def test_each_trial_can_be_built() -> None:
    everything = [trial for trials_of_one in trials.SETS.values() for trial in trials_of_one]
    names = [trial.name for trial in everything]
    assert len(set(names)) == len(names)
    x, lmbda = torch.rand(1, 3, 32, 32), torch.tensor([0.01])
    for trial in everything:
        out = trials.built(trial)(x, lmbda, hard=False)
        assert out.x_hat.shape == x.shape
    without = trials.built(next(trial for trial in everything if trial.change is trials.no_mean))
    level = without.levels[0]
    assert isinstance(level, Level)
    mean, scale = level.mean_scale(torch.randn(1, level.predict_hidden.shape[1], 2, 2))
    assert not mean.any()
    assert scale.all()


@pytest.mark.parametrize("trial", trials.SETS["optimisers"], ids=lambda trial: trial.name)
def test_each_optimiser_learns(trial: trials.Trial) -> None:
    torch.manual_seed(0)
    model = VQVAE(ModelConfig(levels=(LevelConfig(4, 4),), widths=(8,), blocks=(1,)))
    stepper = trial.stepper(model, trial.phase)
    x, lmbda = torch.rand(2, 3, 16, 16), torch.tensor([0.001, 0.01])
    losses: list[float] = []
    for _ in range(30):
        loss = rate_distortion(x, model(x, lmbda, hard=False), lmbda)[0].mean()
        torch.autograd.backward(loss)
        assert stepper.step(0.5) > 0
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])


TINY = ModelConfig(
    levels=(LevelConfig(16, 4, codebook_size=8), LevelConfig(8, 4, codebook_size=8)),
    widths=(8, 8, 8),
    blocks=(1, 1, 1),
)


@pytest.mark.parametrize(
    ("change", "deaf_to"),
    [
        (None, set[str]()),
        (contexts.without_coarser_level, {"coarser"}),
        (contexts.without_neighbours, {"neighbour"}),
        (contexts.without_quality, {"quality"}),
    ],
)
def test_a_prior_without_a_context_does_not_hear_it(
    change: Callable[[PixelCNN], None] | None, deaf_to: set[str]
) -> None:
    torch.manual_seed(0)
    prior = contexts.built(contexts.Variant("x", PriorConfig(16, 1, 1), change=change), TINY)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    prior = copy.deepcopy(prior)  # as the average of the weights is
    finest = prior.levels[1]
    assert isinstance(finest, LevelPrior)
    logits: list[Tensor] = []
    finest.heads[-1].register_forward_hook(lambda _module, _inputs, output: logits.append(output))
    coarse, fine = torch.zeros(1, 4, 2, 2, dtype=torch.long), torch.zeros(1, 4, 4, 4, dtype=torch.long)
    lmbda = torch.tensor([0.01])
    left = fine.clone()
    left[0, 0, 2, 1] = 1
    with torch.no_grad():
        for codes, value in [([coarse, fine], lmbda), ([coarse + 1, fine], lmbda), ([coarse, left], lmbda)]:
            prior(codes, value)
        prior([coarse, fine], 3 * lmbda)
    # The code right of the one that differs, where no code of its own position does.
    before, *after = (grid[0, :, 2, 2] for grid in logits)
    heard = {
        what for what, grid in zip(("coarser", "neighbour", "quality"), after, strict=True) if (grid != before).any()
    }
    assert heard == {"coarser", "neighbour", "quality"} - deaf_to


@pytest.mark.slow
def test_contexts(tiny_data: Path, tiny_weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = (contexts.Variant("all contexts"), contexts.Variant("no quality", change=contexts.without_quality))
    for name, value in {"VARIANTS": variants, "CROP": 64, "CENTRE": 64, "COUNTED": 2}.items():
        monkeypatch.setattr(contexts, name, value)
    command = [str(tiny_data / "train"), "--validation", str(tiny_data / "val"), "--minutes", "0.02", "-o", "c.json"]
    run = CliRunner().invoke(contexts.main, [*command, "--weights", str(tiny_weights)])
    assert run.exit_code == 0, run.output
    result = json.loads(Path("c.json").read_text(encoding="utf-8"))
    uniform, static, *priors = result["priors"]
    assert [prior["name"] for prior in priors] == ["all contexts", "no quality"]
    for quality, bpp in uniform["bpp"].items():
        # 2 codes of 4 bits at 1/16, 4 at 1/8 and 6 more at 1/8, of 64 × 64 pixels.
        assert bpp == pytest.approx([8 / 256, 16 / 64, 24 / 64])
        assert 0 <= sum(static["bpp"][quality]) < sum(bpp)
        assert all(sum(prior["bpp"][quality]) > 0 for prior in priors)
    assert run.stdout == contexts.markdown(result["priors"]) + "\n"


@pytest.mark.slow
def test_throughput(tiny_data: Path, folder: Path) -> None:
    phase = {"batch": 2, "crop": 64}
    lines = [
        f"[train.{name}]\n" + "\n".join(f"{k} = {v}" for k, v in phase.items()) for name in ("vae", "codes", "prior")
    ]
    lines.append("[model]\nwidths = [8, 16, 16]\nblocks = [1, 1, 1]\nlevels = [{stride = 16, groups = 4}]")
    Path("tiny.toml").write_text("\n".join(lines), encoding="utf-8")
    command = [str(tiny_data / "train"), "--config", "tiny.toml", "--steps", "2", "--threads", "1", "-o", "t.json"]
    run = CliRunner().invoke(throughput.main, command)
    assert run.exit_code == 0, run.output
    result = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert [phase["phase"] for phase in result["phases"]] == ["vae", "codes", "prior"]
    for measured in result["phases"]:
        assert measured["pixels_per_second"] == pytest.approx(2 * 64 * 64 / measured["seconds"])
        assert 0 < measured["flop_per_second"] < 1e15
    assert run.stdout == throughput.markdown(result) + "\n"
