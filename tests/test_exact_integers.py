"""Loading the prior's integers: the bound is sharp, and integers that break it are refused."""

import pytest
import torch
from torch import Tensor

from tests.prior_support import NARROW, TINY
from vqcodec.errors import WeightsError
from vqcodec.exact.arithmetic import ACTIVATION_MAX, EXACT
from vqcodec.exact.prior import FixedPrior
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return fixed_point(PixelCNN(TINY, NARROW))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_is_sharp(tensors: dict[str, Tensor], sign: int) -> None:
    weight, shift = tensors["0.first.weight"].long(), int(tensors["0.first.shift"][3])
    room = EXACT - int(weight[:, 3].abs().sum()) * ACTIVATION_MAX - 2 ** (shift - 1)
    bias = tensors["0.first.bias"].clone()
    bias[3] = sign * (room - 1)
    FixedPrior(tensors | {"0.first.bias": bias}, TINY, NARROW)
    bias[3] = sign * room
    with pytest.raises(WeightsError, match=r"0\.first can reach .*, beyond the exact integers below 2\^24"):
        FixedPrior(tensors | {"0.first.bias": bias}, TINY, NARROW)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("0.embed", None, "prior has no tensor 0.embed"),
        ("1.heads.1.shift", None, "prior has no tensor 1.heads.1.shift"),
        (
            "1.spread.weight",
            lambda t: t.T.flatten(),
            "1.spread.weight is torch.int8 [256], expected integers [8, 32]",
        ),
        ("1.inner", lambda t: t[:1], "1.inner is torch.int16 [1, 6, 8], expected integers [2, 6, 8]"),
        ("0.quality", lambda t: t.float(), "0.quality is torch.float32 [100, 8], expected integers [100, 8]"),
        ("0.quality", lambda t: t.bool(), "0.quality is torch.bool"),
        ("0.quality", lambda t: t.to(torch.complex64), "0.quality is torch.complex64"),
        ("0.quality", lambda t: t.int() + 40000, "0.quality has values beyond ±1023"),
        ("0.embed", lambda t: torch.full_like(t, -(2**15)), "0.embed has values beyond ±1023"),
        ("0.first.shift", lambda t: t * 0, "0.first.shift is 0, expected 1..32"),
        ("0.first.shift", lambda t: t * 0 + 33, "0.first.shift is 33, expected 1..32"),
        ("0.first.shift", lambda t: t[:1], "0.first.shift is torch.int32 [1], expected integers [8]"),
        ("0.first.weight", lambda t: t.long() << 40, "layer 0.first can reach"),
        ("1.context.1.bias", lambda _: torch.zeros(8), "unexpected tensors: 1.context.1.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tensors: dict[str, Tensor], name: str, change: object, message: str
) -> None:
    changed = dict(tensors)
    if callable(change):
        changed[name] = change(tensors.get(name))
    else:
        del changed[name]
    with pytest.raises(WeightsError) as caught:
        FixedPrior(changed, TINY, NARROW)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
