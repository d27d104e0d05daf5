"""Brings what names the repository or the published site in step with _config.yml: `make address`.

The two addresses are set in _config.yml (repository → url, html → baseurl). A fork changes them there, runs
this, and commits. `make test` fails while a file disagrees.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

from tools import places
from tools.book import notebooks, setup_cell

FILES = ["README.md", "CITATION.cff", "pyproject.toml", "book/intro.md", "book/instructors.md"]


def recorded(citation: str) -> tuple[str, str]:
    """The repository and the site that CITATION.cff names."""
    values = [re.search(rf"^{key}: *(\S+)$", citation, re.M) for key in ("repository-code", "url")]
    if not all(values):
        raise SystemExit("CITATION.cff must have a line repository-code: … and a line url: ….")
    return values[0][1], values[1][1]


def rewritten(text: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """The text with the old repository and site replaced by the new ones."""
    for before, after in zip(old, new, strict=True):
        text = text.replace(before, after)
    return text


def disagreements() -> list[Path]:
    """The files that name another repository or site than _config.yml."""
    root, new = places.ROOT, (places.repository(), places.site())
    old = recorded((root / "CITATION.cff").read_text())
    text = {root / name: (root / name).read_text() for name in FILES}
    wrong = [path for path in text if rewritten(text[path], old, new) != text[path]]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found = [cell.source for cell in cells if setup_cell.TAG in cell.metadata.get("tags", [])]
        if found != [setup_cell.text()]:
            wrong.append(path)
    return wrong


def main() -> int:
    """Rewrites them; nothing is run."""
    new = places.repository(), places.site()
    if not new[1].endswith("/"):
        raise SystemExit(f"_config.yml: html → baseurl must end in a slash, got {new[1]}")
    wrong = disagreements()
    old = recorded((places.ROOT / "CITATION.cff").read_text())
    for path in wrong:
        if path.parent.name == "notebooks":
            stored = nbformat.read(path, as_version=4)
            for cell in stored.cells:
                if setup_cell.TAG in cell.metadata.get("tags", []):
                    cell.source = setup_cell.text()
            notebooks.name_cells(stored)
            nbformat.write(stored, path)
        else:
            path.write_text(rewritten(path.read_text(), old, new))
        print(f"{path.relative_to(places.ROOT)}: now names {new[0]} and {new[1]}")
    if not wrong:
        print(f"Every file names {new[0]} and {new[1]}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
