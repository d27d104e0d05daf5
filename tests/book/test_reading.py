"""The chapters' code can be read in passing: what only draws is folded away, lines and cells are short.

A cell *draws* if it calls a function of `plt`, `Explorer`, `Pictures`, `Playground` or `display`, a method of
an axis or a figure (which the chapters call `axis`, `axes` and `figure`), or a function of the chapter that
does one of these. It is folded, with the tag `hide-input`, and nothing else is, but for cells that only
define functions, which are then called by folded cells alone.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tools import places
from tools.book import notebooks, setup_cell
from tools.book.notebooks import FOLDED

LINE = 80  # characters
CELL = 15  # lines that are not blank; folded cells and the first one, of imports, may have more

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
CANVASES = {"plt", "Explorer", "Pictures", "Playground", "display", "axis", "axes", "figure"}


class Cell(NamedTuple):
    """A code cell, as far as it matters here."""

    source: str
    folded: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def __str__(self) -> str:
        return repr(next((line for line in self.source.splitlines() if line.strip()), ""))


def chapter(name: str) -> list[Cell]:
    """The code cells of a chapter, without the one that sets up Colab."""
    notebook = notebooks.read_source(places.NOTEBOOKS / f"{name}.md")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    return [
        Cell(cell.source, FOLDED in tagged)
        for cell, tagged in zip(cells, tags, strict=True)
        if setup_cell.TAG not in tagged
    ]


# What a cell does, read off its syntax tree.


def root(node: ast.expr) -> str:
    """The name that an expression starts with: `axes` of `axes[0].set`, `jnp` of `jnp.array(x).item`."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> set[str]:
    """The names that calls start with."""
    return {root(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def drawing(cells: list[Cell]) -> list[bool]:
    """Whether each of a chapter's cells draws."""
    known = set(CANVASES)
    for cell in cells:  # a function is defined ahead of its calls
        for node in ast.walk(cell.tree):
            if isinstance(node, FUNCTIONS) and calls(node) & known:
                known.add(node.name)
    return [bool(calls(cell.tree) & known) for cell in cells]


def binds(tree: ast.AST) -> set[str]:
    """The names that statements bind, without those that live in a function or a comprehension."""
    found, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
            waiting += node.body
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            waiting += ast.iter_child_nodes(node)
    return found


def reads(node: ast.AST, local: frozenset = frozenset()) -> Iterator[str]:
    """The names that are read and not bound by the function or the comprehension that they stand in."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id not in local:
            yield node.id
        return
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        local = local.union(arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg))
        for statement in node.body if isinstance(node, FUNCTIONS) else []:
            local = local.union(binds(statement))
    for part in getattr(node, "generators", []):
        local = local.union(name.id for name in ast.walk(part.target) if isinstance(name, ast.Name))
    for child in ast.iter_child_nodes(node):
        yield from reads(child, local)


# What is wrong with a chapter, in words; nothing if all is well.


def folded_wrongly(cells: list[Cell]) -> Iterator[str]:
    """Cells that draw and are shown, and cells that are folded and do not draw."""
    for cell, draws in zip(cells, drawing(cells), strict=True):
        helpers = all(isinstance(statement, FUNCTIONS) for statement in cell.tree.body)
        if draws and not cell.folded:
            yield f"{cell} draws: fold it, tags: [{FOLDED}]"
        elif cell.folded and not draws and not helpers:
            yield f"{cell} draws nothing: do not fold it"


def hidden(cells: list[Cell]) -> Iterator[str]:
    """What a reader would miss who opens no folded cell."""
    owner = {}  # the cell that bound a name last
    for cell in cells:
        nodes = list(ast.walk(cell.tree))
        if cell.folded and any(isinstance(node, ast.Assert) for node in nodes):
            yield f"{cell} is folded and asserts"
        if cell.folded and "print" in calls(cell.tree):
            yield f"{cell} is folded and prints"
        for statement in cell.tree.body:
            bound = binds(statement)
            loop = isinstance(statement, (ast.For, ast.With, ast.Try))  # these bind before they read
            for name in sorted(set(reads(statement)) - (bound if loop else set())):
                if not cell.folded and name in owner and owner[name].folded:
                    yield f"{cell} reads {name}, which is from the folded {owner[name]}"
            owner.update(dict.fromkeys(bound, cell))


def long_lines(cells: list[Cell]) -> Iterator[str]:
    """Lines that do not fit the page's column."""
    for cell in cells:
        for line in cell.source.splitlines():
            if len(line) > LINE:
                yield f"{len(line)} characters: {line.strip()}"


def long_cells(cells: list[Cell]) -> Iterator[str]:
    """Cells of more than one thought."""
    for cell in cells[1:]:
        lines = sum(bool(line.strip()) for line in cell.source.splitlines())
        if lines > CELL and not cell.folded:
            yield f"{cell} has {lines} lines: split it"


def unsaid(cells: list[Cell]) -> Iterator[str]:
    """Functions that do not say in one line what comes out of them."""
    for cell in cells:
        for node in ast.walk(cell.tree):
            if isinstance(node, FUNCTIONS):
                said = ast.get_docstring(node, clean=False) or ""
                if not said.endswith(".") or "\n" in said:
                    yield f"{node.name} in {cell} needs a docstring: one line, a full stop at its end"


RULES = [folded_wrongly, hidden, long_lines, long_cells, unsaid]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", places.chapters())
def test_chapter(name, rule):
    assert list(rule(chapter(name))) == []


IMPORTS = Cell("import matplotlib.pyplot as plt\n" + 20 * "import jax\n" + "use_style()")
HELPER = Cell('def bare(axis):\n    """Without ticks."""\n    axis.set(xticks=[])', folded=True)


@pytest.mark.parametrize(
    "rule, cells",
    [
        (folded_wrongly, [Cell("figure, axis = plt.subplots()", folded=True)]),
        (folded_wrongly, [Cell('Explorer("t", times)', folded=True), Cell("x = jnp.roll(y, 1, axis)")]),
        (folded_wrongly, [HELPER, Cell("bare(corner)", folded=True)]),
        (folded_wrongly, [Cell("def label(x):\n    return str(x)", folded=True), Cell("x = plt")]),
        (hidden, [Cell("x = 1"), Cell("plt.plot(x)\ny = x", folded=True), Cell("print(x)")]),
        (hidden, [Cell("for x in y:\n    plt.plot(x)", folded=True), Cell("for x in y:\n    print(x)")]),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("f = lambda x: x\nz = [x for x in f(y)]")]),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("def f(x):\n    y = x\n    return y")]),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("x = 2\nassert x")]),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("plt.plot(x)", folded=True)]),
        (long_lines, [Cell("x = " + 76 * "1")]),
        (long_cells, [Cell(15 * "x = 1\n\n"), Cell(30 * "plt.show()\n", folded=True)]),
        (unsaid, [HELPER]),
    ],
)
def test_good_cells(rule, cells):
    assert list(rule([IMPORTS, *cells])) == []


