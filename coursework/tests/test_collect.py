"""Submissions as they come: other names, lost cells, old releases, line ends, outputs, copies."""

import json
import os

import nbformat
import pytest

from coursework import collect, source


@pytest.fixture
def tests():
    """What grading compares with; here with solutions, of which only tests and given cells matter."""
    notebook = source.read("ps1")
    for cell in notebook.cells:
        if source.is_answer(cell) and cell.cell_type == "code":
            cell.source = "raise NotImplementedError()"
    return notebook


def answer(notebook, name):
    return next(c.source for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def hand_in(folder, notebook, place):
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    "place, student",
    [
        ("ada/ps1.ipynb", "ada"),
        ("ada/homework final (2).ipynb", "ada"),
        ("ada/attachments/ps1.ipynb.txt", "ada"),
        ("ada_12345_ps1.ipynb", "ada"),
        ("ada/PS1.ipynb", "ada"),
    ],
)
def test_a_file_is_found_whatever_its_name(tmp_path, solved, place, student):
    hand_in(tmp_path, solved(), place)
    (found,), left_out = collect.find(tmp_path, source.names())
    assert (found.student, found.name, left_out) == (student, "ps1", [])
    assert bool(found.notes) == (not place.endswith("/ps1.ipynb"))


def test_a_notebook_without_metadata_is_known_by_what_it_defines(tmp_path, solved):
    notebook = solved()
    notebook.metadata = {}
    for cell in notebook.cells:
        cell.metadata = {}
    hand_in(tmp_path, notebook, "ada/untitled.ipynb")
    (found,), _ = collect.find(tmp_path, source.names())
    assert found.name == "ps1"


def test_what_is_no_submission_is_named(tmp_path, solved):
    hand_in(tmp_path, nbformat.v4.new_notebook(), "ada/notes.ipynb")
    hand_in(tmp_path, solved(), "ps1.ipynb")
    (tmp_path / "ada" / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "ada" / "link.ipynb").symlink_to("/etc/passwd")
    found, left_out = collect.find(tmp_path, source.names())
    assert found == []
    assert len(left_out) == 4
    assert any("none of the problem sets" in line for line in left_out)
    assert any("whose is it?" in line for line in left_out)
    assert any("links are not followed" in line for line in left_out)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'{"cells": 3}', b"[" * 100_000])
def test_what_cannot_be_read_costs_only_its_own_points(tmp_path, solved, tests, content):
    hand_in(tmp_path, solved(), "ada/ps1.ipynb")
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "ps1.ipynb").write_bytes(content)
    (ada, bob), _ = collect.find(tmp_path, source.names())
    assert ada.notebook is not None and bob.notebook is None
    assert "cannot be read" in bob.notes[0]
    merged, notes = collect.merge(tests, source.read("ps1"), bob.notebook)
    assert answer(merged, "move") == answer(tests, "move") and "not answered" in notes[0]


def test_the_newer_of_two_files_counts(tmp_path, solved):
    old = hand_in(tmp_path, solved(move="old = 1"), "ada/ps1 (1).ipynb")
    new = hand_in(tmp_path, solved(move="new = 1"), "ada/ps1.ipynb")
    os.utime(old, (1000, 1000))
    os.utime(new, (2000, 2000))
    (found,), _ = collect.find(tmp_path, source.names())
    assert answer(found.notebook, "move") == "new = 1"
    assert any("two files" in note for note in found.notes)


def test_a_file_that_can_be_read_counts_before_a_newer_one_that_cannot(tmp_path, solved):
    good = hand_in(tmp_path, solved(), "ada/ps1.ipynb")
    os.utime(good, (1000, 1000))
    (tmp_path / "ada" / "ps1 (1).ipynb").write_text("{")
    (found,), _ = collect.find(tmp_path, source.names())
    assert found.notebook is not None


def test_windows_line_ends_and_a_byte_order_mark(tmp_path, solved, tests):
    path = hand_in(tmp_path, solved(), "ada/ps1.ipynb")
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        cell["source"] = [line.replace("\n", "\r\n") for line in cell["source"]]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content, indent=1).replace("\n", "\r\n").encode())
    (found,), _ = collect.find(tmp_path, source.names())
    merged, notes = collect.merge(tests, source.read("ps1"), found.notebook)
    assert answer(merged, "move") == answer(solved(), "move") and notes == []


def test_outputs_of_100_megabytes_are_dropped(tmp_path, solved, tests):
    notebook = solved()
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("stream", text="x" * 100_000_000)]
    hand_in(tmp_path, notebook, "ada/ps1.ipynb")
    (found,), _ = collect.find(tmp_path, source.names())
    merged, _ = collect.merge(tests, source.read("ps1"), found.notebook)
    assert len(nbformat.writes(merged)) < 1_000_000


