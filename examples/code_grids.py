"""The code grids of a picture as arrays: encode, look, change, decode.

python examples/code_grids.py
"""

from pathlib import Path

import numpy as np

from vqcodec import Codec, read_image
from vqcodec.metrics import psnr


def main() -> None:
    codec = Codec.load(device="cpu")  # once; it may be used any number of times, and by several threads
    pixels, _ = read_image(Path(__file__).with_name("chelsea.png"))
    pixels = pixels[60:188, 100:292]
    height, width, _ = pixels.shape

    # Pixels to codes: one int16 array [groups, rows, columns] for each level, coarsest first.
    codes = codec.encode(pixels, quality=60)
    for number, (grid, bits) in enumerate(zip(codes, codec.cross_entropy(codes, 60), strict=True)):
        print(f"level {number}: {list(grid.shape)}, {np.count_nonzero(grid):,} codes are not 0, {bits:,.0f} bits")

    # Codes to pixels: of all levels, or of the coarse ones for a preview.
    for count in range(1, len(codes) + 1):
        x_hat = codec.decode(codes[:count], 60, height, width, grey=False)
        print(f"{count} of {len(codes)} levels: {psnr(pixels, x_hat):.2f} dB")

    # The same codes are in the file, on every machine.
    data = codec.compress(pixels, 60, effort=0)
    file, read = codec.read(data)
    print(f"the file of quality {file.quality} has the same codes: {all(map(np.array_equal, codes, read))}")


if __name__ == "__main__":
    main()
