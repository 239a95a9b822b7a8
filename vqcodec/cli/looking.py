"""The commands that look at files: ``info``, ``verify``, ``compare``, ``thumbnail`` and ``models``.

::

    info      .vq files ──parse──▶ the contents of their headers
    verify    .vq files ──parse──▶ whether they are whole
    compare   two pictures, images or .vq files ──▶ PSNR, MS-SSIM, SSIMULACRA2
    thumbnail a .vq file ──the coarse levels──▶ a small PNG
    models    the installed weights ──▶ names, fingerprints, sizes

``torch`` takes a second to import, so only ``compare``, ``thumbnail`` and ``models`` import it.
"""

import io
import json
import math
import os
from typing import TYPE_CHECKING

import click

from vqcodec.cli import options
from vqcodec.cli.messages import count, describe, facts, say
from vqcodec.errors import VqcodecError, naming, printable
from vqcodec.files.streams import check_input, is_vq, read_container, read_source, shown, write_bytes
from vqcodec.metrics import METRICS, available, bpp, measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqcodec.cli.jobs import Models

__all__ = ["compare", "info", "models", "thumbnail", "verify"]


@click.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=options.NAME)
@options.as_json
@options.max_pixels
def info(sources: tuple[str, ...], as_json: bool, max_pixels: int | None) -> None:
    """Show what .vq files hold, without decoding them.

    Exit code 1 if a file is damaged or cannot be read; the others are shown all the same.
    """
    failed = 0
    for source in sources:
        try:
            data, container = read_container(source, max_pixels=max_pixels)
        except VqcodecError as error:
            say("error", str(error))
            failed += 1
            continue
        size = len(data)
        click.echo(json.dumps(facts(source, size, container)) if as_json else describe(source, size, container))
    if failed:
        if len(sources) > 1:
            say("error", f"{failed} of {count(len(sources))} failed")
        click.get_current_context().exit(1)


@click.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=options.NAME)
@options.max_pixels
@options.as_json
@click.option("--quiet", is_flag=True, help="Print nothing about files that are whole.")
def verify(sources: tuple[str, ...], max_pixels: int | None, as_json: bool, quiet: bool) -> None:
    """Check that .vq files are whole, without decoding them.

    Every byte is covered by a checksum. Exit code 1 if a file is damaged or cannot be read.
    """
    broken = 0
    for source in sources:
        name, problem = shown(source, "input"), None
        try:
            file = read_container(source, intact=1, max_pixels=max_pixels)[1]
            if file.damage:
                whole = f"{len(file.levels)} of {file.level_count} levels intact (decode --salvage shows them)"
                problem = f"{name}: {file.damage}; {whole}"
        except VqcodecError as error:
            problem = str(error)
        if problem:
            say("error", problem)
            broken += 1
        if as_json:
            click.echo(json.dumps({"file": source, "whole": problem is None, "error": problem}))
        elif problem is None and not quiet:
            click.echo(f"{printable(name)}: whole")
    if broken:
        if len(sources) > 1:
            say("error", f"{broken} of {count(len(sources))} {'is' if broken == 1 else 'are'} not whole")
        click.get_current_context().exit(1)


@click.command()
@click.argument("original", metavar="ORIGINAL", type=options.NAME)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=options.NAME)
@options.device
@options.weights
@options.max_pixels
@options.as_json
def compare(
    original: str, files: tuple[str, ...], device: str, weights: str | None, max_pixels: int | None, as_json: bool
) -> None:
    """Measure how far pictures are from ORIGINAL.

    The metrics are PSNR, MS-SSIM and SSIMULACRA2. ORIGINAL and FILE are images or .vq files, and
    transparent ones are laid over white. A metric is left out if its package is not installed (pip
    install vqcodec[bench]), or if the picture is too small for it.
    """
    from vqcodec.cli.jobs import Models

    loaded = Models(weights, device, None)
    x, _ = _pixels(original, loaded, max_pixels)
    for file in files:
        x_hat, size = _pixels(file, loaded, max_pixels)
        if x.shape[:2] != x_hat.shape[:2]:
            found, expected = (f"{pixels.shape[1]}×{pixels.shape[0]}" for pixels in (x_hat, x))
            raise VqcodecError(f"{file}: {found} pixels, expected the {expected} of {original}")
        values = measure(*_alike(x, x_hat), [metric for metric in METRICS if available(metric.name)])
        measured = {key: value for key, value in values.items() if value is not None}
        rate = None if size is None else bpp(size, x.shape[1], x.shape[0])
        if as_json:
            click.echo(
                json.dumps({"original": original, "file": file, "bytes": size, "bpp": rate, **_finite(measured)})
            )
            continue
        parts = [] if rate is None else [f"{size:,} bytes", f"{rate:.3f} bpp"]
        click.echo(printable(f"{file}: {', '.join([*parts, *_worded(measured)])}"))


