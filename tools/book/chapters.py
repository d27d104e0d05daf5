r"""A Sphinx extension for what pages say about the chapters: their numbers, the map, a table, how to cite.

A chapter's number is its place in _toc.yml. {chapter}`ising` becomes "chapter 10" and leads there,
{Chapter}`groups and ising` "Chapters 2 and 10", {chapter}`groups to ising` "chapters 2 to 10".
`chapter-map` draws which chapter needs which, from the line "You need: …" that opens each of them;
`chapter-table` lists run time and memory, as `make execute` measured them, and the last change, from git.
"""

from __future__ import annotations

import html
import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes

from tools import places
from tools.book import notebooks


class Chapter(NamedTuple):
    """What a chapter's source says of itself."""

    name: str  # of the file, without its ending
    number: int
    title: str
    needs: tuple[str, ...]  # names of other chapters


def read() -> dict[str, Chapter]:
    """All chapters by name, in the order of the book."""
    found, order = {}, places.chapters()
    for number, name in enumerate(order, start=1):
        path = places.NOTEBOOKS / f"{name}.md"
        text = path.read_text(encoding="utf-8")
        opening = re.search(r"\*You need: (.*?)Afterwards you can:", text, re.S)
        if not opening:
            raise ValueError(f"{path.name} must open with a paragraph *You need: … Afterwards you can: ….*")
        named = re.findall(r"\{doc\}`(?:[^`<]*<)?(\w+)>?`", opening[1])
        needs = tuple(other for other in named if other in order)
        found[name] = Chapter(name, number, re.search(r"^# (.+)$", text, re.M)[1], needs)
    return found


def reference(content: str, capital: bool = False) -> list[tuple[str, str | None]]:
    """The parts of a reference to chapters by number, each with the name of the chapter that it leads to.

    Raises:
        ValueError: there is no such chapter.

    >>> reference("symmetries and groups")
    [('chapters ', None), ('1', 'symmetries'), (' and ', None), ('2', 'groups')]
    """
    order = places.chapters()
    names = re.split(r"(, | and | to )", content)
    if unknown := [name for name in names[::2] if name not in order]:
        raise ValueError(f"no chapter has the name {', '.join(unknown)}; there are {', '.join(order)}")
    word = "Chapter" if capital else "chapter"
    parts = [(part, None) if i % 2 else (str(order.index(part) + 1), part) for i, part in enumerate(names)]
    if len(parts) == 1:
        return [(f"{word} {parts[0][0]}", parts[0][1])]
    return [(f"{word}s ", None), *parts]


def spelled(text: str) -> str:
    """Markdown with its references to chapters by number written out."""
    words = lambda match: "".join(part for part, _ in reference(match[2], match[1] == "C"))
    return re.sub(r"\{([Cc])hapter\}`([^`]+)`", words, text)


def _chapter(role, rawtext, text, lineno, inliner, options=None, content=()):
    try:
        parts = reference(" ".join(text.split()), role[0] == "C")
    except ValueError as error:
        message = inliner.reporter.error(str(error), line=lineno)
        return [inliner.problematic(rawtext, rawtext, message)], [message]
    made = []
    for words, name in parts:
        shown = nodes.inline("", words) if name else nodes.Text(words)
        if name:
            shown = addnodes.pending_xref(
                "", shown, refdomain="std", reftype="doc", reftarget=f"/notebooks/{name}", refexplicit=True,
                refwarn=True,
            )  # fmt: skip
        made.append(shown)
    return made, []


def levels(chapters: dict[str, Chapter]) -> dict[str, int]:
    """How many chapters, at the least, have to be read one after the other before each."""
    depth: dict[str, int] = {}
    for name, chapter in chapters.items():  # what a chapter needs comes before it
        depth[name] = 1 + max((depth[other] for other in chapter.needs), default=-1)
    return depth


def edges(chapters: dict[str, Chapter]) -> list[tuple[str, str]]:
    """The pairs (needed, chapter), without those that follow from others."""
    before: dict[str, set[str]] = {}
    for name, chapter in chapters.items():
        before[name] = set(chapter.needs).union(*(before[other] for other in chapter.needs))
    return [
        (other, name)
        for name, chapter in chapters.items()
        for other in chapter.needs
        if not any(other in before[between] for between in chapter.needs)
    ]


