"""``vqcodec inspect``: every level of codes of a picture, and what they cost, say and do.

::

    images ──Coded.of──▶ figures ─────────────────────────────────────▶ inspect.json, tables
       └─ the first one ─┬─ decoded from levels 0..n                     ┐
                         ├─ heat maps of its bits                        ├─▶ PNG files, index.html
                         └─ of each level's dearest groups: codes,       │
                            contribution, codebook, symbols              ┘

Legend: G groups, K codewords of a level, coarsest level first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_QUALITY
from vqcodec.errors import ReportError, printable
from vqcodec.exact.wavefront import Codes
from vqcodec.files.atomic import write_atomic
from vqcodec.files.images import read_image, write_image
from vqcodec.geometry import Geometry
from vqcodec.jsonfile import JsonObject, write_json
from vqcodec.metrics import bpp, psnr
from vqcodec.study.measure import (
    Coded,
    LevelFigures,
    bit_map,
    code_picture,
    codebooks,
    figures,
    neutral,
    without_group,
)
from vqcodec.study.page import Block, Figure, Gallery, Note, Plot, Plots, Section, Table, render
from vqcodec.study.paint import (
    Floats,
    Pixels,
    amplified,
    codeword_colours,
    enlarge,
    heat,
    heat_top,
    principal_plane,
    ramp,
    rgb,
    sheet,
    visible_gain,
)
from vqcodec.study.symbols import symbol_sheet

__all__ = ["Inspection", "inspect", "rate_table", "write_report"]

GROUPS = 8  # of each level that are shown, those that cost most bits
MIDDLE = 512  # pixels a side of the part of the picture on which contributions are shown


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found.

    Attributes:
        quality: 1..100.
        pictures: at least one; the first is shown.
        levels: figures over all pictures.
    """

    quality: int
    pictures: Sequence[Coded]
    levels: Sequence[LevelFigures]

    @property
    def pixels(self) -> int:
        """Pixels of all pictures together."""
        return sum(one.pixels.shape[0] * one.pixels.shape[1] for one in self.pictures)

    @property
    def real(self) -> float:
        """Bits a pixel of all files together."""
        return 8 * sum(one.size for one in self.pictures) / self.pixels

    def to_json(self) -> JsonObject:
        """As ``inspect.json`` holds it; rates are bits a pixel of all pictures together."""
        levels = [{**vars(level), "counts": level.counts.tolist()} for level in self.levels]
        files = [{"name": one.name, "bytes": one.size, "level_bytes": list(one.level_bytes)} for one in self.pictures]
        return {"quality": self.quality, "bpp": self.real, "files": files, "levels": levels}


def inspect(codec: Codec, sources: Sequence[Path], quality: int = DEFAULT_QUALITY) -> Inspection:
    """Code the images ``sources`` at ``quality`` and measure their codes; takes about 20 bytes of memory a pixel.

    Raises ImageError and LimitError as :func:`read_image` and :meth:`Codec.compress` do.
    """
    pictures = [Coded.of(codec, _shown(source), read_image(source)[0], quality) for source in sources]
    return Inspection(quality, pictures, figures(codec, pictures))


