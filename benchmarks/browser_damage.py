"""How the decoder for browsers handles damaged and forged ``.vq`` files, compared with the codec.

::

    images ──crop, compress──▶ good files ──CLASSES──▶ a sample of bad ones ──┬── examine ──▶ Outcome ──┐
                                                                             └── Chromium ──▶ View ─────┴──▶ equal?

The browser must refuse, show in part or show what the codec does, with pixels within one grey level.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import numpy as np

from benchmarks import options
from benchmarks.browser import Usage, View, Viewer, installed, launched, usage, viewer
from benchmarks.damage import CLASSES, Good, Kind, examine
from benchmarks.reliability import PIECES, damage_table, small_file
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["COUNTS", "check", "main", "measure"]

COUNTS = (80, 80, 90, 90, 60, 40, 45, 15)  # files of each of CLASSES
SECONDS = 1800  # that a file may take; four megapixels take ten on an idle processor, and minutes on a busy one
KINDS: dict[str, set[Kind]] = {"error": {"refused"}, "damaged": {"salvaged"}, "complete": {"same", "decoded"}}


def check(codec: Codec, data: bytes, good: Good | None, view: View) -> Kind:
    """What became of ``data``. Raises VqcodecError if the browser and the codec disagree, or the browser hangs."""
    outcome = examine(codec, data, good)
    state = "damaged" if view.state == "complete" and view.problem else view.state
    if outcome.kind not in KINDS.get(state, set()):
        raise VqcodecError(f"{outcome.kind} by the codec, {state} in the browser ({view.problem}): {data.hex()}")
    if view.problem is not None and not (view.problem.isprintable() and 0 < len(view.problem) <= 300):
        raise VqcodecError(f"the message is not a printable line of at most 300 characters: {view.problem!r}")
    if outcome.pixels is not None:
        assert view.pixels is not None, "the browser has the state of a picture, but shows none"
        if np.abs(view.pixels[:, :, :3].astype(np.int16) - outcome.pixels).max() > 1:
            raise VqcodecError(f"the browser shows other pixels: {data.hex()}")
    return outcome.kind


def measure(browser: "Browser", codec: Codec, files: Sequence[bytes], index: int, count: int) -> dict[str, Any]:
    """Show a sample of ``count`` damaged copies of ``files``, by one of CLASSES, on a page of their own."""
    own, rng = CLASSES[index], random.Random(index)
    goods = [Good.of(codec, data) for data in files[: own.files]]
    bad = [(good, data) for good in goods for data in own.damage(good.data, count, rng) if data != good.data]
    kinds: Counter[Kind] = Counter()
    slowest = 0.0
    with viewer(browser, seconds=SECONDS) as page:
        before = _usage(browser, page, files[0])
        for good, data in rng.sample(bad, min(count, len(bad))):
            start = time.perf_counter()
            view = page.show(data)
            slowest = max(slowest, time.perf_counter() - start)
            kinds[check(codec, data, None if own.forged else good, view)] += 1
        after = _usage(browser, page, files[0])
    return {
        "class": own.name,
        "inputs": sum(kinds.values()),
        **{kind: kinds[kind] for kind in get_args(Kind)},
        "slowest_seconds": slowest,
        "memory_bytes": max(after[process].memory - before[process].memory for process in before.keys() & after.keys()),
    }


def _usage(browser: "Browser", page: Viewer, good: bytes) -> dict[int, Usage]:
    """The usage of the processes that show pages; an intact file must still be shown."""
    view = page.show(good, pixels=False)
    if view.state != "complete" or view.problem:
        raise VqcodecError(f"an intact file is not shown any more: {view.problem}")
    return usage(browser)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@options.output
def main(images: tuple[Path, ...], output: Path) -> None:
    """Damage a small file made from the centre of each of IMAGES, and show a sample in Chromium; needs ``make web``."""
    try:
        weights = find_weights()
        codec = Codec.load(weights, device="cpu")
        facts = provenance(codec, weights, threads=1)
        path = installed()
        files = [small_file(codec, image, *piece) for image, piece in zip(images, PIECES, strict=False)]
        with launched(path) as browser:
            version = browser.version
            rows: list[dict[str, Any]] = []
            for index, count in enumerate(COUNTS):
                rows.append(measure(browser, codec, files, index, count))
                click.echo(f"{rows[-1]['class']}: {rows[-1]['inputs']} inputs", err=True)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    write_json(output, {"provenance": facts, "browser": version, "damage": rows})
    click.echo(damage_table(rows))


if __name__ == "__main__":
    main()
