"""Start a VQ-VAE from a smaller trained one, so that it computes the same function before it has learned anything.

::

    weights of a narrow one   ──┬─ old inputs → old outputs: copied
                                ├─ new inputs → old outputs: zero, nothing old changes
                                └─ new outputs: as drawn, their residuals tiny, so that they cost next to no bits

The idea is that of Net2Net (Chen, Goodfellow, Shlens 2016), with zeros in place of copies: from the first update on,
Muon's steps are as large for new rows of a kernel as for old ones. Codebooks and levels of pixels stay as
they are, since phase 1 fits them.
"""

import torch
from torch import Tensor, nn

from vqcodec.errors import ConfigError
from vqcodec.networks.layers import Conv
from vqcodec.networks.levels import Level, PixelLevel
from vqcodec.networks.vqvae import VQVAE

__all__ = ["grow"]

NEW_GAIN = 0.01  # of a fresh posterior: residuals of new channels start far below a step
NEW_LOG_SCALE = -6.0  # the log σ that new channels start at


@torch.no_grad()
def grow(narrow: VQVAE, wide: VQVAE) -> None:
    """Let ``wide``, just initialised, compute the same function as ``narrow``.

    The two may differ in widths, blocks, groups, dim and λ range.

    Raises ConfigError if ``wide`` is smaller in any of these, or has other strides.
    """
    _check(narrow, wide)
    old = dict(narrow.named_modules())
    fitted = tuple(f"levels.{i}." for i, level in enumerate(wide.levels) if isinstance(level, PixelLevel))
    for name, new in wide.named_modules():
        source = old.get(name)
        if name.startswith(fitted):
            continue
        if isinstance(new, Conv):
            _conv(name, source, new)
        elif isinstance(new, nn.Linear) and isinstance(source, nn.Linear):
            rows, columns = source.weight.shape
            new.weight[:rows, :columns] = source.weight
            new.bias[:rows] = source.bias
    wide.start.zero_()
    wide.start[: len(narrow.start)] = narrow.start
    _follow_lambda(narrow, wide)


def _check(narrow: VQVAE, wide: VQVAE) -> None:
    a, b = narrow.config, wide.config
    trunks = [[level for level in config.levels if not level.pixels] for config in (a, b)]
    strides = [[level.stride for level in trunk] for trunk in trunks]
    if a.patch != b.patch or strides[0] != strides[1] or len(a.widths) != len(b.widths):
        raise ConfigError(
            f"a model of patch {a.patch} and strides {strides[0]} cannot start one of {b.patch} and {strides[1]}"
        )
    sizes = [
        (f"{what} at stride {a.patch << i}", one, other)
        for what, ones, others in (("width", a.widths, b.widths), ("blocks", a.blocks, b.blocks))
        for i, (one, other) in enumerate(zip(ones, others, strict=True))
    ]
    sizes += [
        (f"channels of the level at stride {one.stride}", one.groups * one.dim, other.groups * other.dim)
        for one, other in zip(*trunks, strict=True)
    ]
    for what, one, other in sizes:
        if other < one:
            raise ConfigError(f"{what}: {other} cannot start from {one}, expected at least as much")


def _conv(name: str, source: nn.Module | None, new: Conv) -> None:
    kind = name.rpartition(".")[2]
    if source is None:
        if kind == "second":  # of a block that the narrow model lacks: start as the identity
            new.weight.zero_()
        return
    assert isinstance(source, Conv)
    outputs, inputs, kernel, _ = new.shape
    had_outputs, had_inputs, *_ = source.shape
    rows = _halves(had_outputs, outputs) if kind == "predict" else torch.arange(had_outputs)
    columns = _halves(had_inputs, inputs) if kind == "posterior" else torch.arange(had_inputs)
    weight = new.weight.view(outputs, inputs, kernel * kernel)
    fresh = torch.ones(outputs, dtype=torch.bool)
    fresh[rows] = False
    if kind == "posterior":
        weight[fresh] *= NEW_GAIN
    if kind == "predict":
        weight[fresh] = 0
        new.bias[fresh & (torch.arange(outputs) >= outputs // 2)] = NEW_LOG_SCALE
    weight[rows] = 0
    weight[rows[:, None], columns[None, :]] = source.weight.view(had_outputs, had_inputs, kernel * kernel)
    new.bias[rows] = source.bias


def _halves(had: int, count: int) -> Tensor:
    """Where the two halves of ``had`` channels, (μ, log σ) or (e, f), lie among ``count``."""
    half = torch.arange(had // 2)
    return torch.cat([half, half + count // 2])


def _follow_lambda(narrow: VQVAE, wide: VQVAE) -> None:
    """Compensate for another λ range: λ enters the network as another t, and gains are relative to another centre."""
    a, b = narrow.embedding, wide.embedding
    old, new = a.net[0], b.net[0]
    assert isinstance(old, nn.Linear)
    assert isinstance(new, nn.Linear)
    new.bias.copy_(old.bias + old.weight[:, 0] * (b.centre - a.centre) / a.half_range)
    new.weight.copy_(old.weight * (b.half_range / a.half_range))
    for one, other in zip(narrow.levels, wide.levels, strict=False):
        if not (isinstance(one, Level) and isinstance(other, Level)):
            break
        had = len(one.log_gain.bias)
        other.log_gain.bias[:had] += 0.5 * (other.log_lambda_centre - one.log_lambda_centre)
