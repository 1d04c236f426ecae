"""Where the files that ship with Palimpsest are: `data/` (embedded generators, example rules) and `pages/`.

An installed distribution keeps them in its own folder, `palimpsest/`, beside the packages; a source checkout,
right beside the packages. Either way they are ordinary files on disk, read in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rewrite_core.errors import FileError

__all__ = ["resource_dir"]


def resource_dir(name: Literal["data", "pages"]) -> Path:
    """The folder `name` of the installed distribution, else of the source checkout.

    Raises:
        FileError: when the installation is incomplete.
    """
    beside = Path(__file__).resolve().parents[1]
    installed, checkout = beside / "palimpsest" / name, beside / name
    if installed.is_dir():
        return installed
    if checkout.is_dir() and (beside / "pyproject.toml").is_file():  # site-packages may hold another's `data`
        return checkout
    raise FileError(
        found=f"no folder {installed}",
        expected=f"the {name} files that are installed with Palimpsest",
        remedy="Install Palimpsest again.",
    )