def test_an_old_notebook_format_is_read(tmp_path, solved, tests):
    hand_in(tmp_path, solved(), "ada/ps1.ipynb")
    old = nbformat.convert(nbformat.read(tmp_path / "ada" / "ps1.ipynb", as_version=4), 3)
    (tmp_path / "ada" / "ps1.ipynb").write_text(nbformat.v3.nbjson.writes(old))
    (found,), _ = collect.find(tmp_path, source.names())
    merged, _ = collect.merge(tests, source.read("ps1"), found.notebook)
    assert answer(merged, "move") == answer(solved(), "move")


def test_a_solved_notebook_keeps_its_answers_and_its_own_cells(solved, tests, added):
    notebook = solved()
    notebook.cells.insert(6, added("helper = 1"))
    merged, notes = collect.merge(tests, source.read("ps1"), notebook)
    assert notes == []
    assert "helper = 1" in [cell.source for cell in merged.cells]
    for name in ("move", "bracelets", "rubric-stride"):
        assert answer(merged, name) == answer(notebook, name)


def test_tests_and_given_cells_that_were_changed_or_deleted_are_put_back(solved, tests):
    notebook = solved()
    notebook.cells = [c for c in notebook.cells if c.metadata.nbgrader.grade_id != "test-bracelets"]
    for cell in notebook.cells:
        if cell.metadata.nbgrader.grade_id == "test-move":
            cell.source = "pass"
    merged, notes = collect.merge(tests, source.read("ps1"), notebook)
    assert answer(merged, "test-move") == answer(tests, "test-move")
    assert answer(merged, "test-bracelets") == answer(tests, "test-bracelets")
    assert notes == [
        "given cells that were changed are put back: test-move",
        "given cells that were missing are put back: test-bracelets",
    ]


def test_an_answer_whose_cell_lost_its_mark_is_found_by_what_it_defines(solved, tests):
    notebook = solved()
    for cell in notebook.cells:
        if cell.metadata.nbgrader.grade_id == "bracelets":
            cell.metadata = {}
    merged, notes = collect.merge(tests, source.read("ps1"), notebook)
    assert answer(merged, "bracelets") == answer(solved(), "bracelets")
    assert "found by what it defines" in notes[0]


def test_a_deleted_answer_counts_as_not_answered(solved, tests):
    notebook = solved()
    notebook.cells = [c for c in notebook.cells if c.metadata.nbgrader.grade_id != "bracelets"]
    merged, notes = collect.merge(tests, source.read("ps1"), notebook)
    assert answer(merged, "bracelets") == answer(tests, "bracelets")
    assert "bracelets: its cell is missing" in notes[0]


def test_points_and_marks_in_the_submission_mean_nothing(solved, tests):
    notebook = solved()
    for cell in notebook.cells:
        if "points" in cell.metadata.nbgrader:
            cell.metadata.nbgrader["points"] = 100
    merged, _ = collect.merge(tests, source.read("ps1"), notebook)
    assert sum(c.metadata.get("nbgrader", {}).get("points", 0) for c in merged.cells) == 40


def test_an_old_release_and_another_variant_are_reported(solved, tests):
    notebook = solved()
    notebook.metadata[source.KEY]["release"] = "00000000"
    notebook.metadata[source.KEY]["variant"] = 2026
    notebook.cells.insert(
        5,
        nbformat.v4.new_code_cell("side = 1", metadata={"nbgrader": {"locked": True, "grade_id": "given-0"}}),
    )
    merged, notes = collect.merge(tests, source.read("ps1"), notebook)
    assert "handed in was variant 2026, graded is variant 0" in notes
    assert any("handed in was release 00000000" in note for note in notes)
    assert "side = 1" not in [cell.source for cell in merged.cells]


def test_of_two_cells_with_the_same_mark_the_later_answer_counts(solved, tests):
    notebook = solved()
    place = next(i for i, c in enumerate(notebook.cells) if c.metadata.nbgrader.grade_id == "move")
    copy = nbformat.from_dict(notebook.cells[place])
    copy.source = "def move(permutation, x): return x"
    notebook.cells.insert(place + 1, copy)
    merged, notes = collect.merge(tests, source.read("ps1"), notebook)
    assert answer(merged, "move") == copy.source and "two cells" in notes[0]


def test_names_that_a_file_system_would_mind_stay_two(tmp_path, solved):
    hand_in(tmp_path, solved(), "Ada L./ps1.ipynb")
    hand_in(tmp_path, solved(), "Ada L!/ps1.ipynb")
    found, _ = collect.find(tmp_path, source.names())
    assert len({submission.student for submission in found}) == 2
