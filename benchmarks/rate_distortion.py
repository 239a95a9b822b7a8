"""Rate and distortion of vqcodec and of Pillow's codecs over a folder of images, from real files.

::

    images ─┬─ Codec.compress ──▶ .vq files ──another process──▶ pixels ─┬─▶ bpp, PSNR ─▶ means ─▶ BD-rate
            └─ Pillow's codecs, in memory ──────────────────────▶ pixels ─┘        └─▶ JSON, Markdown, PNG

Rates are those of whole files, PSNR is over RGB jointly on decoded 8-bit pixels, means are of per-image values.
"""

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import options
from benchmarks.anchors import ANCHORS, Anchor
from benchmarks.curves import Point, bd_rate, steps_that_fall
from benchmarks.decoder import Contents, decode_file, fresh_process
from benchmarks.provenance import image_facts, provenance, write_json
from benchmarks.report import markdown, plot
from vqcodec.codec import Codec
from vqcodec.config import LevelConfig
from vqcodec.errors import ImageError, VqcodecError
from vqcodec.images import read_image
from vqcodec.metrics import bpp, psnr
from vqcodec.quantize import Usage
from vqcodec.train.data import image_files
from vqcodec.weights import find_weights

__all__ = ["coding_check", "main", "measure", "usage"]

QUALITIES = "1,10,20,30,40,50,60,70,80,90,100"
LIMIT_RELATIVE, LIMIT_BYTES = 0.005, 16  # what a payload may cost beyond its cross-entropy


def measure(
    paths: Sequence[Path],
    qualities: Sequence[int],
    anchors: Sequence[Anchor],
    codec: Codec,
    other: Executor,
    folder: Path,
) -> dict[str, Any]:
    """The result of ``codec`` and ``anchors`` over images, but for its provenance.

    Args:
        paths: the images.
        qualities: of vqcodec, rising.
        anchors: what to compare with.
        codec: the model, to compress in this process.
        other: the process of :func:`benchmarks.decoder.fresh_process` that decodes, with the same model.
        folder: where the .vq files are written.
    """
    images: list[dict[str, Any]] = []
    contents: list[list[Contents]] = []
    own_rows: list[_Row] = []
    anchor_rows: dict[str, list[_Row]] = {anchor.name: [] for anchor in anchors}
    for index, path in enumerate(tqdm(paths, unit="image", disable=None)):
        pixels, warnings = read_image(path)
        for warning in warnings:
            tqdm.write(f"{path}: {warning}", file=sys.stderr)
        height, width, channels = pixels.shape
        images.append(image_facts(path, width, height))
        files = [folder / f"{index:03d}-{path.stem}-{quality}.vq" for quality in qualities]
        # The other process decodes a file while this one makes the next.
        waiting: list[Future[tuple[NDArray[np.uint8], Contents]]] = []
        for file, quality in zip(files, qualities, strict=True):
            file.write_bytes(codec.compress(pixels, quality))
            waiting.append(other.submit(decode_file, file))
        for anchor in anchors:
            made = [anchor.compress(pixels, quality) for quality in anchor.qualities]
            seen = [anchor.decompress(data, grey=channels == 1) for data in made]
            anchor_rows[anchor.name].append(_row(path, pixels, [len(data) for data in made], seen))
        decoded = [future.result() for future in waiting]
        contents.append([content for _, content in decoded])
        sizes = [file.stat().st_size for file in files]
        own_rows.append(_row(path, pixels, sizes, [seen for seen, _ in decoded]))
    own = _curve("vqcodec", "vqcodec", [{"quality": quality} for quality in qualities], own_rows)
    curves = [_curve(a.name, a.label, [a.settings(q) for q in a.qualities], anchor_rows[a.name]) for a in anchors]
    falls = [(qualities[i], qualities[i + 1]) for i in steps_that_fall(_points(own))]
    every = [content for row in contents for content in row]
    by_quality = list(zip(*contents, strict=True))
    return {
        "images": images,
        "codecs": [{**own, "level_bpp": _level_bpp(images, by_quality)}, *curves],
        "bd_rate": [_bd(curve, own) for curve in curves],
        "usage": usage(codec.model.levels, every),
        "usage_by_quality": [
            {"quality": quality, "levels": usage(codec.model.levels, column)}
            for quality, column in zip(qualities, by_quality, strict=True)
        ],
        "checks": {
            "coding": coding_check([(sum(one.level_bytes), sum(one.cross_entropy)) for one in every]),
            "monotone": {"falls": falls, "passed": not falls},
        },
    }


