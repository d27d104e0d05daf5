"""Looks through the built book: `python -m tools.site.check _build/html`.

Fails if a page has an image without a description (or with its file name as one), a folded box without a
title to unfold it by, no icon, a link to a page or a place of the book that is not there or to a notebook
on Colab or Binder that is not among the pages, or loads a script, style, image or frame from another host;
and if any file holds a line of a problem set's solution, model answer or hidden test. Links that a reader
follows may lead to other hosts; each of them is listed once in external_links.txt beside the pages' folder.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from coursework import leaks
from tools import places

_LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}
_LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "manifest"}
_OTHER_HOST = re.compile(r"^\s*(https?:)?//", re.I)
_CODE_ON_OTHER_HOST = re.compile(
    r"""(?:\bimport\b|\bfrom\b|@import|\burl\(|import\()\s*["'(]*\s*(?:https?:)?//[^"')\s]+"""
)
_LAUNCH = re.compile(
    r"https://(?:colab\.research\.google\.com/github/(?P<colab>[^/]+/[^/]+/blob/[^/]+)/"
    r"|mybinder\.org/v2/gh/(?P<binder>[^/]+/[^/]+/[^/?]+)\?urlpath=lab/tree/)(?P<file>[^?#]+)$"
)
_FOLDED = re.compile(r'<div class="(?=[^"]*\badmonition\b)[^"]*\bdropdown\b[^"]*"[^>]*>\s*')


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.problems: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = {"", "top"}
        self.icon = False
        self._inside = ""

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self._inside = tag if tag in ("script", "style") else ""
        address = values.get(_LOADS.get(tag, ""), "")
        if tag == "link" and _LOADING_RELATIONS & set(values.get("rel", "").lower().split()):
            address = values.get("href", "")
            self.icon |= "icon" in values["rel"].lower().split()
        if _OTHER_HOST.match(address):
            self.problems.append(f"<{tag}> loads {address} from another host")
        if tag == "img":
            self._check_description(values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.places |= {values.get("id", ""), values.get("name", "")}

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside:
            for found in _CODE_ON_OTHER_HOST.findall(data):
                self.problems.append(f"<{self._inside}> loads {found.strip()} from another host")

    def _check_description(self, values):
        source = values.get("src", "")
        name = source if len(source) < 120 else source[:60] + "…"
        description = values.get("alt", "").strip()
        if "alt" not in values:
            self.problems.append(f"image {name} has no alt text")
        elif not description and values.get("role") != "presentation" and values.get("aria-hidden") != "true":
            self.problems.append(f"image {name} has an empty alt text")
        elif description.rsplit("/")[-1] == source.rsplit("/")[-1] or re.search(
            r"\.(png|svg|jpe?g|gif|webp)$", description, re.I
        ):
            self.problems.append(f"image {name} has a file name as alt text: {description}")


def read_page(path: Path) -> _Page:
    """One page, with what is wrong with it by itself, its links and the places that links can lead to."""
    page = _Page()
    text = path.read_text(encoding="utf-8")
    page.feed(text)
    if not page.icon:
        page.problems.append("names no icon: a browser asks the host for favicon.ico, which is not there")
    for box in _FOLDED.finditer(text):
        # one without a title stops the script that folds, and every box of the page stays open
        if not text.startswith('<p class="admonition-title"', box.end()):
            page.problems.append(f"a folded box has no title: {text[box.end() : box.end() + 60]!r}")
    return page


def check_links(pages: dict[Path, _Page]) -> set[str]:
    """Adds the links that lead nowhere to the pages' problems, and returns those to other hosts."""
    outside = set()
    for path, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                outside.add(link)
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not file.exists():
                page.problems.append(f"a link to {link} leads to no file")
            elif file in pages and unquote(target.fragment) not in pages[file].places:
                page.problems.append(f"a link to {link} leads to no place on that page")
    return outside


def check_launches(pages: dict[Path, _Page], root: Path) -> None:
    """Adds the links to Colab and Binder that open none of the published notebooks to the pages' problems."""
    repository, branch = places.repository().removeprefix("https://github.com/"), places.branch()
    for page in pages.values():
        for link in page.links:
            if urlsplit(link).netloc in ("colab.research.google.com", "mybinder.org"):
                found = _LAUNCH.match(link)
                where = found and (found["colab"] or found["binder"])
                if where not in (f"{repository}/blob/{branch}", f"{repository}/{branch}"):
                    page.problems.append(f"{link} opens nothing on the branch {branch} of {repository}")
                elif not (root / unquote(found["file"])).is_file():
                    page.problems.append(f"{link} opens a notebook that was not built")


def main(folder: str) -> int:
    """Checks the pages and prints how many there are and how large the book is."""
    root = Path(folder)
    pages = sorted(p for p in root.rglob("*.html") if "_static" not in p.relative_to(root).parts)
    if not pages:
        print(f"There is no page in {root}: run make book first.", file=sys.stderr)
        return 1
    read = {path.resolve(): read_page(path) for path in pages}
    outside = check_links(read)
    check_launches(read, root)
    leaked = leaks.published(root)
    for problem in leaked:
        print(problem, file=sys.stderr)
    for path, page in read.items():
        for problem in page.problems:
            print(f"{path.relative_to(root.resolve())}: {problem}", file=sys.stderr)
    (root.parent / "external_links.txt").write_text("\n".join(sorted(outside)) + "\n")
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    print(f"{len(pages)} pages, {size / 1e6:.0f} MB, {len(outside)} links to other hosts")
    return int(bool(leaked) or any(page.problems for page in read.values()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tools.site.check FOLDER")
    raise SystemExit(main(sys.argv[1]))
