"""``python -m vqcodec`` is the same as ``vqcodec``."""

from vqcodec.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="vqcodec")