def coding_check(files: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """What payloads cost beyond theory, given bytes of payload and bits of cross-entropy of each file.

    A payload can also be shorter than theory, because zero bytes at the end of a bitstream are not stored.
    """
    excess = [(payload - bits / 8, bits / 8) for payload, bits in files]
    total = sum(theory for _, theory in excess)
    return {
        "files": len(files),
        "payload_bytes": sum(payload for payload, _ in files),
        "cross_entropy_bytes": total,
        "total_relative_excess": sum(extra for extra, _ in excess) / max(total, 1.0),
        "largest_relative_excess": max(extra / max(theory, 1.0) for extra, theory in excess),
        "largest_excess_bytes": max(extra for extra, _ in excess),
        "smallest_excess_bytes": min(extra for extra, _ in excess),
        "limit_relative": LIMIT_RELATIVE,
        "limit_bytes": LIMIT_BYTES,
        "passed": all(extra <= LIMIT_RELATIVE * theory + LIMIT_BYTES for extra, theory in excess),
    }


def usage(levels: Sequence[LevelConfig], contents: Sequence[Contents]) -> list[dict[str, Any]]:
    """Use of each level's codebooks over all of ``contents``; perplexity and share are one figure a group."""
    rows: list[dict[str, Any]] = []
    for index, level in enumerate(levels):
        counts = np.sum([one.counts[index] for one in contents], axis=0)
        used = Usage.of(torch.from_numpy(counts))
        rows.append(
            {
                "stride": level.stride,
                "groups": level.groups,
                "codebook_size": level.codebook_size,
                "codes": int(counts.sum()),
                "dead": int((counts == 0).sum()),
                "share": used.share.tolist(),
                "perplexity": used.perplexity.tolist(),
            }
        )
    return rows


_Row = dict[str, Any]  # one image's values, one for each setting


def _row(path: Path, pixels: NDArray[np.uint8], sizes: Sequence[int], seen: Sequence[NDArray[np.uint8]]) -> _Row:
    height, width, _ = pixels.shape
    values = [psnr(pixels, pixels_hat) for pixels_hat in seen]
    if math.inf in values:
        raise ImageError(f"{path}: a codec decodes it without any error, and a mean with that PSNR says nothing")
    return {"image": path.name, "bpp": [bpp(size, width, height) for size in sizes], "psnr-rgb": values}


def _curve(name: str, label: str, settings: list[dict[str, Any]], rows: list[_Row]) -> dict[str, Any]:
    means = {
        key: [statistics.fmean(column) for column in zip(*(row[key] for row in rows), strict=True)]
        for key in ("bpp", "psnr-rgb")
    }
    return {"name": name, "label": label, "settings": settings, "results": means, "per_image": rows}


def _points(curve: dict[str, Any]) -> list[Point]:
    return list(zip(curve["results"]["bpp"], curve["results"]["psnr-rgb"], strict=True))


def _bd(anchor: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    bd = bd_rate(_points(anchor), _points(own))
    return {
        "anchor": anchor["name"],
        "label": anchor["label"],
        "percent": bd.percent,
        "common_psnr": bd.common,
        "note": bd.note,
    }


def _level_bpp(images: list[dict[str, Any]], by_quality: Sequence[Sequence[Contents]]) -> list[list[float]]:
    """Mean bpp of each level at each quality."""
    levels = range(len(by_quality[0][0].level_bytes))
    return [
        [
            statistics.fmean(
                bpp(one.level_bytes[level], image["width"], image["height"])
                for one, image in zip(column, images, strict=True)
            )
            for column in by_quality
        ]
        for level in levels
    ]


def _anchors(context: click.Context, parameter: click.Parameter, text: str) -> list[Anchor]:
    names = [] if text == "none" else text.split(",")
    if unknown := [name for name in names if name not in ANCHORS]:
        raise click.BadParameter(f"{unknown[0]!r}, expected some of {','.join(ANCHORS)}, or none")
    return [anchor for name, anchor in ANCHORS.items() if name in names]


def _print_stored(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        try:
            text = markdown(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, LookupError, TypeError):
            raise click.BadParameter(f"{path}: not a result of this script") from None
        click.echo(text)
        context.exit()


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", type=options.FOLDER, metavar="IMAGES_DIR")
@options.output
@click.option("--qualities", callback=options.numbers, default=QUALITIES, show_default=True, help="Of vqcodec.")
@click.option("--anchors", callback=_anchors, default=",".join(ANCHORS), show_default=True, help="Or none.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each of two processes.")
@click.option("--files", type=options.FOLDER, help="Keep the .vq files there.")
@options.weights
@options.device
@click.option(
    "--table",
    type=options.STORED,
    is_eager=True,
    expose_value=False,
    callback=_print_stored,
    help="Print the tables of a stored result instead.",
)
def main(
    images: Path,
    output: Path,
    qualities: list[int],
    anchors: list[Anchor],
    weights: Path | None,
    device: str,
    threads: int,
    files: Path | None,
) -> None:
    torch.set_num_threads(threads)
    try:
        paths = image_files(images)
        weights = weights or find_weights()
        codec = Codec.load(weights, device=device)
        facts = provenance(codec, weights, threads=threads)
        with tempfile.TemporaryDirectory() as temporary, fresh_process(weights, device, threads) as other:
            folder = files or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            result = {
                "description": f"rate and distortion over {images.resolve().name}",
                "provenance": facts,
                **measure(paths, qualities, anchors, codec, other, folder),
            }
        write_json(output, result)
        plot(result, output.with_suffix(".png"))
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo(markdown(result))
    if not all(check["passed"] for check in result["checks"].values()):
        raise click.ClickException("a check failed; see the end of the report")


if __name__ == "__main__":
    main()
