"""What Colab and Binder open, beside the built pages: `python -m tools.site.launch`, a step of `make book`.

Chapters in plain Markdown and the problem sets as students get them are made of other files, so they are not
in the main branch: they are published with the pages, on the branch that serves them. Binder builds its
environment from there as well.
"""

from __future__ import annotations

import shutil
import sys

import nbformat

from coursework import source, student
from tools import places
from tools.book import notebooks
from tools.site import plain


def main() -> int:
    """Writes them into _build/html."""
    made = {}
    known, papers = plain.labels(), plain.cited()
    for path in notebooks.select([]):
        stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
        made[f"notebooks/{path.stem}.ipynb"] = plain.convert(stored, known, papers)
    for name in source.names():
        made[f"coursework/{name}.ipynb"] = student.notebook(name)
    for name, notebook in made.items():
        (places.BUILT / name).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, places.BUILT / name)
    shutil.copytree(places.ROOT / ".binder", places.BUILT / ".binder", dirs_exist_ok=True)
    shutil.copy(places.ROOT / "requirements.txt", places.BUILT)
    (places.BUILT / ".nojekyll").touch()  # or GitHub would leave out the folders that begin with _
    return 0


if __name__ == "__main__":
    sys.exit(main())
