"""vqcodec in CompressAI's tables: its JSON of results, and a codec that its ``bench`` can call.

::

    report ──write_curves──▶ REPORT/compressai/vqcodec.json, jpeg.json, … ──▶ python -m compressai.utils.plot -f
    python -m vqcodec.rd.compressai PHOTOS/ -q 20,50,80 ──Vqcodec, by compressai.utils.bench──▶ JSON
    JSON of CompressAI ──vqcodec.rd.overlay──▶ a curve beside ours

CompressAI itself is imported by :func:`main` alone. Its files have a name, a description and lists of results: ``bpp``,
``psnr-rgb`` in dB, ``ms-ssim-rgb`` 0..1, ``encoding_time`` and ``decoding_time`` in seconds. Ours have further metrics,
which its tools leave alone.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqcodec import __version__, metrics
from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_EFFORT, EFFORT_MAX
from vqcodec.errors import ImageError, MissingPackageError, VqcodecError, explain, naming, one_line
from vqcodec.jsonfile import write_json
from vqcodec.metrics import bpp
from vqcodec.rd.result import Curve

__all__ = ["FOLDER", "Vqcodec", "main", "write_curves"]

FOLDER = "compressai"
"""The folder of a report that holds its curves, one a file."""

_METRICS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]] = {
    "psnr-rgb": metrics.psnr,
    "ms-ssim-rgb": metrics.ms_ssim,
}


def write_curves(folder: Path, curves: Iterable[Curve]) -> None:
    """Write each of ``curves`` to ``folder``, named by its own name, in place of what other JSON files it held."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for curve in curves:
        content = {"name": curve.label, "description": curve.description, "results": dict(curve.results)}
        write_json(folder / f"{curve.name}.json", content)


class Vqcodec:
    """vqcodec as ``compressai.utils.bench`` calls a codec; the class's name is that of its subcommand.

    It can be pickled: each process loads the model when it first needs it.

    Args:
        args: what the options of :meth:`setup_args` were set to.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.effort, self._weights, self._device = args.effort, args.weights, args.device

    @classmethod
    def setup_args(cls, parser: argparse.ArgumentParser) -> None:
        """Add vqcodec's options to those that all codecs of the bench have."""
        parser.add_argument(
            "--effort", type=int, choices=range(EFFORT_MAX + 1), default=DEFAULT_EFFORT, help="of the search, 0..9"
        )
        parser.add_argument("--weights", help="a model's .decoder.safetensors file (default: the shipped model)")
        parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    @property
    def name(self) -> str:
        """Its name in tables."""
        return "vqcodec"

    @property
    def description(self) -> str:
        """Version, model and effort."""
        codec = _load(self._weights, self._device)
        return f"vqcodec {__version__}, model {codec.name} {codec.fingerprint.hex()}, effort {self.effort}"

    def run(
        self,
        in_filepath: str | os.PathLike[str],
        quality: int,
        metrics: Sequence[str] | None = None,
        return_rec: bool = False,
    ) -> dict[str, float] | tuple[dict[str, float], Image.Image]:
        """Code an image file as RGB: ``bpp``, ``encoding_time`` and ``decoding_time`` in seconds, and ``metrics``.

        ``metrics`` are some of ``psnr-rgb`` (the only one by default) and ``ms-ssim-rgb``. With ``return_rec``, returns
        the decoded picture, too. Raises VqcodecError for a file that cannot be read or coded, ValueError for another
        metric or quality.
        """
        wanted = ["psnr-rgb"] if metrics is None else metrics
        if unknown := set(wanted) - _METRICS.keys():
            raise ValueError(f"metric {min(unknown)!r}, expected some of {', '.join(_METRICS)}")
        codec = _load(self._weights, self._device)
        x = _rgb(in_filepath)
        with naming(os.fspath(in_filepath)):
            codec.load_encoder()
            start = time.perf_counter()
            data = codec.compress(x, quality, effort=self.effort)
            encoded = time.perf_counter()
            x_hat = codec.decompress(data)
            decoded = time.perf_counter()
        found = {
            "bpp": bpp(len(data), x.shape[1], x.shape[0]),
            "encoding_time": encoded - start,
            "decoding_time": decoded - encoded,
        }
        found |= {name: _METRICS[name](x, x_hat) for name in wanted}
        return (found, Image.fromarray(x_hat)) if return_rec else found


def _rgb(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Pixels ``[H, W, 3]`` as the bench's other codecs read them: no profile, no orientation."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{os.fspath(path)}: cannot be read as an image: {one_line(error)}") from error


@functools.cache
def _load(weights: str | None, device: str) -> Codec:
    return Codec.load(weights, device=device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run CompressAI's bench with vqcodec; ``arguments`` are those after its name, by default the command line's.

    Returns the exit code: 1 if something failed, with one line on standard error.
    """
    try:
        bench = _bench()
        if Vqcodec not in bench.codecs:
            bench.codecs.append(Vqcodec)
        bench.main(["vqcodec", *(sys.argv[1:] if arguments is None else arguments)])
    except (VqcodecError, OSError, ValueError) as error:
        print(f"vqcodec: error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


def _bench() -> Any:
    """CompressAI's module; raises MissingPackageError if it cannot be imported."""
    try:
        from compressai.utils.bench import __main__ as bench
    except (ImportError, RuntimeError) as error:  # RuntimeError of a torchvision that was built for another torch
        raise MissingPackageError(
            f"CompressAI cannot be imported: {one_line(error)}: pip install compressai"
        ) from error
    return bench


if __name__ == "__main__":
    sys.exit(main())
