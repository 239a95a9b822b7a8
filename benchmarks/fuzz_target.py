"""The program that :mod:`benchmarks.fuzz` runs: libFuzzer's loop, which records the code that inputs reach.

::

    python -m benchmarks.fuzz_target MAX_PIXELS SECONDS WEIGHTS [libFuzzer's options] CORPUS...

vqcodec must be imported inside atheris's import hook, which adds the counters.
"""

import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import atheris
import torch

with atheris.instrument_imports(include=["vqcodec", "benchmarks.damage"], enable_loader_override=False):
    from benchmarks.damage import examine, reseal
    from vqcodec.codec import Codec
    from vqcodec.errors import FormatError, LimitError
    from vqcodec.files.container import pack, parse


def _main(max_pixels: int, seconds: float, weights: Path, arguments: list[str]) -> None:
    codec = Codec.load(weights, device="cpu")

    def one(data: bytes) -> None:
        start = time.process_time()  # does not count the time of other programs
        examine(codec, data, max_pixels=max_pixels)
        assert time.process_time() - start < seconds, "the input took too long"

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        """Mutate any bytes, mutate and correct the checksums, or mutate the bitstream of one level in a valid file."""
        rng = random.Random(seed)
        way = rng.randrange(4)
        if way > 1:
            try:
                contents = parse(data, max_pixels=max_pixels)
            except (FormatError, LimitError):
                way = 1
            else:
                levels = list(contents.levels)
                index = rng.randrange(len(levels))
                levels[index] = bytes(atheris.Mutate(levels[index], largest // len(levels)))
                return pack(replace(contents, levels=tuple(levels)))[:largest]
        mutated = bytes(atheris.Mutate(data, largest))
        return mutated if way == 0 else reseal(mutated)

    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    torch.set_num_threads(1)
    _main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
