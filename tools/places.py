"""Where things are: the folders of this repository, the addresses of the book, the order of its chapters.

The addresses stand in _config.yml and the order in _toc.yml, and nowhere else. Standard library only, since
the environment of the browser reads this, too.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BUILT = ROOT / "_build" / "html"


def _configured(key: str) -> str:
    found = re.search(rf"^ +{key}: *(\S+)", (ROOT / "_config.yml").read_text(encoding="utf-8"), re.M)
    if not found:
        raise SystemExit(f"_config.yml must have a line {key}: ….")
    return found[1]


def repository() -> str:
    """The address of the repository."""
    return _configured("url")


def branch() -> str:
    """The branch that serves the pages, from which Colab and Binder open notebooks."""
    return _configured("branch")


def site() -> str:
    """The address of the published book, with a slash at its end."""
    return _configured("baseurl")


def contents() -> list[tuple[str | None, str]]:
    """(part, page) for every page of the book, in the order of _toc.yml."""
    part, found = None, []
    text = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for key, value in re.findall(r"^\s*-?\s*(root|caption|file): (.+)$", text, re.M):
        if key == "caption":
            part = value
        else:
            found.append((part, value))
    return found


def chapters() -> list[str]:
    """The names of the chapters in their order: the first of them is chapter 1."""
    return [page.removeprefix("notebooks/") for _, page in contents() if page.startswith("notebooks/")]
