"""How codebooks learn: by moving average, gradient, k-means and revival."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vqcodec.networks.codebooks import Usage
from vqcodec.networks.quantize import DISTORTION_WEIGHT, VectorQuantizer

G, K, D = 3, 7, 2
SHAPE = (2, G * D, 3, 4)
WITH_VARIANCE = pytest.mark.parametrize("variance", [False, True], ids=["static", "variance"])
LEARN = pytest.mark.parametrize("learn", ["ema", "gradient"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def quantizer(**options: Any) -> VectorQuantizer:
    """Frozen, with a head that prefers some codes to others."""
    made = VectorQuantizer(G, K, D, **options).eval()
    torch.nn.init.normal_(made.bias, std=2)
    return made


def residuals(variance: bool) -> tuple[Tensor, Tensor | None]:
    r = torch.randn(SHAPE).requires_grad_()
    return r, torch.rand(SHAPE).add(0.2).requires_grad_() if variance else None


def test_one_step_of_the_moving_average() -> None:
    q = VectorQuantizer(1, 3, 1, decay=0.75)
    q.codebook.copy_(torch.tensor([[[-1.0], [0.0], [1.0]]]))
    q.sums.copy_(q.codebook / 3)
    q(torch.tensor([-1.5, 1.5, 0.5625, 1.5]).view(1, 1, 2, 2))
    usage, sums = torch.tensor([[0.3125, 0.25, 0.4375]]), torch.tensor([[-0.34375, 0.0, 0.47265625]])
    torch.testing.assert_close(q.usage, usage)
    torch.testing.assert_close(q.codebook, (sums / usage)[:, :, None])


@LEARN
def test_codebooks_stand_still_outside_training(learn: str) -> None:
    q, (r, precision) = quantizer(learn=learn), residuals(True)
    before = {key: value.clone() for key, value in q.state_dict().items()}
    q(r, precision)
    assert all(torch.equal(value, before[key]) for key, value in q.state_dict().items())


@WITH_VARIANCE
def test_both_ways_of_learning_arrive_at_the_centroids(variance: bool) -> None:
    centres = torch.tensor([[-3.0, -3], [-3, 3], [0, 0], [3, -3], [3, 3]])
    members = torch.randint(5, (2, 100))
    vectors = centres[members] + 0.3 * torch.randn(2, 100, 2)
    r = vectors.mT.reshape(1, 4, 10, 10)
    precision = torch.rand_like(r) if variance else None
    centroids = torch.stack([torch.stack([vectors[g][members[g] == k].mean(0) for k in range(5)]) for g in range(2)])
    for learn in ("ema", "gradient"):
        q = VectorQuantizer(2, 5, 2, learn=learn, decay=0.8)
        with torch.no_grad():
            q.codebook.copy_(centres + 0.5 * torch.randn(2, 5, 2))
            q.sums.copy_(q.codebook / 5)
        sgd = torch.optim.SGD([q.codebook], lr=4.0) if learn == "gradient" else None
        for _ in range(150):
            out = q(r, precision)
            if sgd is not None:
                (out.codebook_loss + out.commitment_loss + out.bits.sum()).backward()
                sgd.step()
                sgd.zero_grad()
        torch.testing.assert_close(q.codebook.detach(), centroids, atol=1e-4, rtol=0)
        shares = torch.stack([m.bincount(minlength=5) for m in members]) / 100
        torch.testing.assert_close(q.usage, shares)


def test_a_codeword_that_is_never_chosen_stays_where_it_is() -> None:
    q = VectorQuantizer(1, 2, 1, decay=0.5)
    q.codebook.copy_(torch.tensor([[[0.0], [50.0]]]))
    q.sums.copy_(q.codebook / 2)
    for _ in range(200):  # usage falls to 2^-200
        q(torch.randn(1, 1, 4, 4))
    assert q.codebook[0, 1].item() == pytest.approx(50)
    assert q.usage[0].tolist() == pytest.approx([1, 0])
    q(torch.full((1, 1, 4, 4), 49.0))
    assert q.codebook[0, 1].item() == pytest.approx(49)


def test_processes_share_one_moving_average(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, r = quantizer().train(), torch.randn(2, G * D, 3, 4)
    ours = quantizer().train()
    ours.load_state_dict(whole.state_dict())
    rows = ours.rows(r[1:])
    theirs = iter([*ours.statistics(rows, ours.assign(rows, None)), ours.bias.softmax(1)])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda mine: mine.add_(next(theirs)))
    ours(r[:1])
    monkeypatch.undo()
    whole(r)
    torch.testing.assert_close(ours.state_dict(), whole.state_dict())


def cost(q: VectorQuantizer, r: Tensor, precision: Tensor | None) -> tuple[float, float]:
    """Mean of a·distortion + bits, and of bits, a position and group."""
    out = q.eval()(r, precision)
    positions = out.codes.numel()
    squared_error = (q.decode(out.codes) - r).square().sum().item()
    bits = out.bits.sum().item()
    return (DISTORTION_WEIGHT * squared_error + bits) / positions, bits / positions


def gaussians(seed: int) -> tuple[Tensor, Tensor]:
    """Residuals ``[1, 4, 64, 64]`` in units of the step, their σ known and different everywhere, and 1/σ²."""
    torch.manual_seed(seed)
    scale = torch.empty(1, 4, 64, 64).uniform_(-2, 0).exp()
    return scale * torch.randn_like(scale), scale.pow(-2)


def rounding(r: Tensor, precision: Tensor) -> tuple[float, float]:
    """The same two figures for rounding each pair of channels to integers, coded with the true Gaussians."""
    rounded, root = r.round().double(), precision.double().sqrt() / math.sqrt(2)
    bins = 0.5 * (torch.erf((rounded + 0.5) * root) - torch.erf((rounded - 0.5) * root))
    bits = -bins.clamp_min(1e-30).log2().sum().item()
    positions = r.numel() / 2
    return (DISTORTION_WEIGHT * (rounded - r).square().sum().item() + bits) / positions, bits / positions


def test_fit_beats_rounding_and_plain_k_means_on_gaussians() -> None:
    r, precision = gaussians(0)
    fitted, plain = VectorQuantizer(2, 32, 2), VectorQuantizer(2, 32, 2, rate_aware=False)
    for q in (fitted, plain):
        q.fit(r, precision)
    fresh = gaussians(1)
    ours, our_bits = cost(fitted, *fresh)
    theirs, their_bits = rounding(*fresh)
    assert ours < 0.92 * theirs
    assert our_bits < 0.76 * their_bits
    assert ours < 0.65 * cost(plain, *fresh)[0]


def test_fit_leaves_codewords_at_centroids_and_a_head_that_expects_what_occurs() -> None:
    r, precision = gaussians(0)
    q = VectorQuantizer(2, 16, 2)
    q.fit(r, precision, iterations=60)
    codes, vectors = q.encode(r, precision)[0].flatten(1), r.view(2, 2, -1).mT
    counts = torch.stack([c.bincount(minlength=16) for c in codes])
    for group, code in (counts > 0).nonzero().tolist():
        centroid = vectors[group, codes[group] == code].mean(0)
        torch.testing.assert_close(q.codebook[group, code], centroid, atol=0.05, rtol=0)
    expected = q.head.logits(q.codebook, q.bias, q.rows(precision)).softmax(2).sum(1)
    torch.testing.assert_close(expected.detach(), counts.float(), rtol=0.1, atol=2)
    torch.testing.assert_close(q.usage, counts / 4096, atol=2e-3, rtol=0)
    torch.testing.assert_close(q.sums, q.codebook * q.usage[:, :, None])


def test_a_fit_to_integers_rounds_and_beats_rounding() -> None:
    r, precision = gaussians(0)
    q = VectorQuantizer(2, 64, 2, learn="integers")
    q.fit(r, precision)
    assert torch.equal(q.codebook, q.codebook.round())
    assert q.bias.amin() > -10
    ours, our_bits = cost(q, *gaussians(1))
    theirs, their_bits = rounding(*gaussians(1))
    assert ours < 0.95 * theirs
    assert our_bits < 0.9 * their_bits


def test_integers_stand_still_in_training() -> None:
    r, precision = gaussians(0)
    q = VectorQuantizer(2, 16, 2, learn="integers").train()
    q.fit(r, precision)
    codebook, bias, usage = q.codebook.clone(), q.bias.clone(), q.usage.clone()
    for _ in range(3):
        assert q(3 * r, precision).codebook_loss == 0
    assert q.revive(r, below=1.0) == 0
    assert torch.equal(q.codebook, codebook)
    assert torch.equal(q.bias, bias)
    assert not torch.equal(q.usage, usage)


def test_fit_without_variance_reaches_the_entropy_of_its_codes() -> None:
    r, _ = gaussians(0)
    q = VectorQuantizer(2, 16, 2)
    q.fit(r, None)
    entropies = Usage.of(torch.stack([c.bincount(minlength=16) for c in q.encode(r)[0].flatten(1)])).perplexity.log2()
    assert cost(q, r, None)[1] == pytest.approx(entropies.mean().item(), rel=0.01)


def test_fit_is_the_same_each_time_and_survives_fewer_vectors_than_codewords() -> None:
    r, twins = torch.randn(1, 2, 2, 2), [VectorQuantizer(1, 16, 2) for _ in range(2)]
    for q in twins:
        q.fit(r, None, seed=3)
    assert all(torch.equal(value, twins[1].state_dict()[key]) for key, value in twins[0].state_dict().items())
    assert all(value.isfinite().all() for value in twins[0].state_dict().values())
    torch.testing.assert_close(twins[0](r).z_q, r)


@pytest.mark.parametrize("with_precision", [False, True])
def test_training_makes_the_head_expect_what_occurs(with_precision: bool) -> None:
    torch.manual_seed(0)
    q = VectorQuantizer(2, 6, 1, decay=0.9).train()
    q.codebook.copy_(torch.linspace(-2, 2, 6)[None, :, None].expand(2, 6, 1))
    scale = torch.empty(4, 2, 16, 16).uniform_(0.5, 1.5)
    for _ in range(400):
        r, precision = scale * torch.randn_like(scale), scale.pow(-2) if with_precision else None
        codes = q(r, precision).codes
    p = q.head.logits(q.codebook, q.bias, None if precision is None else q.rows(precision)).softmax(2).mean(1)
    usage = torch.stack([codes[:, g].flatten().bincount(minlength=6) for g in range(2)]) / codes[:, 0].numel()
    torch.testing.assert_close(p, q.usage, rtol=0.15, atol=0.01)
    torch.testing.assert_close(q.usage, usage, rtol=0.2, atol=0.02)


@LEARN
def test_revival_moves_the_dead_and_leaves_the_living(learn: str) -> None:
    q = VectorQuantizer(2, 4, 1, rate_aware=False, learn=learn)
    with torch.no_grad():
        q.codebook.copy_(torch.tensor([0.0, 1, 2, 3])[None, :, None].expand(2, 4, 1))
        q.bias.copy_(torch.arange(8).view(2, 4))
    q.usage.copy_(torch.tensor([[0.5, 0.5, 0.0, 1e-4], [0.25, 0.25, 0.25, 0.25]]))
    before = {key: value.clone() for key, value in q.state_dict().items()}
    # In group 0 only two residuals have an error, so the dead codes must be moved there.
    r = torch.zeros(1, 2, 4, 4)
    r[0, 0, 1, 2], r[0, 0, 3, 3] = 7, -9
    assert q.revive(r, below=1e-3) == 2
    after = q.state_dict()
    assert sorted(after["codebook"][0, 2:].flatten().tolist()) == [-9, 7]
    assert after["usage"][0].tolist() == pytest.approx([0.5, 0.5, 1e-3, 1e-3])
    torch.testing.assert_close(after["sums"][0, 2:], after["codebook"][0, 2:] * 1e-3)
    assert after["bias"][0].tolist() == pytest.approx([0, 1, *[3 + math.log(1e-3)] * 2])  # a threshold's share
    for key, value in after.items():
        assert torch.equal(value[0, :2], before[key][0, :2])
        assert torch.equal(value[1], before[key][1])
    assert q.revive(r, below=1e-3) == 0
    assert q(r).commitment_loss.item() == 0


def test_revival_can_move_no_more_codewords_than_there_are_residuals() -> None:
    q = VectorQuantizer(1, 8, 1)
    assert q.revive(torch.randn(1, 1, 1, 3), below=1) == 3


@LEARN
def test_codes_that_fall_out_of_use_are_found_dead(learn: str) -> None:
    q, r = VectorQuantizer(1, 4, 1, learn=learn, decay=0.5), torch.zeros(1, 1, 4, 4)
    with torch.no_grad():
        q.codebook.copy_(torch.tensor([0.0, 5, 6, 7])[None, :, None])
    for _ in range(20):
        q(r)
    assert q.revive(r, below=1e-5) == 3


@pytest.mark.parametrize(
    ("counts", "perplexity", "share"),
    [
        ([5, 5, 5, 5], 4, 1),
        ([0, 9, 0, 0], 1, 0.25),
        ([3, 0, 3, 0], 2, 0.5),
        ([2, 1, 1, 0], 2**1.5, 0.75),
        ([0, 0, 0, 0], 1, 0),
    ],
)
def test_usage(counts: list[int], perplexity: float, share: float) -> None:
    usage = Usage.of(torch.tensor([counts, [1, 0, 0, 0]]))
    assert usage.perplexity.tolist() == pytest.approx([perplexity, 1])
    assert usage.share.tolist() == [share, 0.25]


def test_other_ways_of_learning_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^learn is 'x', expected 'ema', 'gradient' or 'integers'$"):
        VectorQuantizer(G, K, D, learn="x")


@LEARN
def test_the_zero_code_stays_at_zero(learn: str) -> None:
    q = VectorQuantizer(G, K, D, learn=learn, zero_code=True)
    r = 3 + torch.randn(4, G * D, 16, 16)  # nothing of it is near zero
    q.fit(r, None)
    adam = torch.optim.Adam(q.parameters(), lr=0.1) if learn == "gradient" else None
    before = q.codebook.detach().clone()
    for _ in range(5):
        loss = q(r).codebook_loss
        if adam is not None:
            adam.zero_grad()
            loss.backward()
            adam.step()
    q.usage.zero_()
    q.revive(r, below=1e-3)
    assert not q.codebook[:, 0].any()
    assert (q.codebook[:, 1:] != before[:, 1:]).any(2).all()


def test_a_fit_says_how_far_it_is() -> None:
    shares: list[float] = []
    VectorQuantizer(2, 4, 1).fit(torch.randn(1, 2, 5, 5), None, iterations=4, progress=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]
