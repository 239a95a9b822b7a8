"""Pictures that no camera took, drawn at random: text, plots, user interfaces, flat shapes and gradients.

::

    seed ──▶ text │ plot │ interface │ shapes │ gradient ──▶ uint8 [3, size, size]

A share of the training crops comes from them (:class:`vqcodec.train.data.Photographs`), so that hard edges and plain
surfaces are no surprise to the model. Text is set in the fonts that matplotlib carries, and says what the source of
Python's own library says.
"""

import colorsys
import importlib.util
import io
import random
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqcodec.errors import MissingPackageError

__all__ = ["KINDS", "can_draw", "draw"]

Colour = tuple[int, int, int]


def can_draw() -> bool:
    """Whether matplotlib is installed, which drawings need."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(seed: int, size: int = 512) -> Tensor:
    """One drawing, uint8 ``[3, size, size]``, the same for the same seed, size and versions of the libraries.

    Raises MissingPackageError without matplotlib.
    """
    if not can_draw():
        raise MissingPackageError('drawings need the package matplotlib: pip install ".[bench]" in a checkout')
    rng = random.Random(seed)
    picture = rng.choice(KINDS)(rng, size)
    assert picture.size == (size, size)
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def _colour(rng: random.Random, light: tuple[float, float] = (0, 1)) -> Colour:
    """A colour of any hue and of a lightness in the range; one in three is grey, black or white."""
    lightness, saturation = rng.uniform(*light), rng.random() ** 0.5
    if rng.random() < 1 / 3:
        lightness, saturation = rng.choice((light[0], light[1], lightness)), 0.0
    red, green, blue = colorsys.hls_to_rgb(rng.random(), lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _contrast(rng: random.Random) -> tuple[Colour, Colour]:
    """A paper and an ink that can be told from it."""
    pair = [_colour(rng, (0.75, 1)), _colour(rng, (0, 0.4))]
    if rng.random() < 0.3:
        pair.reverse()
    return pair[0], pair[1]


def _unit(colour: Colour) -> tuple[float, float, float]:
    """The colour as matplotlib takes it, 0..1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _font(rng: random.Random, height: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    fonts = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    return ImageFont.truetype(rng.choice(fonts), height)


def _words(rng: random.Random) -> str:
    """Some lines of a module of Python's library."""
    sources = sorted(Path(random.__file__).parent.glob("*.py"))
    lines = rng.choice(sources).read_text(encoding="utf-8", errors="ignore").splitlines()
    start = rng.randrange(max(1, len(lines) - 60))
    return "\n".join(line for line in lines[start : start + 60] if line.strip())


def _text(rng: random.Random, size: int) -> Image.Image:
    paper, ink = _contrast(rng)
    image = Image.new("RGB", (size, size), paper)
    canvas, y = ImageDraw.Draw(image), rng.randrange(-10, 10)
    while y < size:
        font = _font(rng, rng.choice((9, 11, 12, 14, 16, 20, 28, 48)))
        line_ink = ink if rng.random() < 0.8 else _contrast(rng)[1]
        text = _words(rng).replace("    ", " ") if rng.random() < 0.5 else " ".join(_words(rng).split())
        lines = text.splitlines() if "\n" in text else [text[i : i + 90] for i in range(0, 900, 90)]
        for line in lines[: rng.randrange(1, 12)]:
            canvas.text((rng.choice((4, 12)), y), line, fill=line_ink, font=font)
            y += round(1.25 * font.size)
        y += rng.randrange(12)
    return image


def _plot(rng: random.Random, size: int) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numbers = np.random.default_rng(rng.getrandbits(32))
    dots = rng.choice((64, 80, 100, 128))
    figure = Figure(figsize=(size / dots, size / dots), dpi=dots, facecolor=_unit(_contrast(rng)[0]))
    for index in range(rows := rng.choice((1, 1, 2))):
        axes, x = figure.add_subplot(rows, 1, index + 1), np.arange(rng.randrange(5, 60))
        for _ in range(rng.randrange(1, 5)):
            y = numbers.normal(size=len(x)).cumsum()
            colour = _unit(_colour(rng, (0.1, 0.7)))
            kind = rng.choice(("plot", "bar", "scatter", "fill", "step"))
            if kind == "fill":
                axes.fill_between(x, y, color=colour, alpha=rng.choice((0.4, 1.0)))
            else:
                getattr(axes, kind)(x, y, color=colour, label=" ".join(_words(rng).split()[:2]).replace("$", ""))
        axes.grid(rng.random() < 0.5)
        axes.set_title(" ".join(_words(rng).split()[:4]).replace("$", ""))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # signs that the font lacks
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    return Image.open(file).convert("RGB").resize((size, size))


def _interface(rng: random.Random, size: int) -> Image.Image:
    """Windows with bars, buttons, fields and rows of text."""
    image = Image.new("RGB", (size, size), _colour(rng))
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.randrange(1, 4)):
        left, top = rng.randrange(-40, size // 2), rng.randrange(-40, size // 2)
        right, bottom = left + rng.randrange(size // 3, size), top + rng.randrange(size // 3, size)
        paper, ink = _contrast(rng)
        canvas.rectangle((left, top, right, bottom), fill=paper, outline=ink)
        canvas.rectangle((left, top, right, top + 22), fill=_colour(rng, (0.2, 0.6)))
        small = _font(rng, rng.choice((11, 12, 13)))
        canvas.text((left + 6, top + 4), " ".join(_words(rng).split()[:3]), fill=(255, 255, 255), font=small)
        for y in range(top + 30, bottom - 20, rng.choice((18, 24, 32))):
            kind, x = rng.random(), left + 10
            if kind < 0.3:
                radius = rng.choice((0, 4, 9))
                box = (x, y, x + rng.randrange(40, 140), y + 16)
                canvas.rounded_rectangle(box, radius, fill=_colour(rng), outline=ink)
            elif kind < 0.9:
                canvas.text((x, y), " ".join(_words(rng).split()[:10]), fill=ink, font=small)
    return image


def _shapes(rng: random.Random, size: int) -> Image.Image:
    """Flat polygons, ellipses and lines with smooth edges, as in a logo."""
    fine = 2 * size
    image = Image.new("RGB", (fine, fine), _colour(rng))
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.randrange(3, 40)):
        x, y, reach = rng.randrange(fine), rng.randrange(fine), rng.choice((fine // 20, fine // 6, fine // 2))
        corners = [
            (x + rng.randrange(-reach, reach), y + rng.randrange(-reach, reach)) for _ in range(rng.choice((3, 4, 6)))
        ]
        kind, colour, width = rng.random(), _colour(rng), rng.randrange(1, 12)
        if kind < 0.35:
            canvas.polygon(corners, fill=colour)
        elif kind < 0.6:
            canvas.ellipse(
                (x, y, x + reach, y + rng.randrange(1, reach + 1)), fill=colour, outline=_colour(rng), width=width
            )
        elif kind < 0.8:
            canvas.line(corners, fill=colour, width=width)
        else:
            canvas.rectangle((x, y, x + reach, y + rng.randint(1, reach)), fill=colour)
    return image.resize((size, size), Image.Resampling.LANCZOS if rng.random() < 0.7 else Image.Resampling.NEAREST)


def _gradient(rng: random.Random, size: int) -> Image.Image:
    """One colour, or a smooth change between three, straight or round, here and there with a flat shape on it."""
    colours = np.array([_colour(rng) for _ in range(3)], float)
    if rng.random() < 0.3:
        colours[:] = colours[0]
    y, x = np.mgrid[:size, :size] / size
    angle, bend = rng.uniform(0, 2 * np.pi), rng.choice((0.0, 1.0))
    t = (1 - bend) * (x * np.cos(angle) + y * np.sin(angle)) + bend * np.hypot(x - rng.random(), y - rng.random())
    t = (t - t.min()) / np.ptp(t)
    channels = [np.interp(t, (0, rng.uniform(0.3, 0.7), 1), colours[:, c]) for c in range(3)]
    image = Image.fromarray(np.stack(channels, 2).round().astype(np.uint8))
    if rng.random() < 0.5:
        canvas = ImageDraw.Draw(image)
        for _ in range(rng.randrange(1, 5)):
            a, b = rng.randrange(size), rng.randrange(size)
            canvas.rectangle((a, b, a + rng.randrange(8, size), b + rng.randrange(8, size)), fill=_colour(rng))
    return image


KINDS = (_text, _plot, _interface, _shapes, _gradient)
"""What is drawn; each is as likely as the others."""