@pytest.mark.parametrize(
    "rule, cells, complaint",
    [
        (folded_wrongly, [Cell("figure, axis = plt.subplots()")], "draws: fold it"),
        (folded_wrongly, [Cell("axes[0].set(title=1)")], "draws: fold it"),
        (folded_wrongly, [Cell('w = Pictures("g", names)')], "draws: fold it"),
        (folded_wrongly, [HELPER._replace(folded=False)], "draws: fold it"),
        (folded_wrongly, [HELPER, Cell("bare(corner)")], "draws: fold it"),
        (folded_wrongly, [Cell("x = 1", folded=True)], "draws nothing"),
        (folded_wrongly, [Cell("def f(x):\n    return x\ny = f(1)", folded=True)], "draws nothing"),
        (hidden, [Cell("plt.show()\nassert True", folded=True)], "folded and asserts"),
        (hidden, [Cell("plt.show()\nfor x in y:\n    print(x)", folded=True)], "folded and prints"),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("print(x)")], "reads x"),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("x = x + 1")], "reads x"),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("x += 1")], "reads x"),
        (hidden, [Cell("for x in y:\n    plt.plot(x)", folded=True), Cell("z = f(x, y)")], "reads x"),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("z = [x for _ in y]")], "reads x"),
        (hidden, [Cell("x = 1"), Cell("x = plt.plot(y)", folded=True), Cell("print(x)")], "reads x"),
        (hidden, [Cell("x = plt.plot(y)", folded=True), Cell("def f(y):\n    return x + y")], "reads x"),
        (hidden, [HELPER, Cell("z = map(bare, y)")], "reads bare"),
        (long_lines, [Cell("x = " + 77 * "1")], "81 characters"),
        (long_lines, [Cell("x = " + 77 * "1", folded=True)], "81 characters"),
        (long_cells, [Cell(16 * "x = 1\n")], "16 lines"),
        (unsaid, [Cell("def f():\n    return 1")], "f in 'def f():' needs"),
        (unsaid, [Cell('def f():\n    """One"""')], "f in 'def f():' needs"),
        (unsaid, [Cell('def f():\n    """One.\n\n    Two.\n    """')], "f in 'def f():' needs"),
        (unsaid, [Cell("class A:\n    def f(self):\n        return 1")], "f in 'class A:' needs"),
    ],
)
def test_bad_cells(rule, cells, complaint):
    found = list(rule([IMPORTS, *cells]))
    assert len(found) == 1 and complaint in found[0]
