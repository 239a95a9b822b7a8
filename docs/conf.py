"""The documents as a site, built by Sphinx: ``make docs``.

The source folder is the repository, not ``docs/``, so that a link between files means the same here and in the
repository.
"""

import shutil
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import vqcodec

project = "vqcodec"
author = "the vqcodec authors"
release = vqcodec.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "benchmarks/README.md",
    "benchmarks/results/kodak/README.md",
    "docs/*.md",
    "examples/README.md",
    "weights/*.md",
    "web/README.md",
]

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # README begins sections where the site's title would be

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
smartquotes = False  # -- begins an option

html_theme = "furo"
html_title = "vqcodec"
html_extra_path = ["site"]
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("hex", TextLexer)
    app.connect("build-finished", _copy_pictures)


def _copy_pictures(app: Sphinx, failure: Exception | None) -> None:
    """Copy what README shows by HTML, which Sphinx does not read, to the same place in the site."""
    if failure is None:
        for name in ("rd.png", "rd-dark.png"):
            place = Path("benchmarks", "results", "kodak", name)
            shutil.copyfile(app.srcdir / place, app.outdir / place)
