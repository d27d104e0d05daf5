"""What a chapter defines, for tests that try it more widely than the chapter can."""

import ast
import functools
from types import SimpleNamespace

import pytest

from tools import places
from tools.book import notebooks, setup_cell


@functools.cache
def _definitions(name: str, constants: tuple[str, ...]) -> SimpleNamespace:
    """The imports, functions, classes and named constants of a chapter's cells, run in their order."""
    cells = notebooks.read_source(places.NOTEBOOKS / f"{name}.md").cells
    cells = [cell for cell in cells if cell.cell_type == "code"]
    cells = [cell for cell in cells if setup_cell.TAG not in cell.metadata.get("tags", [])]
    found = {}
    for node in (node for cell in cells for node in ast.parse(cell.source).body):
        kept = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        if isinstance(node, ast.Assign):
            names = {
                each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)
            }
            kept = bool(names & set(constants))
        if kept:
            exec(compile(ast.Module([node], []), f"notebooks/{name}.md", "exec"), found)
    missing = set(constants) - found.keys()
    assert not missing, f"notebooks/{name}.md assigns no {', '.join(sorted(missing))}"
    return SimpleNamespace(**found)


@pytest.fixture(scope="session")
def definitions():
    """definitions("jets", "SCALE"): what the chapter's cells define, and the constants that are named."""
    return lambda name, *constants: _definitions(name, constants)
