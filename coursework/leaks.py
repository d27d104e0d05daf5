"""What must not be published: solutions, model answers and hidden tests."""

from __future__ import annotations

import functools
import html
import re
from pathlib import Path

from coursework import source

_LEAST = 25  # letters: shorter lines occur anywhere
_READ = {".html", ".js", ".json", ".ipynb", ".md", ".txt", ".py", ".xml", ".csv", ".inv"}
_REGION = re.compile(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)(.*?)### END", re.DOTALL)


@functools.cache
def secrets() -> dict[str, frozenset[str]]:
    """For each cell with a secret, the lines that students do not get anywhere."""
    inside, shown = {}, ""
    for name in source.names():
        for cell in source.read(name).cells:
            if cell.cell_type == "markdown" and source.is_answer(cell):
                hidden = cell.source
            else:
                hidden = "\n".join(_REGION.findall(cell.source))
                shown += _REGION.sub("", cell.source) + "\n"
            inside[f"{name}, {cell.metadata.nbgrader.grade_id}"] = _lines(hidden)
    secret = {cell: frozenset(line for line in lines if line not in shown) for cell, lines in inside.items()}
    return {cell: lines for cell, lines in secret.items() if lines}


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= _LEAST}


def found_in(text: str, share: float = 0) -> list[str]:
    """The cells of which a text holds more than a share of the secret lines."""
    return [
        cell for cell, lines in secrets().items() if sum(line in text for line in lines) > share * len(lines)
    ]


def published(folder: Path) -> list[str]:
    """The files in a folder, such as the built site, that give a secret away, and which.

    A single line of a solution may stand in a chapter, too; half of one may not.
    """
    problems = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _READ:
            text = path.read_text(encoding="utf-8", errors="replace")
            # as it is, as JSON holds it, and as a page that colours code does
            forms = [text, text.replace('\\"', '"').replace("\\\\", "\\")]
            if path.suffix == ".html":
                forms.append(html.unescape(re.sub(r"<[^>]+>", "", text)))
            for cell in sorted({cell for form in forms for cell in found_in(form, share=0.5)}):
                problems.append(f"{path.relative_to(folder)} gives away what is in {cell}")
    return problems
