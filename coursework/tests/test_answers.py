"""Every task's tests against the solution, the stub, wrong answers and other right ones."""

import functools

import pytest

from coursework import answers, source

VARIANTS = [2027]


@functools.cache
def tried(name, variant=None):
    return answers.verdicts(name, variant)


def tasks(name):
    return [
        cell.metadata.nbgrader.grade_id.removeprefix("test-")
        for cell in source.read(name).cells
        if source.is_test(cell)
    ]


TASKS = [(name, task) for name in source.names() for task in tasks(name)]
CASES = [(name, task, kind, "") for name, task in TASKS for kind in ("solution", "stub")]
CASES += [(name, a.task, a.kind, a.title) for name in source.names() for a in answers.known(name)]


@pytest.mark.parametrize("name, task, kind, title", CASES)
def test_answer_gets_what_it_deserves(name, task, kind, title):
    (*_, verdict) = [
        v
        for v in tried(name)
        if v.answer.task == task and v.answer.kind == kind and (not title or v.answer.title == title)
    ]
    assert verdict.as_expected, f"{verdict.points} of {verdict.of} points; the test says {verdict.message!r}"


@pytest.mark.parametrize("name, task", TASKS)
def test_a_task_is_tried_with_four_wrong_answers_and_two_other_right_ones(name, task):
    kinds = [answer.kind for answer in answers.known(name) if answer.task == task]
    assert kinds.count("wrong") >= 4
    assert kinds.count("right") >= 2


@pytest.mark.variant
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", source.names())
def test_a_variant_keeps_the_tests_valid(name, variant):
    assert [v for v in tried(name, variant) if not v.as_expected] == []


@pytest.mark.parametrize("name", source.names())
def test_a_variant_changes_most_tasks(name):
    texts = [
        {c.metadata.nbgrader.grade_id: c.source for c in source.read(name, v).cells if source.is_test(c)}
        for v in (None, *VARIANTS, 2028)
    ]
    changed = [task for task in texts[0] if len({text[task] for text in texts}) == len(texts)]
    assert len(changed) >= len(texts[0]) / 2, f"only {changed} differ"


def test_a_wrong_answer_must_name_the_words_of_its_test(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "FOLDER", tmp_path)
    (tmp_path / "ps1_answers.py").write_text("# %% move: wrong, forgot the inverse\nmove = None\n")
    with pytest.raises(source.SourceError, match="needs the test's words in quotes"):
        answers.known("ps1")