@click.command()
@click.argument("source", metavar="INPUT", type=options.NAME)
@click.argument("target", metavar="OUTPUT", type=options.NAME)
@click.option(
    "-s",
    "--size",
    type=click.IntRange(1, 4096),
    default=256,
    show_default=True,
    metavar="PIXELS",
    help="The longer side at most.",
)
def thumbnail(source: str, target: str, size: int) -> None:
    """Make a small PNG of a .vq file, as file managers do.

    OUTPUT is overwritten, and may have any extension. Only the levels are decoded that a picture of
    this size needs; a smaller picture keeps its size.
    """
    _, container = read_container(source)
    from vqcodec import api

    with naming(shown(source, "input")):
        codec = api.installed(container.fingerprint)
        shrink = max(container.width, container.height) // (2 * size)  # halved once more by a good filter
        image, _ = api.decoded(codec, container, levels=api.levels_for(codec.model, max(1, shrink)))
    image.thumbnail((size, size))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    write_bytes(target, encoded.getvalue())


@click.command()
@options.as_json
def models(as_json: bool) -> None:
    """List the installed models.

    Each has a name, a fingerprint, and the sizes of its two files. A .vq file names its model by the
    fingerprint. encode uses the default model.
    """
    from vqcodec.weights import decoder_paths, encoder_path, find_weights, load_weights

    default, failed = find_weights(), False
    for path in decoder_paths():
        try:
            weights, encoder = load_weights(path), encoder_path(path)
            sizes = path.stat().st_size, check_input(str(encoder)) if os.path.lexists(encoder) else None
        except VqcodecError as error:
            say("error", str(error))
            failed = True
            continue
        fingerprint, is_default = weights.fingerprint.hex(), path == default
        if as_json:
            names = ("name", "fingerprint", "default", "decoder_bytes", "encoder_bytes", "path")
            values = (weights.name, fingerprint, is_default, *sizes, str(path))
            click.echo(json.dumps(dict(zip(names, values, strict=True))))
            continue
        encodes = "decodes only" if sizes[1] is None else f"encoder {sizes[1]:,} bytes"
        line = (
            f"{weights.name}{' (default)' if is_default else ''}: {fingerprint}, decoder {sizes[0]:,} bytes, {encodes}"
        )
        click.echo(printable(f"{line}, {path}"))
    if failed:
        click.get_current_context().exit(1)


def _pixels(name: str, models: "Models", max_pixels: int | None) -> "tuple[NDArray[np.uint8], int | None]":
    """The opaque pixels of an image or a .vq file, and the bytes of the latter."""
    if not is_vq(name):
        return read_source(name, strip=["all"], max_pixels=max_pixels)[0].pixels, None
    from vqcodec.files.extras import Picture, from_container
    from vqcodec.files.pictures import opaque

    data, container = read_container(name, max_pixels=max_pixels)
    extras, _ = from_container(container)
    pixels = models.to_decode(container.fingerprint).decompress(container)
    return opaque(Picture(pixels, extras)), len(data)


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """``values`` for JSON, which has no infinity: null for the PSNR of equal pictures."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _worded(values: dict[str, float]) -> list[str]:
    """``values`` in words, such as ``PSNR-RGB 35.27 dB``."""
    shown = [(metric, values[metric.key]) for metric in METRICS if metric.key in values]
    return [f"{metric.label} {value:.2f}{f' {metric.unit}' if metric.unit else ''}" for metric, value in shown]


def _alike(x: "NDArray[np.uint8]", x_hat: "NDArray[np.uint8]") -> "tuple[NDArray[np.uint8], NDArray[np.uint8]]":
    """Both in colour unless both are grey."""
    channels = max(x.shape[2], x_hat.shape[2])
    return x.repeat(channels // x.shape[2], axis=2), x_hat.repeat(channels // x_hat.shape[2], axis=2)
