"""The map of the book follows from what the chapters say they need."""

import pytest

from tools import chapters
from tools.chapters import Chapter


def book(**needs):
    return {name: Chapter(name, f"Title {name}", tuple(others)) for name, others in needs.items()}


def test_every_chapter_is_read_and_needs_only_earlier_ones():
    found = chapters.read()
    assert len(found) == 12 and found["augmentation_at_infinite_width"].number == 8
    for chapter in found.values():
        assert all(found[other].number < chapter.number for other in chapter.needs)
    assert "training_dynamics" in found["augmentation_at_infinite_width"].needs


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


def test_a_chapter_that_does_not_say_what_it_needs_is_named(tmp_path, monkeypatch):
    (tmp_path / "01_one.md").write_text("# One\n\nText.\n")
    monkeypatch.setattr(chapters.notebooks, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"01_one\.md must open with"):
        chapters.read()


def test_a_citation_has_the_chapter_and_its_address():
    chapter = next(iter(chapters.read().values()))
    entry = chapters.citation(chapter, "https://ada.example/")
    assert f"{{{chapter.title}}}" in entry and f"https://ada.example/notebooks/{chapter.name}.html" in entry
