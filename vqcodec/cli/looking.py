"""The commands that look at files: ``info``, ``verify``, ``compare``, ``thumbnail`` and ``models``.

::

    info      .vq files ──parse──▶ the contents of their headers
    verify    .vq files ──parse──▶ whether they are whole
    compare   two pictures, images or .vq files ──▶ PSNR, MS-SSIM, SSIMULACRA2, LPIPS, DISTS
    thumbnail a .vq file ──the coarse levels──▶ a small PNG
    models    the installed weights ──▶ names, fingerprints, sizes

``torch`` takes a second to import, so only ``compare``, ``thumbnail`` and ``models`` import it.
"""

import io
import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vqcodec.cli import options
from vqcodec.cli.messages import count, describe, facts, line, say
from vqcodec.errors import VqcodecError, naming, printable
from vqcodec.files.streams import (
    STREAM,
    check_input,
    is_vq,
    output_name,
    read_container,
    read_source,
    shown,
    write_bytes,
)
from vqcodec.metrics import METRICS, available, bpp, measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqcodec.cli.jobs import Models

_MODEL = "{:<28} {:<8} {:>18} {:>18}"  # a line of at most 80 columns, unless the name is longer

__all__ = ["compare", "info", "models", "thumbnail", "verify"]


@click.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=options.NAME)
@options.as_json
@options.max_pixels
@options.verbose
def info(sources: tuple[str, ...], as_json: bool, max_pixels: int | None, verbose: bool) -> None:
    """Show what .vq files, or those in folders, hold, without decoding them.

    Several files get a line each, and one for the total. Exit code 1 if a file is damaged or cannot
    be read; the others are shown all the same.
    """
    if verbose and as_json:
        raise click.UsageError("-v adds to what is printed for people, and cannot be combined with --json")
    files, failed = _files(sources)
    wanted = len(files) + failed
    read = total = pixels = 0
    for source in files:
        try:
            data, container = read_container(source, max_pixels=max_pixels)
        except VqcodecError as error:
            say("error", str(error))
            failed += 1
            continue
        size = len(data)
        read, total, pixels = read + 1, total + size, pixels + container.width * container.height
        worded = line if wanted > 1 and not verbose else describe
        click.echo(json.dumps(facts(source, size, container)) if as_json else worded(source, size, container))
    if wanted > 1 and read and not as_json:
        click.echo(f"{count(read)}, {total:,} bytes, {8 * total / pixels:.3f} bpp")
    if failed:
        if wanted > 1:
            say("error", f"{failed} of {count(wanted)} failed")
        click.get_current_context().exit(1)


@click.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=options.NAME)
@options.max_pixels
@options.as_json
@click.option("--quiet", is_flag=True, help="Print nothing about files that are whole.")
def verify(sources: tuple[str, ...], max_pixels: int | None, as_json: bool, quiet: bool) -> None:
    """Check that .vq files, or those in folders, are whole, without decoding them.

    Every byte is covered by a checksum. Exit code 1 if a file is damaged or cannot be read.
    """
    files, broken = _files(sources)
    wanted = len(files) + broken
    for source in files:
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
        if wanted > 1:
            say("error", f"{broken} of {count(wanted)} {'is' if broken == 1 else 'are'} not whole")
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

    The metrics are PSNR, MS-SSIM, SSIMULACRA2, and LPIPS and DISTS in dB, -10 log10 of the distance.
    ORIGINAL and FILE are images or .vq files, and transparent ones are laid over white. A metric is
    left out if its package is not installed (pip install ".[bench]" in a checkout; for LPIPS and DISTS
    see benchmarks/perceptual.txt), or if the picture is too small for it.
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
@options.as_json
def thumbnail(source: str, target: str, size: int, as_json: bool) -> None:
    """Make a small PNG of a .vq file, as file managers do.

    OUTPUT is overwritten, and may have any extension. Only the levels are decoded that a picture of
    this size needs; a smaller picture keeps its size.
    """
    target = output_name(source, target, ".png", force=True)
    _, container = read_container(source)
    from vqcodec import api

    with naming(shown(source, "input")):
        codec = api.installed(container.fingerprint)
        shrink = max(container.width, container.height) // (2 * size)  # halved once more by a good filter
        image, _ = api.decoded(codec, container, levels=api.levels_for(codec.model, max(1, shrink)))
    image.thumbnail((size, size))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    data = encoded.getvalue()
    write_bytes(target, data)
    if as_json:
        facts = {"output": shown(target, "output"), "width": image.width, "height": image.height, "bytes": len(data)}
        click.echo(json.dumps(facts), err=target == STREAM)


@click.command()
@options.as_json
@click.option("-v", "--verbose", is_flag=True, help="Also print the path of each decoder side.")
def models(as_json: bool, verbose: bool) -> None:
    """List the installed models.

    Each has a name, a fingerprint, and the sizes of its two files. A .vq file names its model by the
    fingerprint. encode uses the default model, or with --tune visual the one of that name.
    """
    from vqcodec.weights import decoder_paths, encoder_path, find_weights, load_weights

    default, failed, heading_shown = find_weights(), False, as_json
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
        if not heading_shown:
            click.echo(_MODEL.format("model", "weights", "decoder", "encoder"))
            heading_shown = True
        name = f"{weights.name}{' (default)' if is_default else ''}"
        encodes = "decodes only" if sizes[1] is None else f"{sizes[1]:,} bytes"
        click.echo(printable(_MODEL.format(name, fingerprint, f"{sizes[0]:,} bytes", encodes)))
        if verbose:
            click.echo(f"  {printable(str(path))}")
    if failed:
        click.get_current_context().exit(1)


def _files(sources: Sequence[str]) -> tuple[list[str], int]:
    """The .vq files that ``sources`` name or hold, and how many subfolders could not be read; says which."""
    from vqcodec.cli.batch import inputs
    from vqcodec.cli.jobs import Decoder, Models

    files, unreadable = inputs(sources, Decoder(Models(None, "auto", None)))
    for problem in unreadable:
        say("error", problem)
    return files, len(unreadable)


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
