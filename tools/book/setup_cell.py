"""The first code cell of every chapter, which sets up Colab and chooses the CPU. It stands once, here.

`make execute` puts it into the notebooks that it stores, ahead of the code in their .md sources, with the
address of the published book from _config.yml and the dependencies from pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib

import nbformat

from tools import places

TAG = "set-up"
ON_COLAB = {"jax", "numpy", "scipy", "matplotlib", "ipywidgets"}  # there already, and left as they are


def project() -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((places.ROOT / "pyproject.toml").read_text())["project"]


def wheel() -> str:
    """The name of the library's wheel, which is served with the pages."""
    return f"{project()['name']}-{project()['version']}-py3-none-any.whl"


def text() -> str:
    """The cell's source."""
    extras = project()["optional-dependencies"]
    lines = [*project()["dependencies"], *extras["book"]]
    others = [line for line in lines if re.match(r"[\w-]+", line)[0] not in ON_COLAB]
    # neural-tangents is installed without what it asks for, which includes TensorFlow
    return "\n".join(
        [
            "# On Colab: installs nteq, the book's library, in half a minute. Elsewhere it is there already.",
            "try:",
            "    import nteq",
            "except ModuleNotFoundError:",
            f"    %pip install --quiet --no-deps {places.site()}{wheel()} {extras['stax'][0]}",
            "    %pip install --quiet frozendict " + " ".join(f'"{line}"' for line in others),
            "import jax",
            "",
            "# the CPU, even beside a GPU or TPU: few of those are made for the book's float64",
            'jax.config.update("jax_platforms", "cpu")',
        ]
    )


def insert(notebook: nbformat.NotebookNode) -> None:
    """Puts the cell before the notebook's first code cell, in place of one that is there already."""
    cells = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]
    first = next((i for i, cell in enumerate(cells) if cell.cell_type == "code"), len(cells))
    # the page does not show it: it is for those who run the chapter
    cell = nbformat.v4.new_code_cell(text(), metadata={"tags": [TAG, "remove-cell"]})
    notebook.cells = [*cells[:first], cell, *cells[first:]]