def drawing(chapters: dict[str, Chapter], address) -> str:
    """The map as an SVG; address(name) is where a chapter's box leads."""
    depth, width, high, gap = levels(chapters), 250, 46, 40
    rows: dict[int, list[str]] = {}
    for name, level in depth.items():
        rows.setdefault(level, []).append(name)
    across = max(map(len, rows.values())) * (width + 20)
    place = {
        name: (across * (i + 0.5) / len(row), level * (high + gap) + high / 2 + 4)
        for level, row in rows.items()
        for i, name in enumerate(row)
    }
    parts = []
    for first, last in edges(chapters):
        (x, y), (end, _) = place[first], place[last]
        between = range(depth[first] + 1, depth[last])  # rows that the arrow passes
        stops = [_beside([place[name][0] for name in rows[level]], x, end, width) for level in between]
        y += high / 2
        path = f"M{x:.0f} {y:.0f}"
        for stop in [*stops, end]:
            middle = y + gap / 2
            path += f" C{x:.0f} {middle:.0f} {stop:.0f} {middle:.0f} {stop:.0f} {y + gap:.0f}"
            x, y = stop, y + gap + high
            path += f" V{y:.0f}"
        path = path[: path.rindex(" V")]  # it ends where the last box begins
        parts.append(
            f'<path d="{path}" fill="none" stroke="currentColor" opacity="0.5" marker-end="url(#arrow)"/>'
        )
    for name, (x, y) in place.items():
        chapter = chapters[name]
        words, lines = chapter.title.split(" "), [f"{chapter.number}"]
        for word in words:  # two lines of 29 letters hold every title
            lines[-1:] = [f"{lines[-1]} {word}"] if len(lines[-1]) + len(word) < 29 else [lines[-1], word]
        top = y + 5 - 9 * (len(lines) - 1)
        text = "".join(
            f'<tspan x="{x:.0f}" y="{top + 18 * i:.0f}">{html.escape(line)}</tspan>'
            for i, line in enumerate(lines)
        )
        parts.append(
            f'<a href="{address(name)}"><rect x="{x - width / 2:.0f}" y="{y - high / 2:.0f}" width="{width}" '
            f'height="{high}" rx="6" fill="var(--pst-color-background, white)" stroke="currentColor"/>'
            f'<text text-anchor="middle" font-size="15" fill="currentColor">{text}</text></a>'
        )
    height = (1 + max(depth.values())) * (high + gap) - gap + 8
    return (
        '<div class="chapter-map" tabindex="0" role="group" aria-label="Map of the chapters: an arrow leads '
        f'from a chapter to those that build on it"><svg viewBox="0 0 {across} {height}" '
        f'style="width:100%;min-width:{0.7 * across:.0f}px;max-width:{across}px">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
        + "".join(parts)
        + "</svg></div>"
    )


def _beside(boxes: list[float], start: float, end: float, width: float) -> float:
    """Where an arrow on its way from start to end passes a row: between two boxes, or beside them all."""
    between = [(left + right) / 2 for left, right in itertools.pairwise(boxes)]
    gaps = [boxes[0] - width / 2 - 8, *between, boxes[-1] + width / 2 + 8]
    return min(gaps, key=lambda gap: abs(gap - start) + abs(gap - end))


def last_change(name: str) -> str:
    """The date of the last commit that changed a chapter's source."""
    command = ["git", "log", "-1", "--format=%cs", "--", f"notebooks/{name}.md"]
    asked = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True)
    return asked.stdout.strip() or "not in git"


def _paragraph(*children) -> nodes.entry:
    paragraph = nodes.paragraph()
    paragraph += children
    return nodes.entry("", paragraph)


class ChapterTable(Directive):
    """A row for each chapter: what it needs, how long it runs, its memory and its last change."""

    def run(self):
        """The table."""
        chapters, runs = read(), json.loads(notebooks.RUNS.read_text())
        head = ["chapter", "builds on", "run time", "memory", "last change"]
        group = nodes.tgroup(cols=len(head))
        group += [nodes.colspec(colwidth=width) for width in (40, 15, 15, 15, 15)]
        header, body = nodes.thead(), nodes.tbody()
        header += nodes.row("", *[_paragraph(nodes.Text(text)) for text in head])
        for name, chapter in chapters.items():
            link = nodes.reference("", chapter.title, refuri=self._address(name), internal=True)
            needs = ", ".join(str(chapters[other].number) for other in chapter.needs) or "–"
            row = [f"{runs[name]['seconds']} s", f"{runs[name]['gigabytes']} GB", last_change(name)]
            body += nodes.row(
                "",
                _paragraph(nodes.Text(f"{chapter.number} "), link),
                *[_paragraph(nodes.Text(text)) for text in (needs, *row)],
            )
        group += [header, body]
        return [nodes.table("", group)]

    def _address(self, name: str) -> str:
        environment = self.state.document.settings.env
        return environment.app.builder.get_relative_uri(environment.docname, f"notebooks/{name}")


class ChapterMap(ChapterTable):
    """The map of the book."""

    def run(self):
        """The map, as an SVG whose boxes are links."""
        return [nodes.raw("", drawing(read(), self._address), format="html")]


def citation(chapter: Chapter, site: str) -> str:
    """The BibTeX entry of a chapter."""
    named = yaml.safe_load((places.ROOT / "CITATION.cff").read_text())
    authors = " and ".join(author.get("name") or author["family-names"] for author in named["authors"])
    return (
        f"@incollection{{symmetries-ntk-{chapter.name},\n"
        f"  title     = {{{chapter.title}}},\n  author    = {{{{{authors}}}}},\n"
        f"  booktitle = {{{named['title']}}},\n  year      = {{{str(named['date-released'])[:4]}}},\n"
        f"  version   = {{{named['version']}}},\n"
        f"  url       = {{{site}notebooks/{chapter.name}.html}},\n}}"
    )


def _describe(app, pagename, templatename, context, doctree):
    # What a shared link says: the chapter's question, and not what one needs to know for it.
    if pagename.startswith("notebooks/") and doctree is not None:
        question = next(p for p in doctree.findall(nodes.paragraph) if not isinstance(p[0], nodes.emphasis))
        context["meta"] = {**(context.get("meta") or {}), "og:description": question.astext()}


def _cite(app, pagename, templatename, context, doctree):
    name = Path(pagename).name
    if pagename.startswith("notebooks/") and doctree is not None:
        entry = html.escape(citation(read()[name], app.config.html_baseurl))
        context["body"] += (
            '<details class="cite"><summary>Cite this chapter</summary>'
            f'<div class="highlight"><pre tabindex="0">{entry}</pre></div></details>'
        )


def setup(app):
    """Registers the role, the directives and the citations."""
    app.add_role("chapter", _chapter)
    app.add_directive("chapter-table", ChapterTable)
    app.add_directive("chapter-map", ChapterMap)
    app.connect("html-page-context", _describe, priority=400)  # ahead of sphinxext.opengraph
    app.connect("html-page-context", _cite)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
