"""The network of the decoder for browsers against onnxruntime-web: bytes, and time for one picture.

::

    IMAGE ── encode ──▶ codes ──┬── web/ (WebAssembly written by hand) ──▶ ms  ┐ in turn, in one process of Node
    VQVAE ── torch.onnx ──▶ graph ── onnxruntime-web (one thread, SIMD) ─▶ ms  ┘ with one thread

``make web`` builds the program for Node; ``npm install onnxruntime-web`` and ``pip install onnxscript`` give the rest.
"""

import gzip
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks import options
from benchmarks.browser import DIST
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.networks.vqvae import VQVAE
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["main", "markdown"]

BUILD = DIST.parent / "build"
PARTS: dict[str, list[str | Path]] = {  # what a page loads, without weights
    "vqcodec": [DIST / "vq-img.js"],  # it contains the kernels
    "onnxruntime": ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"],
}


class _Decoder(nn.Module):
    """The decoder of a VQVAE as a graph for :func:`torch.onnx.export`."""

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae

    def forward(self, lmbda: Tensor, *codes: Tensor) -> Tensor:
        return self.vqvae.decode(list(codes), lmbda)


def _export(codec: Codec, codes: Sequence[Tensor], lmbda: Tensor, path: Path) -> None:
    names = ["lmbda", *(f"codes_{level}" for level in range(len(codes)))]
    torch.onnx.export(
        _Decoder(codec.vqvae).eval(),
        (lmbda, *codes),
        path,
        input_names=names,
        output_names=["x_hat"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def measure(codec: Codec, weights: Path, image: Path, runtime: Path, quality: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of processor time of both, and the largest difference from torch in grey levels."""
    node = shutil.which("node")
    if node is None or not (BUILD / "onnx.mjs").exists():
        raise VqcodecError("this needs node and `make web`")
    pixels, _ = read_image(image)
    codes = [torch.from_numpy(grid)[None].long() for grid in codec.encode(pixels, quality)]
    rows, columns = codes[0].shape[2:]
    lmbda = codec.model.lmbda(quality)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for level, grid in enumerate(codes):
            (folder / str(level)).write_bytes(grid.numpy().astype("<i8").tobytes())
        x_hat = codec.vqvae.decode(codes, torch.tensor([lmbda]))
        (folder / "x_hat").write_bytes(x_hat.numpy().astype("<f4").tobytes())
        _export(codec, codes, torch.tensor([lmbda]), folder / "graph.onnx")
        numbers = (rows, columns, quality, lmbda, repeats)
        command = [node, *map(str, (BUILD / "onnx.mjs", runtime, folder / "graph.onnx", weights, folder, *numbers))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise VqcodecError(f"node failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    height, width = x_hat.shape[2:]
    return {"image": image.name, "width": width, "height": height, "quality": quality, "repeats": repeats, **found}


def markdown(result: dict[str, Any]) -> str:
    """A table with one row for each."""
    lines = ["| network | kB, gzip | ms of processor time |", "|---|---:|---:|"]
    for name, size in result["gzip_bytes"].items():
        lines.append(f"| {name} | {size / 1000:.0f} | {statistics.median(result['milliseconds'][name]):.0f} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("image", type=options.STORED)
@click.option("--runtime", type=options.FOLDER, required=True, help="The folder dist/ of onnxruntime-web.")
@click.option("--quality", type=click.IntRange(1, 100), default=60, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=9, show_default=True, help="Timed runs of each.")
@options.output
def main(image: Path, runtime: Path, quality: int, repeats: int, output: Path) -> None:
    torch.set_num_threads(1)
    try:
        weights = find_weights()
        codec = Codec.load(weights, device="cpu")
        facts = provenance(codec, weights, threads=1)
        result = measure(codec, weights, image, runtime.resolve(), quality, repeats)
        sizes = {
            name: sum(len(gzip.compress((runtime / part).read_bytes(), 9)) for part in parts)
            for name, parts in PARTS.items()
        }
        version = json.loads((runtime.parent / "package.json").read_text(encoding="utf-8"))["version"]
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except (VqcodecError, OSError) as error:
        raise click.ClickException(str(error)) from None
    result |= {"gzip_bytes": sizes, "onnxruntime-web": version, "node": node, "provenance": facts}
    write_json(output, result)
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
