"""Pillow with .vq files: open, look at the header, make a thumbnail, save with metadata.

python examples/with_pillow.py FOLDER
"""

import sys
from pathlib import Path

from PIL import ExifTags, Image

import vqcodec.pillow_plugin  # noqa: F401, Pillow knows .vq files from here on


def main(folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Rachel Michetti"
    with Image.open(Path(__file__).with_name("coffee.png")) as image:
        image.save(folder / "coffee.vq", quality=40, effort=0, exif=exif)

    # Opening reads the header and the metadata. The pixels are decoded when they are needed.
    with Image.open(folder / "coffee.vq") as image:
        print(f"{image.format}: {image.mode}, {image.width}×{image.height}, by {image.getexif()[ExifTags.Base.Artist]}")

        # A thumbnail needs the coarse levels only.
        image.thumbnail((128, 128))
        image.save(folder / "thumbnail.png")
        print(f"thumbnail: {image.width}×{image.height}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
