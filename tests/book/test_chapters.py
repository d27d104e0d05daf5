"""Numbers follow from the order in _toc.yml, the map from what the chapters say they need."""

import json
import re

import numpy as np
import pytest

from tools import places
from tools.book import chapters, notebooks
from tools.book.chapters import Chapter


def book(**needs):
    return {
        name: Chapter(name, number, f"Title {name}", tuple(others))
        for number, (name, others) in enumerate(needs.items(), start=1)
    }


def test_every_chapter_is_read_and_needs_only_earlier_ones():
    found = chapters.read()
    assert list(found) == places.chapters()
    assert [chapter.number for chapter in found.values()] == list(range(1, len(found) + 1))
    for chapter in found.values():
        assert all(found[other].number < chapter.number for other in chapter.needs)
    assert "training_dynamics" in found["augmentation_at_infinite_width"].needs


def test_every_notebook_has_its_place_in_the_table_of_contents_and_in_the_table_of_run_times():
    assert {path.stem for path in places.NOTEBOOKS.glob("*.md")} == set(places.chapters())
    assert set(json.loads(notebooks.RUNS.read_text())) == set(places.chapters())


@pytest.fixture
def four(monkeypatch):
    """A book of four chapters."""
    monkeypatch.setattr(places, "chapters", lambda: ["one", "two", "three", "four"])


@pytest.mark.parametrize(
    "content, words, leads_to",
    [
        ("two", "chapter 2", ["two"]),
        ("one and four", "chapters 1 and 4", ["one", "four"]),
        ("one, three and four", "chapters 1, 3 and 4", ["one", "three", "four"]),
        ("two to four", "chapters 2 to 4", ["two", "four"]),
    ],
)
def test_a_reference_by_name_is_read_as_a_number(four, content, words, leads_to):
    for capital in (False, True):
        parts = chapters.reference(content, capital)
        said = "".join(text for text, _ in parts)
        assert said == (words.capitalize() if capital else words)
        assert [name for _, name in parts if name] == leads_to


def test_references_are_written_out_where_no_page_is_built(four):
    text = "as {chapter}`two` and {term}`orbit` say; {Chapter}`one to three`"
    assert chapters.spelled(text) == "as chapter 2 and {term}`orbit` say; Chapters 1 to 3"


def test_a_number_follows_the_order_of_the_table_of_contents(monkeypatch):
    monkeypatch.setattr(places, "chapters", lambda: ["zero", "one", "two"])
    assert chapters.reference("two") == [("chapter 3", "two")]


def test_a_reference_to_no_chapter_is_an_error_that_lists_them(four):
    with pytest.raises(ValueError, match="no chapter has the name five; there are one, two, three, four"):
        chapters.reference("one and five")


def test_no_page_and_no_problem_set_says_a_number_of_a_chapter_by_hand():
    texts = [*places.ROOT.glob("notebooks/*.md"), *places.ROOT.glob("book/*.md")]
    texts += places.ROOT.glob("coursework/problems/*.md")
    assert len(texts) > 25
    for path in texts:
        found = re.findall(r"\bchapters?\s+\d+", path.read_text(encoding="utf-8"), re.I)
        assert found == [], f"{path.name}: write {{chapter}}`name` for {found}"


def test_arrows_that_follow_from_others_are_left_out():
    needs = book(a=[], b=["a"], c=["a", "b"], d=["a"])
    assert chapters.edges(needs) == [("a", "b"), ("b", "c"), ("a", "d")]
    assert chapters.levels(needs) == {"a": 0, "b": 1, "c": 2, "d": 1}


def test_the_map_links_every_chapter_and_draws_every_arrow():
    found = chapters.read()
    drawn = chapters.drawing(found, lambda name: f"{name}.html")
    assert all(f'href="{name}.html"' in drawn for name in found)
    assert drawn.count("<path d=") - 1 == len(chapters.edges(found))  # one is the arrow's head
    assert max(text.count("<tspan") for text in drawn.split("</text>")) == 2  # a box is two lines high


@pytest.mark.parametrize(
    "needs", [chapters.read(), book(a=[], b=[], c=["a"], d=["c"], e=["a"], f=["d"], g=["f", "b", "e"])]
)
def test_no_arrow_of_the_map_crosses_a_box(needs):
    drawn = chapters.drawing(needs, str)
    boxes = re.findall(r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"', drawn)
    boxes = np.array(boxes, float) + np.array([1, 1, -2, -2])
    paths = re.findall(r'<path d="(M[^z"]+)"', drawn)
    assert len(boxes) == len(needs) and len(paths) == len(chapters.edges(needs))
    s = np.linspace(0, 1, 200)[:, None]
    for path in paths:
        at, points = None, []
        for kind, numbers in re.findall(r"([MCV])([^MCV]+)", path):
            numbers = np.array(numbers.split(), float)
            ends = numbers.reshape(-1, 2) if kind != "V" else np.array([[at[0], numbers[0]]])
            if kind != "M":  # a straight line is a curve whose control points are its end
                a, b, c = ends if kind == "C" else 3 * [ends[0]]
                points += [(1 - s) ** 3 * at + 3 * (1 - s) ** 2 * s * a + 3 * (1 - s) * s**2 * b + s**3 * c]
            at = ends[-1]
        x, y = np.concatenate(points).T[..., None]
        left, top, width, height = boxes.T
        assert not ((x > left) & (x < left + width) & (y > top) & (y < top + height)).any()


def test_a_chapter_that_does_not_say_what_it_needs_is_named(tmp_path, monkeypatch):
    (tmp_path / "one.md").write_text("# One\n\nText.\n")
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(places, "chapters", lambda: ["one"])
    with pytest.raises(ValueError, match=r"one\.md must open with"):
        chapters.read()


def test_a_citation_has_the_chapter_and_its_address():
    chapter = next(iter(chapters.read().values()))
    entry = chapters.citation(chapter, "https://ada.example/")
    assert f"{{{chapter.title}}}" in entry and f"https://ada.example/notebooks/{chapter.name}.html" in entry
