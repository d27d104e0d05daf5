"""A Sphinx extension: `problem-sets` lists the problem sets with their points and where to open them."""

from __future__ import annotations

import html
from urllib.parse import quote

from docutils import nodes
from docutils.parsers.rst import Directive

from coursework import source
from tools import places


def entries() -> list[dict]:
    """Name, title, points, tasks and addresses of each problem set."""
    found = []
    repository = places.repository().removeprefix("https://github.com/")
    for name in source.names():
        notebook = source.read(name)
        found.append(
            {
                "file": f"{name}.ipynb",
                "title": notebook.cells[0].source.splitlines()[0].removeprefix("# "),
                "points": sum(cell.metadata.nbgrader.get("points", 0) for cell in notebook.cells),
                "tasks": sum(source.is_test(cell) for cell in notebook.cells),
                "colab": "https://colab.research.google.com/github/"
                f"{quote(repository)}/blob/{places.branch()}/coursework/{name}.ipynb",
            }
        )
    return sorted(found, key=lambda entry: not entry["file"].startswith("ps"))


class ProblemSets(Directive):
    """A row for each problem set: title, points, graded tasks, links."""

    def run(self):
        """The table."""
        rows = "".join(
            f"<tr><td>{html.escape(entry['title'])}</td><td>{entry['points']}</td><td>{entry['tasks']}</td>"
            f'<td><a href="{entry["colab"]}">open in Colab<span class="visually-hidden">: '
            f"{html.escape(entry['title'])}</span></a>, "
            f'<a href="../coursework/{entry["file"]}" download>download {entry["file"]}</a></td></tr>'
            for entry in entries()
        )
        head = "".join(f"<th>{name}</th>" for name in ("problem set", "points", "graded tasks", "notebook"))
        table = f'<table class="table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        return [nodes.raw("", f'<div class="pst-scrollable-table-container">{table}</div>', format="html")]


def setup(app):
    """Registers the directive."""
    app.add_directive("problem-sets", ProblemSets)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
