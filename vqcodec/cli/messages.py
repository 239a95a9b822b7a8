"""What the commands print: results on stdout, warnings and errors on stderr.

::

    FileResult ──report──▶ out.vq: 768×512, quality 75, 24,100 bytes, 0.490 bpp, 0.52 s
    FileResults ─summary──▶ 24 files, 578,400 bytes, 0.490 bpp, 12.1 s, 0.78 Mpixel/s
    Container ────info──▶ photo.vq: 768×512, RGB, quality 75, … and a line for each part
    anything ──────say──▶ vqcodec: error: photo.vq: level 1 is damaged
"""

import json
import os
from collections.abc import Sequence

import click

from vqcodec.cli.jobs import Coder, Encoder, FileResult, parts_of
from vqcodec.errors import printable
from vqcodec.files.container import ALPHA_TAG, Container
from vqcodec.files.streams import STREAM, shown
from vqcodec.metrics import bpp

__all__ = [
    "count",
    "describe",
    "facts",
    "line",
    "record",
    "record_skipped",
    "report",
    "say",
    "summary",
    "warn_of_damage",
]


def say(kind: str, message: str) -> None:
    """Print one line on stderr; ``kind`` is ``"error"`` or ``"warning"``."""
    click.echo(f"vqcodec: {kind}: {printable(message.strip())}", err=True)


def count(files: int) -> str:
    """A number of files, in words."""
    return f"{files:,} file" if files == 1 else f"{files:,} files"


def report(coder: Coder, result: FileResult, *, verbose: bool) -> None:
    """Print the warnings and the result line of a file; on stderr if the file itself goes to stdout.

    If ``verbose``, a table of the parts of the .vq file follows.
    """
    for warning in result.warnings:
        say("warning", f"{shown(result.source, 'input')}: {warning}")
    parts = [f"{result.width}×{result.height}", f"quality {result.quality}"]
    if isinstance(coder, Encoder):
        parts += [f"{result.size:,} bytes", f"{result.bpp:.3f} bpp"]
    parts.append(f"{result.seconds:.2f} s")
    if result.psnr is not None:
        parts.append(f"{result.psnr:.2f} dB")
    if result.ssimulacra2 is not None:
        parts.append(f"SSIMULACRA2 {result.ssimulacra2:.2f}")
    if result.preview:
        parts.append(result.preview)
    line = f"{shown(result.target, 'output')}: {', '.join(parts)}"
    table = _table(result.size, result.fingerprint, result.parts) if verbose else []
    click.echo("\n".join([printable(line), *table]), err=_is_standard_output(result.target))


def record(coder: Coder, result: FileResult) -> None:
    """Print the result of a file as a JSON object; on stderr if the file itself goes to stdout."""
    facts: dict[str, object] = {
        "input": result.source,
        "output": result.target,
        "width": result.width,
        "height": result.height,
        "quality": result.quality,
        "bytes": result.size,
        "bpp": result.bpp,
        "seconds": round(result.seconds, 4),
        "warnings": [*result.warnings],
    }
    if isinstance(coder, Encoder):
        facts |= {"psnr": result.psnr, "ssimulacra2": result.ssimulacra2, "suited": result.suited}
    else:
        facts |= {"preview": result.preview, "damage": result.damage}
    click.echo(json.dumps(facts), err=_is_standard_output(result.target))


def record_skipped(source: str, target: str) -> None:
    """Print as a JSON object that the output of a file was there already."""
    click.echo(json.dumps({"input": source, "output": target, "skipped": True}))


def warn_of_damage(result: FileResult) -> None:
    """Print why a picture is made of only some of its levels."""
    say("warning", f"{shown(result.source, 'input')}: {result.damage}")


def summary(done: Sequence[FileResult]) -> str:
    """Totals over at least one file, and the mean PSNR; the time is from the first file to the last.

    The rate is all bits over all pixels.
    """
    seconds = max(result.end for result in done) - min(result.start for result in done)
    pixels = sum(result.width * result.height for result in done)
    parts = [
        count(len(done)),
        f"{sum(result.size for result in done):,} bytes",
        f"{8 * sum(result.size for result in done) / pixels:.3f} bpp",
        f"{seconds:.1f} s",
        f"{pixels / seconds / 1e6:.2f} Mpixel/s",
    ]
    decibels = [result.psnr for result in done if result.psnr is not None]
    if decibels:
        parts.append(f"{sum(decibels) / len(decibels):.2f} dB")
    return ", ".join(parts)


def facts(source: str, size: int, container: Container) -> dict[str, object]:
    """What ``info --json`` prints of a file of ``size`` bytes, in that order."""
    return {
        "file": source,
        "width": container.width,
        "height": container.height,
        "colours": _colours(container),
        "alpha": _has_alpha(container),
        "quality": container.quality,
        "fingerprint": container.fingerprint.hex(),
        "bytes": size,
        "bpp": bpp(size, container.width, container.height),
        "levels": [len(level) for level in container.levels],
        "chunks": [{"tag": tag.decode("ascii"), "bytes": len(payload)} for tag, payload in container.chunks],
    }


def describe(source: str, size: int, container: Container) -> str:
    """What ``info`` prints of a file of ``size`` bytes: a line on the picture, and one for each part of the file."""
    table = _table(size, container.fingerprint.hex(), parts_of(container))
    return "\n".join([_head(source, size, container), *table])


def line(source: str, size: int, container: Container) -> str:
    """What ``info`` prints of each of several files: the picture and the weights."""
    return f"{_head(source, size, container)}, weights {container.fingerprint.hex()}"


def _head(source: str, size: int, container: Container) -> str:
    return (
        f"{printable(shown(source, 'input'))}: {container.width}×{container.height}, {_colours(container)}"
        f"{' with transparency' if _has_alpha(container) else ''}, "
        f"quality {container.quality}, {size:,} bytes, {bpp(size, container.width, container.height):.3f} bpp"
    )


def _table(size: int, fingerprint: str, parts: Sequence[tuple[str, int]]) -> list[str]:
    """A line for the weights and for each part of a file of ``size`` bytes; what is in no part is framing."""
    rows = [*parts, ("framing", size - sum(length for _, length in parts))]
    return [
        f"  {'weights':<12} {fingerprint:>12}",
        *(f"  {name:<12} {length:>12,} bytes {100 * length / size:5.1f} %" for name, length in rows),
    ]


def _has_alpha(container: Container) -> bool:
    return any(tag == ALPHA_TAG for tag, _ in container.chunks)


def _colours(container: Container) -> str:
    return "grey" if container.grey else "RGB"


def _is_standard_output(target: str) -> bool:
    """Whether ``target`` is standard output, under any name; a result line on stdout would get into the file."""
    try:
        return target == STREAM or os.path.samestat(os.stat(target), os.fstat(1))
    except OSError:
        return False
