"""The chapters in plain Markdown, for front ends that do not read MyST.

Colab shows `{prf:theorem}` blocks as code and `{doc}` references as they are typed. `make book` puts a second
copy of each notebook beside its page, in which statements are quotations with their names in bold, solutions
are folded by HTML, captions stand below their figures, the code of cells that only draw is folded as Colab
and JupyterLab do it, and references are words that link to the published page.
"""

from __future__ import annotations

import re

import nbformat
from pybtex.database import parse_file

from tools import places
from tools.book import chapters, notebooks

_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>[\w:-]+)\}[ ]*(?P<title>.*)$")
_ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?P<content>[^`]+)`")
_TARGET = re.compile(r"(?P<words>.+?)\s*<(?P<target>.+)>$", re.DOTALL)
_EQUATION = re.compile(r"^(?P<quoted>(?:> )?)\$\$ \((?P<label>[\w-]+)\)$", re.MULTILINE)


class Label:
    """What a reference says and where it leads."""

    def __init__(self, words: str, address: str):
        self.words, self.address = words, address


def labels() -> dict[str, Label]:
    """What every label in the book refers to, by label, and every page, by name."""
    found = {}
    for chapter, path in enumerate(notebooks.select([]), start=1):
        page = f"{places.site()}notebooks/{path.stem}.html"
        text = path.read_text(encoding="utf-8")
        found[path.stem] = Label(re.search(r"^# (.+)$", text, re.M)[1], page)
        for kind, title, label in re.findall(r"^`{3,}\{([\w:-]+)\} ?(.*)\n:label: (\S+)$", text, re.M):
            name = kind.removeprefix("prf:")
            found[label] = Label(f"{name} ({title})" if title else name, f"{page}#{label}")
        for number, (_, label) in enumerate(_EQUATION.findall(text), start=1):
            found[label] = Label(f"({chapter}.{number})", f"{page}#equation-{label}")
        names = re.findall(r"^ +name: (fig-\S+)$", text, re.M)
        for number, label in enumerate(names, start=1):
            found[label] = Label(f"figure {chapter}.{number}", f"{page}#{label}")
        for label in re.findall(r"^\((\S+)\)=$", text, re.M):
            heading = re.search(rf"^\({label}\)=\n#+ (.+)$", text, re.M)[1]
            found[label] = Label(heading, f"{page}#{label}")
    for path in sorted((places.ROOT / "book").glob("*.md")):
        title = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)
        if title:
            found[path.stem] = Label(title[1], f"{places.site()}book/{path.stem}.html")
    return found


def cited() -> dict[str, tuple[str, str]]:
    """Authors and year of each entry of the bibliography, by key."""
    entries = parse_file(str(places.ROOT / "book" / "references.bib")).entries
    found = {}
    for key, entry in entries.items():
        names = [" ".join(person.last_names).strip("{}") for person in entry.persons.get("author", [])]
        short = names[0] + " et al." if len(names) > 2 else " and ".join(names)
        found[key] = short, entry.fields.get("year", "")
    return found


def convert(notebook: nbformat.NotebookNode, known: dict[str, Label], papers: dict) -> nbformat.NotebookNode:
    """A notebook in plain Markdown; cells, code and outputs stay, but for the state of widgets."""
    plain = nbformat.from_dict(notebook)
    plain.metadata.pop("widgets", None)
    plain.metadata.pop("jupytext", None)
    cells = []
    for cell in plain.cells:
        if cell.cell_type == "markdown":
            cell.source = _markdown(cell.source, known, papers)
            if cell.source.strip():
                cells.append(cell)
            continue
        cell.outputs = [o for o in cell.outputs if not _is_widget(o)]
        if notebooks.FOLDED in cell.metadata.get("tags", []):
            # Colab's word for it, and JupyterLab's
            cell.metadata.update(cellView="form", jupyter={"source_hidden": True})
        cells.append(cell)
        figure = cell.metadata.pop("mystnb", {}).get("figure", {})
        if "caption" in figure:
            name = f"{known[figure['name']].words.capitalize()}. " if "name" in figure else ""
            text = _roles(f"*{name}{figure['caption'].strip()}*", known, papers)
            cells.append(nbformat.v4.new_markdown_cell(text))
    plain.cells = cells
    notebooks.name_cells(plain)
    return plain


def _is_widget(output: nbformat.NotebookNode) -> bool:
    return any("widget" in kind for kind in output.get("data", {}))


def _markdown(text: str, known: dict, papers: dict) -> str:
    lines, made = text.split("\n"), []
    while lines:
        line = lines.pop(0)
        opening = _FENCE.match(line)
        if opening:
            end = next(i for i, other in enumerate(lines) if other.rstrip() == opening["fence"])
            body, lines = lines[:end], lines[end + 1 :]
            made += _block(opening["kind"], opening["title"], body)
        elif not re.match(r"^\([\w-]+\)=$", line):
            made.append(line)

    def tagged(match: re.Match) -> str:
        quoted, number = match["quoted"], known[match["label"]].words.strip("()")
        return f"{quoted}\\tag{{{number}}}\n{quoted}$$"

    text = _EQUATION.sub(tagged, "\n".join(made))
    return _roles(text, known, papers).strip("\n")


def _block(kind: str, title: str, body: list[str]) -> list[str]:
    """A directive as plain Markdown."""
    folded = any(line.strip() == ":class: dropdown" for line in body)
    while body and (not body[0].strip() or re.match(r"^:\w+:", body[0])):
        body.pop(0)
    while body and not body[-1].strip():
        body.pop()
    name = kind.removeprefix("prf:").capitalize()
    if kind == "solution-start":
        return ["**Solution**"]
    if kind == "solution-end":
        return []
    if kind == "solution":
        title, folded = "", True
    heading = title if kind == "admonition" else name + (f" ({title})" if title else "")
    if kind == "prf:proof" and not folded:
        return [f"*{heading}.*", "", *body, "", "∎"]
    if folded:
        return ["<details>", f"<summary><b>{heading}</b></summary>", "", *body, "", "</details>"]
    return [f"> **{heading}.**", ">", *[f"> {line}".rstrip() for line in body]]


def _roles(text: str, known: dict, papers: dict) -> str:
    references = f"{places.site()}book/references.html"

    def role(match: re.Match) -> str:
        kind, content = match["role"], " ".join(match["content"].split())
        if kind.startswith("cite:"):
            names = [papers[key.strip()] for key in content.split(",")]
            if kind == "cite:t":
                return " and ".join(f"[{authors} ({year})]({references})" for authors, year in names)
            return f"([{'; '.join(f'{authors} {year}' for authors, year in names)}]({references}))"
        if kind.lower() == "chapter":
            parts = chapters.reference(content, kind[0] == "C")
            return "".join(f"[{words}]({known[name].address})" if name else words for words, name in parts)
        split = _TARGET.match(content)
        target = (split["target"] if split else content).split("/")[-1]
        label = known[target]
        words = split["words"] if split else label.words
        if not split and words.split(" ")[0] in ("theorem", "proposition", "lemma", "definition"):
            before = match.string[: match.start()].rstrip()
            starts = not before or before[-1] in ".?!:>*"
            words = words[0].upper() + words[1:] if starts else words
        return f"[{words}]({label.address})"

    return _ROLE.sub(role, text)
