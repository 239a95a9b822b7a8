"""The laboratory: its data, its bottlenecks, and each script run for a few steps on tiny data."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.study import codebooks, factors, findings, generation, gradients, lab, levels, models, symbols
from benchmarks.study.data import FACTORS, draw, load
from vqcodec.config import LevelConfig
from vqcodec.errors import ImageError
from vqcodec.networks.choices import HardCodes
from vqcodec.networks.levels import Latent
from vqcodec.networks.quantize import VectorQuantizer

CLASSES = 4


def _factors(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((count, len(FACTORS)))


def _write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    sides = b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sides + array.tobytes()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of idx files: 80 and 60 grey shapes of 28×28 in four classes."""
    folder = tmp_path_factory.mktemp("idx")
    for part, count in (("train", 80), ("t10k", 60)):
        images = draw(_factors(count)).amax(1)[:, 2:30, 2:30].numpy()
        _write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        _write_idx(folder / f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % CLASSES).astype(np.uint8))
    return folder


# --- data -------------------------------------------------------------------------------------------------------


def test_idx_files_get_a_frame(tiny: Path) -> None:
    train, test = load(str(tiny))
    assert (train.images.shape, len(test), train.names) == ((80, 1, 32, 32), 60, ("0", "1", "2", "3"))
    assert torch.equal(train.images[:, 0, 2:30, 2:30], draw(_factors(80)).amax(1)[:, 2:30, 2:30])
    assert int(train.images[:, :, :2].max()) == 0
    x = train.x(slice(0, 3))
    assert x.shape == (3, 3, 32, 32)
    assert float(x.max()) <= 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x08\x03" + bytes(12) + b"x", "not an idx file"),
        (b"\x1f\x8b", "cannot be read"),
    ],
)
def test_other_bytes_are_refused(tiny: Path, folder: Path, content: bytes, message: str) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content if content[:1] == b"\x1f" else gzip.compress(content))
    with pytest.raises(ImageError, match=message):
        load(str(folder))


def test_folders_of_labelled_images(folder: Path) -> None:
    for name, grey in (("cat", 40), ("dog", 200)):
        (folder / name).mkdir()
        for i in range(5):
            Image.new("L", (40, 30), grey).save(folder / name / f"{i}.png")
    train, test = load(str(folder))
    assert (len(train), len(test), train.names) == (8, 2, ("cat", "dog"))
    assert set(train.images[train.labels == 1].flatten().tolist()) == {200}
    with pytest.raises(ImageError, match="apt install"):
        load(str(folder / "none"))


def test_each_factor_changes_the_image_and_alone() -> None:
    middle = np.full((1, len(FACTORS)), 0.5)
    for index, name in enumerate(FACTORS):
        two = np.repeat(middle, 2, 0)
        two[:, index] = 0.05, 0.95
        a, b = draw(two).float()
        assert (a - b).abs().mean() > 1, name
        inside = [(image.amax(0) > 0).float() for image in (a, b)]
        if name == "hue":
            assert torch.equal(*inside)
        if name == "size":
            assert inside[1].sum() > 2 * inside[0].sum()


# --- bottlenecks --------------------------------------------------------------------------------------------------


def _latent(r: Tensor, sigma: Tensor, quantizer: VectorQuantizer | None = None) -> Latent:
    quantizer = quantizer or VectorQuantizer(1, 4, r.shape[1])
    return Latent(quantizer, r.shape, residual=lambda: r, scale=lambda: sigma)


def test_the_gaussian_has_the_kl_divergence_of_torch() -> None:
    torch.manual_seed(0)
    r, sigma = torch.randn(5, 6, 2, 2), torch.rand(5, 6, 2, 2) + 0.5
    bottleneck = lab.Gaussian()
    z = bottleneck(_latent(r, sigma))
    m, s = r[:, :3], r[:, 3:].exp()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(m, s), torch.distributions.Normal(torch.zeros_like(m), sigma[:, :3])
    )
    torch.testing.assert_close(bottleneck.bits[0], expected.sum((2, 3)) / np.log(2), rtol=1e-4, atol=1e-4)
    assert torch.equal(z[:, 3:], torch.zeros_like(m))
    many = torch.stack([lab.Gaussian()(_latent(r, sigma))[:, :3] for _ in range(4000)])
    assert float(((many.mean(0) - m) / s).abs().max()) < 0.1
    assert float((many.std(0) / s - 1).abs().max()) < 0.1


def _quantized(choice: HardCodes) -> tuple[Tensor, Tensor, Tensor]:
    """r, r_hat and the codewords of a quantiser at rest."""
    torch.manual_seed(1)
    quantizer = VectorQuantizer(1, 4, 3, rate_aware=False).eval()
    r = torch.randn(2, 3, 4, 4, requires_grad=True)
    r_hat = choice(_latent(r, torch.ones_like(r), quantizer))
    return r, r_hat, quantizer.decode(quantizer.encode(r.detach()))