def write_report(codec: Codec, found: Inspection, folder: Path, *, force: bool = False) -> None:
    """Write ``index.html``, ``inspect.json`` and PNG files to ``folder``, which is made if need be.

    Raises ReportError if the folder holds anything and ``force`` is not given, or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise ReportError(f"{folder}: holds files, expected a new or empty folder (-f overwrites)")
    except OSError as error:
        raise ReportError(f"{folder}: cannot be used for the report: {error.strerror}") from None
    writer = _Report(codec, found, folder)
    sections = [writer.rates(), writer.progress(), writer.heat_maps(), *writer.levels(), writer.glossary()]
    first = found.pictures[0]
    height, width, _ = first.pixels.shape
    facts = [
        ("images", f"{len(found.pictures)}"),
        ("shown", f"{first.name}, {width}×{height}, {first.size:,} bytes"),
        ("quality", f"{found.quality}"),
        ("weights", f"{codec.name} {codec.fingerprint.hex()}"),
    ]
    write_json(folder / "inspect.json", found.to_json())
    page = render("vqcodec inspect", f"What is in the codes of {first.name}", facts, sections)
    write_atomic(folder / "index.html", page.encode())


def rate_table(found: Inspection) -> list[list[str]]:
    """The rate of each level three ways, in bits a pixel, and what the prior saves against static frequencies."""
    rows = [_rates(f"level {i}", one.uniform, one.static, one.prior) for i, one in enumerate(found.levels)]
    totals = (sum(getattr(level, name) for level in found.levels) for name in ("uniform", "static", "prior"))
    return [*rows, _rates("all levels", *totals)]


class _Report:
    """Makes the sections of the page and, as it does, the PNG files."""

    def __init__(self, codec: Codec, found: Inspection, folder: Path) -> None:
        self.codec, self.found, self.folder = codec, found, folder
        self.shown = found.pictures[0]
        height, width, _ = self.shown.pixels.shape
        self.geometry = Geometry(height, width, codec.model.strides)
        self.codebooks, self.neutral = codebooks(codec.vqvae), neutral(codec.vqvae)

    def rates(self) -> Section:
        found, heads = self.found, ["bits a pixel", "uniform", "static", "PixelCNN", "prior’s worth"]
        prior = sum(level.prior for level in found.levels)
        text = (
            "The same codes under three models of them. Uniform: log₂ K bits for each code. Static: each codeword at "
            "the frequency that it has in these images, whose table is not counted. PixelCNN: the model’s prior, which "
            "sees the codes before and the coarser levels. Each is an upper bound on the information in the codes. "
            "The gap between static and PixelCNN is what the prior is worth: it makes the bound tighter. "
            f"The real files take {found.real:.4f} bits a pixel: {prior:.4f} by the prior, the rest are headers, "
            "checksums and the range coder’s rounding."
        )
        return Section("Rate, three ways", [Note(text), Table("Rates", heads, rate_table(found))])

    def progress(self) -> Section:
        shown, height, width = self.shown, self.geometry.height, self.geometry.width
        pictures = [Figure(f"original, {8 * shown.pixels.shape[2]} bits a pixel", rgb(shown.pixels))]
        for count in range(1, len(shown.codes) + 1):
            grey = shown.pixels.shape[2] == 1
            x_hat = self.codec.decode(shown.codes[:count], self.found.quality, height, width, grey=grey)
            self._save(f"decoded-levels-{count}.png", x_hat)
            named = "level 0 alone" if count == 1 else f"levels 0 to {count - 1}"
            rate = bpp(sum(shown.level_bytes[:count]), width, height)
            pictures.append(Figure(f"{named}: {rate:.3f} bits a pixel, {psnr(shown.pixels, x_hat):.2f} dB", rgb(x_hat)))
        text = "Each level codes only what the coarser ones left over. A missing level is replaced by its prediction."
        return Section("From coarse to fine", [Note(text), Gallery(pictures, 420)])

    def heat_maps(self) -> Section:
        maps = [
            bit_map(bits, self.geometry, stride)
            for bits, stride in zip(self.shown.bits, self.geometry.strides, strict=True)
        ]
        pictures = [self._heat("all levels", "bits.png", np.sum(maps, axis=0))]
        pictures += [self._heat(f"level {i}", f"level-{i}-bits.png", one) for i, one in enumerate(maps)]
        text = (
            "−log₂ p of every code under the PixelCNN, spread evenly over the pixels of its position. The maps sum to "
            "the length of the file, but for its headers. Bright is what the prior did not expect."
        )
        return Section("Where the bits go", [Note(text), Gallery(pictures, 420)])

    def levels(self) -> Iterator[Section]:
        for index, level in enumerate(self.found.levels):
            order = sorted(range(len(level.group_rate)), key=lambda group: -level.group_rate[group])
            groups = [group for group in order if level.perplexity[group] > 1][:GROUPS]
            blocks: list[Block] = [Note(_summary(level, len(groups))), self._group_table(index, order)]
            if groups:
                blocks += self._group_pictures(index, groups)
            kind = " (of pixels)" if self.codec.model.levels[index].pixels else ""
            yield Section(f"Level {index}{kind}: a code every {level.stride} pixels", blocks)

    def glossary(self) -> Section:
        lines = [
            ("Perplexity", "2 to the entropy of how often each codeword occurs: how many codewords are in real use."),
            ("Dead codes", "Codewords that occur nowhere in these images. More images bring some of them to life."),
            ("Live channels", "Channels whose codewords spread by more than a quarter of a quantiser step."),
        ]
        return Section("Words", [Note(text, title) for title, text in lines])

    def _heat(self, name: str, file: str, bits: Floats) -> Figure:
        top = heat_top(bits, self.geometry.strides[0])
        picture = heat(bits, top)
        key = np.full((36, picture.shape[1], 3), 255, np.uint8)
        width = min(picture.shape[1], 300)
        key[6:, :width] = ramp(width, top, "bits a pixel") if width >= 120 else key[6:, :width]
        picture = np.concatenate([picture, key])
        self._save(file, picture)
        return Figure(f"{name}: {bits.sum() / 8:,.0f} bytes, {bits.mean():.3f} bits a pixel", picture)

    def _group_table(self, index: int, order: Sequence[int]) -> Table:
        level, channels = self.found.levels[index], self.codec.model.levels[index].dim
        rows = [
            [
                f"group {group}",
                f"{level.group_rate[group]:.4f}",
                f"{100 * level.group_rate[group] / max(level.prior, 1e-12):.1f} %",
                f"{level.perplexity[group]:.2f}",
                f"{level.live[group]} of {channels}",
                f"{level.dead[group]} of {level.codebook_size}",
            ]
            for group in order
        ]
        heads = ["", "bits a pixel", "of the level", "perplexity", "live channels", "dead codes"]
        return Table(f"All {len(rows)} groups of level {index}", heads, rows, folded=True)

    def _group_pictures(self, index: int, groups: Sequence[int]) -> list[Block]:
        level, stride = self.found.levels[index], self.geometry.strides[index]
        colours = {group: codeword_colours(self.codebooks[index][group]) for group in groups}
        grids = [
            code_picture(self.shown.codes[index][group], colours[group], self.geometry, stride) for group in groups
        ]
        names = [f"group {group}, perplexity {level.perplexity[group]:.1f}" for group in groups]
        factor = max(1, 192 // grids[0].shape[1])
        self._save(f"level-{index}-codes.png", sheet([enlarge(grid, factor) for grid in grids], names, columns=4))
        plots = [self._plot(index, group, colours[group]) for group in groups]
        contributions = self._contributions(index, groups)
        self._save(f"level-{index}-groups.png", sheet([one.picture for one in contributions], names, columns=4))
        symbols: list[Figure] = []
        for group in groups:
            picture, gain = symbol_sheet(
                self.codec, self.found.pictures, index, group, level.counts[group], self.found.quality
            )
            self._save(f"level-{index}-group-{group}-symbols.png", picture)
            symbols.append(Figure(f"group {group}: “alone” drawn {gain:g} ×", picture))
        return [
            Note(
                "A colour for each codeword: its direction is the hue, its length the strength; zero is dark.", "Codes"
            ),
            Gallery([Figure(name, grid, coarse=True) for name, grid in zip(names, grids, strict=True)], 210),
            Note(
                "The codewords in the plane in which they are longest (PCA through zero), in the colours of the "
                "pictures above. The larger the disc, the more often the codeword occurs; point at one for its number.",
                "Codebooks",
            ),
            Plots(plots),
            Note(
                "The decoded picture minus the one in which the group says nothing: its codes are replaced by the "
                "codeword nearest to zero. Grey is no difference. Of large pictures the middle is shown.",
                "What each group adds",
            ),
            Gallery(contributions, 250),
            Note(
                "A row for each of the codes that occur most. From the left: its colour; what the decoder makes of it "
                "alone in an empty picture; how the places where it occurs differ from the others in the mean, drawn "
                "stronger too; some of these places. A patch is three positions a side, with the code in the middle.",
                "What does this symbol mean?",
            ),
            Gallery(symbols, 400),
        ]

    def _plot(self, index: int, group: int, colours: Pixels) -> Plot:
        codebook, counts = self.codebooks[index][group], self.found.levels[index].counts[group]
        shares = counts / max(int(counts.sum()), 1)
        names = [f"code {code}: {100 * share:.2f} %" for code, share in enumerate(shares)]
        return Plot(f"group {group}", principal_plane(codebook), colours, shares.tolist(), names)

    def _contributions(self, index: int, groups: Sequence[int]) -> list[Figure]:
        codes, (height, width) = _middle(self.shown.codes, self.geometry)
        quality, upright = self.found.quality, self.geometry.upright
        whole = self.codec.decode(codes, quality, height, width, grey=False)
        found: list[Figure] = []
        for group in groups:
            silent = without_group(codes, index, group, int(self.neutral[index][group]))
            without = self.codec.decode(silent, quality, height, width, grey=False)
            difference = whole.astype(float) - without
            gain = visible_gain(difference)
            picture = amplified(difference.swapaxes(0, 1) if upright else difference, gain)
            strength = float(np.sqrt(np.square(difference).mean()))
            found.append(Figure(f"group {group}: {strength:.2f} grey levels (RMS), drawn {gain:g} ×", picture))
        return found

    def _save(self, name: str, picture: Pixels) -> None:
        write_image(self.folder / name, picture)


def _shown(source: Path) -> str:
    """The file's name, with escapes for what is no text."""
    return printable(source.name.encode("utf-8", "backslashreplace").decode())


