"""Write the repository's tables from its stored results.

::

    results/kodak/rd.json ─┬─▶ results/kodak/README.md, all of it
                           └─▶ README.md, the line between the marks
    results/flat.json ───────▶ docs/drawings.md, the table between the marks
    results/looks-*.json ────▶ docs/looks.md, the tables between the marks

Run from the repository's root:

    python -m benchmarks.tables
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks import flat, looks
from vqcodec.files.atomic import write_atomic
from vqcodec.jsonfile import JsonObject
from vqcodec.rd.result import Result, read_result
from vqcodec.rd.tables import headline, markdown

__all__ = [
    "BEGIN",
    "DRAWINGS",
    "END",
    "FLAT",
    "KODAK",
    "LOOKS",
    "flat_block",
    "headline_block",
    "kodak_page",
    "looks_block",
    "marked",
]

KODAK = Path("benchmarks", "results", "kodak")
FLAT, DRAWINGS = Path("benchmarks", "results", "flat.json"), Path("docs", "drawings.md")
LOOKS = Path("benchmarks", "results")
BEGIN, END = "<!-- generated: python -m benchmarks.tables -->", "<!-- end of what is generated -->"
ANCHORS = ("jpeg", "webp", "avif")  # the anchors of the headline


def kodak_page(result: Result) -> str:
    """The text of ``results/kodak/README.md``."""
    provenance = result.provenance
    return f"""# vqcodec on Kodak

{BEGIN}

{headline(result, ANCHORS)}

<picture>
  <source media="(prefers-color-scheme: dark)" srcset="rd-dark.png">
  <img alt="PSNR, MS-SSIM and SSIMULACRA2 against bits per pixel" src="rd.png">
</picture>

{markdown(result)}

Measured on {provenance.date} with vqcodec {provenance.versions["vqcodec"]}, Pillow {provenance.versions["pillow"]} and
torch {provenance.versions["torch"]}. All figures are in `rd.json`, those of each file in `per_image.csv`.
[benchmarks/README.md](../../README.md) says how they were measured.

{END}
"""


def headline_block(result: Result) -> str:
    """The generated block of README.md, including its marks."""
    return f"{BEGIN}\n{headline(result, ANCHORS)}\n{END}"


def flat_block(result: JsonObject) -> str:
    """The generated block of ``docs/drawings.md``, including its marks."""
    return "\n".join([BEGIN, *flat.table(result["means"]), END])


def looks_block(results: Sequence[JsonObject]) -> str:
    """The generated block of ``docs/looks.md``, including its marks."""
    parts = [BEGIN]
    for result in results:
        count = result["pictures"]
        title = f"{', '.join(result['images'])}: {'one picture' if count == 1 else f'means of {count} pictures'}"
        parts += [f"**{title}**", "", *looks.table(result["means"]), ""]
    return "\n".join([*parts, END])


def marked(text: str) -> str:
    """The generated block of ``text`` with its marks. Raises ValueError unless there is exactly one."""
    if (text.count(BEGIN), text.count(END)) != (1, 1) or text.index(END) < text.index(BEGIN):
        raise ValueError(f"expected one block from {BEGIN} to {END}")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def _replace(path: Path, block: str) -> None:
    """Put ``block`` in the place of the generated one in a document."""
    text = path.read_text(encoding="utf-8")
    write_atomic(path, text.replace(marked(text), block).encode())


@click.command(help=__doc__)
def main() -> None:
    result = read_result(KODAK / "rd.json")
    write_atomic(KODAK / "README.md", kodak_page(result).encode())
    _replace(Path("README.md"), headline_block(result))
    _replace(DRAWINGS, flat_block(json.loads(FLAT.read_text(encoding="utf-8"))))
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(LOOKS.glob("looks-*.json"))]
    _replace(Path("docs", "looks.md"), looks_block(stored))
    click.echo(headline(result, ANCHORS))


if __name__ == "__main__":
    main()