def test_the_rotation_trick_gives_the_codeword_and_turns_gradients() -> None:
    r, r_hat, e = _quantized(gradients.Rotation())
    torch.testing.assert_close(r_hat, e, rtol=1e-4, atol=1e-5)
    # The gradient of ½‖r_hat‖² is e at r_hat; turned back and scaled it points along r.
    (0.5 * r_hat.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert r.grad is not None
    expected = e.square().sum(1, keepdim=True) / r.detach().square().sum(1, keepdim=True) * r.detach()
    torch.testing.assert_close(r.grad, expected, rtol=1e-3, atol=1e-4)


def test_noise_substitution_is_as_wrong_as_the_codeword() -> None:
    r, r_hat, e = _quantized(gradients.NoiseSubstitution())
    torch.testing.assert_close((r_hat - r).norm(dim=1), (e - r).norm(dim=1))
    assert not torch.allclose(r_hat, e)


def test_a_class_reaches_the_integers_of_the_prior() -> None:
    model = lab.network([LevelConfig(16, 1, 4, 4, 1)])
    prior = lab.new_prior(model)
    prior.embedding = lab.ClassEmbedding(model.config.lambda_min, model.config.lambda_max)
    lmbda = torch.tensor([model.config.lmbda(quality) for quality in range(1, 101)])
    rows = prior.embedding.net(torch.arange(100))
    assert len(torch.unique(rows, dim=0)) == 100
    assert torch.equal(prior.embedding(lmbda), rows)


def test_distances_of_centroids_are_zero() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(1, 3, 2, rate_aware=False)
    r = torch.randn(50, 2, 1, 1)
    quantizer.fit(r, None, iterations=100)
    distance, radius = codebooks.distances(quantizer, r)
    assert float(distance.max()) < 1e-5
    quantizer.codebook[0, 0, 0] += 1e-3
    assert float(codebooks.distances(quantizer, r)[0].max()) == pytest.approx(1e-3, rel=1e-2)
    assert 0.1 < radius < 2


def test_symbols_have_rows_by_code_by_position_and_by_pair() -> None:
    codes, size = torch.tensor([[[[5, 7], [7, 2]]]]), symbols.LEVEL.codebook_size
    assert symbols.rows(codes, "counts").tolist() == [[5, 7, 7, 2]]
    assert symbols.rows(codes, "codes").tolist() == [[5, 7 + size, 7 + 2 * size, 2 + 3 * size]]
    assert symbols.rows(codes, "pairs").tolist() == [[5 * size + 7, 7 * size + 2 + size**2]]


def test_values_move_only_where_their_code_occurs() -> None:
    numbers = torch.tensor([[5, 7], [5, 9]])
    values = symbols.table(torch.tensor([[12]]), 3)
    symbols.descend(values, numbers, torch.tensor([0, 1]), 1.0, 3, lambda step: None)
    assert (values.weight != 0).any(1).nonzero().flatten().tolist() == [5, 7, 9]


def test_overlap_is_the_mean_product_inside_a_class_and_between_tasks() -> None:
    torch.manual_seed(0)
    features, labels = torch.rand(40, 6) - 0.3, torch.arange(40) % 4
    products = features @ features.T / features.square().sum(1).mean()
    mine = labels < 2
    within = torch.stack([products[labels == c][:, labels == c].mean() for c in range(4)]).mean()
    expected = float(within), float(products[mine][:, ~mine].mean())
    for given in (features, features.to_sparse()):
        assert symbols.overlap(given, labels, 2) == pytest.approx(expected, rel=1e-4)


def test_nothing_is_forgotten_without_overlap() -> None:
    """Two tasks on separate halves of φ: the second leaves the first one's weights and accuracy as they were."""
    labels = torch.arange(80) % 4
    features = F.one_hot(labels, 4).float()
    apart, model = features.clone(), torch.nn.Linear(4, 4, bias=False)
    torch.nn.init.zeros_(model.weight)
    found = symbols.forget(model, (apart, labels), (apart, labels), apart, 50)
    assert (found.between, found.untouched, found.first[-1], found.second[-1]) == (0, 1, 1, 1)
    torch.nn.init.zeros_(model.weight)
    same = features[:, [0, 1, 0, 1]] + features[:, [2, 3, 2, 3]]  # classes 0 and 2 look alike, 1 and 3 too
    found = symbols.forget(model, (same, labels), (same, labels), same, 50)
    assert found.between > 0.4
    assert found.untouched < 0.1
    assert (found.first[len(found.first) // 2 - 1], found.first[-1], found.second[-1]) == (1, 0, 1)


def test_gap_of_a_line_and_of_two_heaps() -> None:
    line = torch.linspace(0, 1, 100)[torch.randperm(100)][:, None]
    heaps = torch.cat([torch.randn(50, 2) * 0.01, torch.randn(50, 2) * 0.01 + 1])[torch.randperm(100)]
    assert models.gap(line) < 1 < 3 < models.gap(heaps)


def test_gain_at_equal_rate() -> None:
    low = [{"cross_entropy": 2.0**i, "psnr": float(i)} for i in range(4)]
    high = [{"cross_entropy": 2.0**i, "psnr": i + 0.5} for i in range(1, 5)]
    assert levels.gain_at_equal_rate(low, high) == pytest.approx(0.5)
    assert levels.gain_at_equal_rate(low[:1], high[1:]) is None


def test_the_metric_of_the_larger_beta_is_compared_with_the_spread_of_seeds() -> None:
    def model(beta: float, seed: int, metric: float) -> dict[str, Any]:
        accuracy = {"100": [0.4, 0.5], "10000": [0.6, 0.7]}
        facts = {"metric": metric, "told_factors": [metric, 0.5], "accuracy": accuracy, "channel_bits": [2.0, 0.1]}
        return {"beta": beta, "seed": seed, **facts}

    scores = {"1": [0.5, 0.7], "8": [0.8, 0.75]}
    result = {
        "factors": ["x", "hue"],
        "chance": 0.5,
        "mean": {
            "metric": {beta: float(np.mean(values)) for beta, values in scores.items()},
            **{key: dict.fromkeys(scores, 1.0) for key in ("sample_efficiency", "bits", "psnr")},
        },
        "models": [model(float(beta), i, metric) for beta, values in scores.items() for i, metric in enumerate(values)],
    }
    said = findings.factors(result)
    assert "That of β = 8 is 0.175 above that of β = 1; seeds of one β differ by up to 0.200." in said
    assert "| β = 8: shared factor told | 78 % | 50 % |" in said
    assert "| β = 1 | seed 1 | 2.0 | 0.1 |" in said


def test_times_are_added_and_missing_results_are_named() -> None:
    results = {name: {"processor_seconds": 90.0} for name in findings.FINDINGS}
    assert findings.times(results).endswith("| all | 10.5 |")
    del results["levels"]
    assert findings.times(results).endswith("| all but levels | 9.0 |")


# --- whole scripts ------------------------------------------------------------------------------------------------

SMALLER: list[tuple[Any, dict[str, int]]] = [
    (models, {"RATED": 50, "WRITTEN": 5, "PLOTTED": 40}),
    (codebooks, {"IMAGES": 60, "EVERY": 1, "REST_STEPS": 4}),
    (levels, {"FITTED": 60, "TESTED": 5}),
    (gradients, {"SEEDS": 1}),
    (generation, {"SEEDS": 2, "PAIRS": 60, "SHOWN": 4}),
    (factors, {"SEEDS": 1, "PAIRS": 2, "POINTS": 60, "MANY": 200, "TESTED": 50}),
    (symbols, {"TASK_STEPS": 30, "PLOTTED": 40}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "sizes"), SMALLER, ids=[module.__name__.split(".")[-1] for module, _ in SMALLER])
def test_script(script: Any, sizes: dict[str, int], tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sizes.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setenv("VQCODEC_STUDY_DATA", str(tiny))
    run = CliRunner().invoke(script.main, ["--minutes", "0.02", "-o", str(folder)])
    assert run.exit_code == 0, run.output
    name = script.__name__.split(".")[-1]
    result = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    sizes = {"train": 80, "test": 60} if script is not factors else {"train": 10_000, "test": 2000}
    assert (result["images"], result["data"]) == (sizes, "shapes" if script is factors else tiny.name)
    assert min(result["steps"]) >= 1
    assert str(folder) not in json.dumps(result)
    assert "| " in findings.FINDINGS[name][1](result)
    with Image.open(folder / f"{name}.png") as image:
        assert image.width > 400
        assert len(set(image.convert("L").get_flattened_data())) > 2
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.json", f"{name}.png"]


@pytest.mark.parametrize("arguments", [["--data", "no/such/folder"], ["--minutes", "0"]])
def test_bad_arguments_give_one_line(arguments: list[str], folder: Path) -> None:
    run = CliRunner().invoke(models.main, [*arguments, "-o", str(folder / "new")])
    assert run.exit_code == (1 if "--data" in arguments else 2)
    assert isinstance(run.exception, SystemExit)
    assert not (folder / "new").exists()
