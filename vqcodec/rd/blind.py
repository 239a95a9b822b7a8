"""A page on which volunteers say which of two pictures is nearer to the original, without knowing what made them.

::

    images ──coders of equal bytes──▶ crops ──▶ Trials ──render──▶ one HTML file: pictures, answers, shares of wins

The page needs nothing else and works from ``file://``. It draws the order and the sides anew each time it is opened.
Pictures are stored without loss, in texts of one length and in an order that says nothing; what they are is in a text
that people cannot read, and which the page reads after the last answer. That prevents a glance, not an attack.
"""

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from vqcodec.files.images import encode_image
from vqcodec.metrics import bpp
from vqcodec.rd.equal import OVER, Coder

__all__ = ["CROP", "Shown", "Trial", "render", "trials"]

CROP = 384
"""The side of what is shown of a picture, in pixels."""

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A crop ``[h, w, 3]``, what made it, and the bits per pixel of the file of the whole picture."""

    codec: str
    bpp: float
    crop: _Pixels


@dataclass(frozen=True)
class Trial:
    """One question: which of two pictures is nearer to the original?

    Attributes:
        image: the name of the picture.
        rate: that both were asked for, in bits per pixel.
        original: its crop ``[h, w, 3]``.
        pair: what is compared.
    """

    image: str
    rate: float
    original: _Pixels
    pair: tuple[Shown, Shown]


def trials(name: str, pixels: _Pixels, coders: Sequence[Coder], rates: Sequence[float]) -> Iterator[Trial]:
    """Every pair of ``coders`` on the middle of the picture ``pixels [H, W, 3]`` at each rate.

    A codec whose file is larger than asked for by more than :data:`vqcodec.rd.equal.OVER`, or that has none, is left
    out at that rate.
    """
    height, width = pixels.shape[:2]
    for rate in rates:
        shown: list[Shown] = []
        for coder in coders:
            data = coder.compress(pixels, rate)
            size = None if data is None else bpp(len(data), width, height)
            if data is not None and size is not None and size <= OVER * rate:
                shown.append(Shown(coder.label, size, _middle(coder.decompress(data))))
        for pair in itertools.combinations(shown, 2):
            yield Trial(name, rate, _middle(pixels), pair)


def render(questions: Sequence[Trial]) -> str:
    """The page's text; ``questions`` are at least one."""
    truths = [_text(one.original) for one in questions]
    # Which of a pair is first must not say which codec it is: what counts is the digest of the picture.
    pairs = [sorted(((_text(one.crop), one) for one in question.pair), key=_digest) for question in questions]
    texts = sorted({*truths, *(text for pair in pairs for text, _ in pair)}, key=lambda text: _digest((text, None)))
    number = {text: i for i, text in enumerate(texts)}
    longest = max(map(len, texts))
    key = [
        {
            "image": question.image,
            "bpp": question.rate,
            "codecs": [one.codec for _, one in pair],
            "bpps": [one.bpp for _, one in pair],
        }
        for question, pair in zip(questions, pairs, strict=True)
    ]
    secret = base64.b64encode(json.dumps(key).encode()).decode()
    content = {
        "study": hashlib.sha256(secret.encode()).hexdigest()[:12],
        "trials": [[number[a], *(number[text] for text, _ in pair)] for a, pair in zip(truths, pairs, strict=True)],
        "key": secret,
        "pictures": [text.ljust(longest) for text in texts],  # the size of a file says how smooth its picture is
    }
    parts = {
        "style": f"<style>\n{_asset('page.css')}{_asset('blind.css')}</style>\n",
        "data": _element("data", content),
        "script": f'<script>\n"use strict";\n\n{_asset("blind.js")}</script>\n',
    }
    page = _asset("blind.html")
    for mark, part in parts.items():
        before, _, after = page.partition(f"<!-- {mark} -->\n")
        page = before + part + after
    return page


def _middle(pixels: _Pixels) -> _Pixels:
    top, left = (max(0, (length - CROP) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP])


def _text(crop: _Pixels) -> str:
    return base64.b64encode(encode_image(crop, ".webp")).decode()


def _digest(pair: tuple[str, object]) -> bytes:
    return hashlib.sha256(pair[0].encode()).digest()


def _asset(name: str) -> str:
    return resources.files("vqcodec.rd").joinpath("assets", name).read_text(encoding="utf-8")


def _element(name: str, content: object) -> str:
    # Base64, numbers and a digest: nothing in it can end the element.
    return f'<script id="{name}" type="application/json">{json.dumps(content, separators=(",", ":"))}</script>\n'
