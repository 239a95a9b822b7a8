"""``vqcodec`` and ``python -m vqcodec``: the command, which an interrupt ends quietly from its first import on."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; exit code 130 if it is interrupted while it is imported."""
    try:
        from vqcodec.cli.main import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command(prog_name="vqcodec")


if __name__ == "__main__":
    main()
