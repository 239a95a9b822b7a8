"""The ``vqcodec`` command: its subcommands, and what becomes of their exceptions.

::

    vqcodec ┬ encode, decode                            vqcodec.cli.commands
            ├ info, verify, compare, thumbnail, models  vqcodec.cli.looking
            ├ train, rd-curve, blind                    vqcodec.cli.tools
            └ inspect, sample, interpolate              vqcodec.cli.study

Results go to stdout, one line per file; everything else goes to stderr. Exit codes: 0 done; 1 failed, with a line
for each file that says why; 2 wrong usage; 130 interrupted. With VQCODEC_DEBUG set, errors show their tracebacks.
"""

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
import traceback
from typing import Any

import click

from vqcodec import __version__
from vqcodec.cli.commands import decode, encode
from vqcodec.cli.looking import compare, info, models, thumbnail, verify
from vqcodec.cli.messages import say
from vqcodec.cli.study import inspect, interpolate, sample
from vqcodec.cli.tools import blind, rd_curve, train
from vqcodec.errors import explain

__all__ = ["SPINS", "main"]

SPINS = "10000"  # rounds of waiting, some ten microseconds


class _Main(click.Group):
    """Turns every exception into one line on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # --help and messages about wrong usage are printed outside of invoke
            _discard_output()
            say("error", f"standard output: cannot be written: {error.strerror}")
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):  # file names may hold what the terminal's encoding lacks
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise  # click handles these, and ends quietly if the reader of our output has gone
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno and not error.filename:
                raise  # standard output is full or broken, see main
            if os.environ.get("VQCODEC_DEBUG"):
                traceback.print_exc()
            say("error", explain(error))
            ctx.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
        finally:
            # After all is written: an interrupt while Python shuts down would print torch's tracebacks, and a last
            # search for garbage among torch's objects takes a quarter of the time that importing it did.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
            atexit.register(gc.freeze)


def _discard_output() -> None:
    """Send what is still to be written to nowhere, for Python would fail again when it ends."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vqcodec", message="%(prog)s %(version)s")
def main() -> None:
    """Turn images into very small .vq files, and back.

    The file name - means standard input or output. An error ends the command with exit code 1 and
    one line on standard error.
    """
    # A thread that waits for the others of its team spins for a moment, and then sleeps: beside busy processes that is
    # many times faster than to go on spinning. GNU's OpenMP reads this when torch is imported, here and in workers.
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


_COMMANDS = (
    encode,
    decode,
    info,
    verify,
    compare,
    thumbnail,
    models,
    train,
    rd_curve,
    blind,
    inspect,
    sample,
    interpolate,
)

for _command in (main, *_COMMANDS):
    _command.short_help = (_command.help or "").partition("\n")[0]  # whole: click would cut it
for _command in _COMMANDS:
    main.add_command(_command)
