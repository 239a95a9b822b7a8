"""Modules without values, which are filled with tensors of a weights file."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["blank"]

_Module = TypeVar("_Module", bound=nn.Module)


class _ShapesOnly(TorchFunctionMode):
    """Skips the functions that give tensors their first values: on the device "meta", tensors have none.

    To run such a function there, torch would import its compiler, which takes longer than torch itself.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.randn, torch.eye):
            return torch.empty(args, device="meta")
        if func in (Tensor.normal_, Tensor.uniform_, Tensor.mul, Tensor.div):
            return args[0]
        return func(*args, **(kwargs or {}))


def blank(build: Callable[[], _Module]) -> _Module:
    """The module that ``build`` returns, for inference, with shapes and no values: it is on the device "meta".

    Takes no memory, and no draw from torch's random numbers. ``load_state_dict(…, assign=True)`` fills it.
    """
    with _ShapesOnly(), torch.device("meta"):
        return build().eval().requires_grad_(False)
