"""Writes the man pages and the shell completions that the wheel installs.

python share/generate.py              # into this folder; a test checks that they are up to date
"""

from pathlib import Path

from click.shell_completion import get_completion_class
from click_man.core import write_man_pages

from vqcodec import __version__
from vqcodec.cli.main import main as command

FILES = {
    "bash": "bash-completion/completions/vqcodec",
    "zsh": "zsh/site-functions/_vqcodec",
    "fish": "fish/vendor_completions.d/vqcodec.fish",
}

SECTIONS = """\
.SH EXIT STATUS
.TP
0
Done.
.TP
1
Failed, or a file is damaged; a line on standard error says why.
.TP
2
Wrong usage.
.TP
130
Interrupted.
.SH ENVIRONMENT
.TP
VQCODEC_WEIGHTS
Folder of more models than those of the package.
.TP
VQCODEC_DEBUG
If it is set, errors show their tracebacks.
"""


def write(folder: Path, date: str) -> None:
    """Write all files below ``folder``; the man pages state ``date``, such as 2026-11-22."""
    pages = folder / "man" / "man1"
    pages.mkdir(parents=True, exist_ok=True)
    write_man_pages("vqcodec", command, version=__version__, target_dir=str(pages), date=date)
    for page in pages.iterdir():
        title, _, text = page.read_text(encoding="utf-8").partition("\n")
        title = title.replace('"VQCODEC ', '"VQCODEC-', 1)  # where click-man has the words of the command line
        page.write_text(f"{title}\n{text}{SECTIONS if page.name == 'vqcodec.1' else ''}", encoding="utf-8")
    for shell, name in FILES.items():
        completion = get_completion_class(shell)
        assert completion is not None
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(completion(command, {}, "vqcodec", "_VQCODEC_COMPLETE").source(), encoding="utf-8")


def released(changelog: str) -> str:
    """The day of the newest release."""
    heading = next(line for line in changelog.splitlines() if line.startswith(f"## [{__version__}]"))
    return heading.split()[-1]


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    write(here, released((here.parent / "CHANGELOG.md").read_text(encoding="utf-8")))
