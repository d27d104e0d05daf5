"""The deck of the lecture, the playground and the chapters' tagged cells: `make slides`.

A cell whose metadata has a `slide: Title` becomes a slide: of a code cell the figure, of a Markdown cell the
statements in it, and where it has none its bold words and displayed formulas. Neighbours with one title share
a slide. All of it is taken from the built pages, so that it looks as it does there, without a network.
"""

from __future__ import annotations

import html
import re
import sys
from typing import NamedTuple

import nbformat
import yaml
from bs4 import BeautifulSoup

from tools import places
from tools.book import chapters, notebooks

TARGET = places.BUILT / "slides" / "index.html"


class Slide(NamedTuple):
    """A title and what stands under it, as HTML."""

    title: str
    parts: list[str]


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title>
<link rel="icon" href="../_static/logo.svg">
<link rel="stylesheet" href="../_static/vendor/reveal/reset.css">
<link rel="stylesheet" href="../_static/vendor/reveal/reveal.css">
<link rel="stylesheet" href="../_static/slides.css">
<script defer src="../_static/vendor/mathjax/tex-mml-chtml.js"></script>

</head>
<body>
<div class="reveal"><div class="slides">
{sections}
</div></div>
<script src="../_static/vendor/reveal/reveal.js"></script>
<script type="module" src="../_static/widgets.js"></script>
<script>Reveal.initialize({{ hash: true, slideNumber: true, transition: "none",
  width: 1120, height: 700, margin: 0.06 }});
  // the playground comes after the first layout
  new ResizeObserver(() => Reveal.layout()).observe(document.querySelector("section.title"));</script>
</body>
</html>
"""


def statements(cell: nbformat.NotebookNode, page: BeautifulSoup, name: str) -> list[str]:
    """What a tagged Markdown cell puts on its slide."""
    labels = re.findall(r"^:label: (\S+)", cell.source, re.M)
    if labels:
        return [str(_found(page, label, name)) for label in labels]
    lead = chapters.spelled(" ".join(re.findall(r"\*\*(.+?)\*\*", cell.source)))
    formulas = "".join(
        f"<div>\\[{html.escape(f)}\\]</div>" for f in re.findall(r"\$\$(.+?)\$\$", cell.source, re.S)
    )
    return [f"<p>{html.escape(lead)}</p>{formulas}"]


def figure(cell: nbformat.NotebookNode, page: BeautifulSoup, name: str) -> list[str]:
    """The figure that a tagged code cell draws."""
    return [str(_found(page, cell.metadata["mystnb"]["figure"]["name"], name))]


def _found(page: BeautifulSoup, label: str, name: str):
    element = page.find(id=label)
    if element is None:
        raise SystemExit(
            f"_build/html/notebooks/{name}.html has nothing of the label {label}: run make book."
        )
    for link in element.select("a.headerlink"):
        link.decompose()
    for link in element.select("a[href]"):  # the pages are one folder up
        address = link["href"]
        if "://" not in address:
            link["href"] = f"../notebooks/{name}.html{address}" if address.startswith("#") else address
    for inner in element.select("section"):  # which would be a slide of its own
        inner.name = "div"
    return element


def deck() -> list[Slide]:
    """The slides in the order of the book."""
    slides: list[Slide] = []
    for source in notebooks.select([]):
        name = source.stem
        page = None
        for cell in nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells:
            title = cell.metadata.get("slide")
            if not title:
                continue
            if page is None:
                built = places.BUILT / "notebooks" / f"{name}.html"
                page = BeautifulSoup(built.read_text(encoding="utf-8"), "html.parser")
            content = (figure if cell.cell_type == "code" else statements)(cell, page, name)
            if slides and slides[-1].title == title:
                slides[-1].parts.extend(content)
            else:
                slides.append(Slide(title, list(content)))
    return slides


def playground() -> str:
    """The playground of the first page, with its state."""
    page = BeautifulSoup((places.BUILT / "book" / "intro.html").read_text(encoding="utf-8"), "html.parser")
    kinds = ("view", "state")
    return "\n".join(
        str(page.find("script", type=f"application/vnd.jupyter.widget-{kind}+json")) for kind in kinds
    )


def takeaways() -> Slide:
    """The headings of the closing page."""
    text = (places.ROOT / "book" / "closing.md").read_text(encoding="utf-8")
    headings = [h for h in re.findall(r"^## (.+)$", text, re.M) if h not in ("What is open", "How to go on")]
    return Slide("Key takeaways", [f"<p>{html.escape(heading)}</p>" for heading in headings])


def main() -> int:
    """Writes the deck beside the pages."""
    if not (places.BUILT / "index.html").exists():
        raise SystemExit("There is no book in _build/html: run make book first.")
    configuration = yaml.safe_load((places.ROOT / "_config.yml").read_text())
    title = configuration["title"]
    slides = [*deck(), takeaways()]
    sections = [
        f'<section class="title"><h1>{title} <small><a href="{places.site()}">the book</a></small></h1>'
        f"{playground()}</section>"
    ]
    for slide in slides:
        parts = "\n".join(slide.parts)
        sections.append(f"<section><h2>{html.escape(slide.title)}</h2>\n{parts}</section>")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(
        PAGE.format(title=title, sections="\n".join(sections)),
        encoding="utf-8",
    )
    print(f"{TARGET.relative_to(places.ROOT)}: {len(sections)} slides")
    return 0


if __name__ == "__main__":
    sys.exit(main())