def _rates(name: str, uniform: float, static: float, prior: float) -> list[str]:
    saved = f"−{100 * (1 - prior / static):.1f} %".replace("−-", "+") if static > 0 else "–"
    return [name, f"{uniform:.4f}", f"{static:.4f}", f"{prior:.4f}", saved]


def _summary(level: LevelFigures, shown: int) -> str:
    groups = len(level.perplexity)
    constant = sum(perplexity <= 1 for perplexity in level.perplexity)
    channels = sum(level.live)
    return (
        f"{groups} groups, each with a codebook of {level.codebook_size}; {level.prior:.4f} bits a pixel in all. "
        f"{channels} channels are live, and {constant} groups send the same code everywhere. The table has the dearest "
        f"groups first. Below it are the first {shown}."
    )


def _middle(codes: Sequence[Codes], geometry: Geometry) -> tuple[list[Codes], tuple[int, int]]:
    """The codes of the middle of a picture as it is laid out, and that part's height and width in pixels."""
    coarsest = geometry.strides[0]
    spans: list[tuple[int, int]] = []
    for side in geometry.padded:
        kept = min(side, MIDDLE // coarsest * coarsest)
        first = (side - kept) // 2 // coarsest * coarsest
        spans.append((first, first + kept))
    parts: list[Codes] = []
    for grid, stride in zip(codes, geometry.strides, strict=True):
        rows, columns = (slice(first // stride, last // stride) for first, last in spans)
        parts.append(np.ascontiguousarray(grid[:, rows, columns]))
    return parts, (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0])
