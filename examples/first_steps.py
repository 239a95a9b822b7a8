"""Pictures to .vq files and back: PIL images, files, arrays and tensors.

python examples/first_steps.py photo.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import vqcodec


def main(photo: Path) -> None:
    # The name of a file, with everything in it: opacity, EXIF, XMP, colour profile.
    data = vqcodec.compress(photo, quality=50, effort=0)
    print(f"{photo.name}: {photo.stat().st_size:,} bytes, as .vq {len(data):,}")

    # A PIL image comes back.
    image = vqcodec.decompress(data)
    print(f"decoded: {image.mode}, {image.width}×{image.height}")

    # What was opened or made in Python is coded in the same way: a PIL image of any mode, …
    with Image.open(photo) as opened:
        print(f"from a PIL image: {len(vqcodec.compress(opened.resize((96, 64)), effort=0)):,} bytes")

    # … an array [H, W], [H, W, 3] or [H, W, 4], …
    pixels = np.asarray(image.convert("RGB"))[:64, :96]
    print(f"from an array {list(pixels.shape)}: {len(vqcodec.compress(pixels, effort=0)):,} bytes")

    # … or a tensor [C, H, W], uint8 or floats in 0..1.
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
    print(f"from a tensor {list(x.shape)}: {len(vqcodec.compress(x.flip(2), effort=0)):,} bytes")

    # Every error is a VqcodecError with one line.
    try:
        vqcodec.decompress(data[:-1])
    except vqcodec.VqcodecError as error:
        print(f"cut short: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("coffee.png"))
