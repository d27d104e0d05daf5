import pytest

from tools.check_build import check_page

GOOD = """<link rel="stylesheet" href="book.css"><a href="https://example.org">read</a>
<img src="a/curve.png" alt="A falling curve."><script>import("./widget.js")</script>
<div class="solution dropdown admonition" id="s">
<p class="admonition-title">Solution</p>"""


def problems(folder, html):
    page = folder / "page.html"
    page.write_text(html)
    return check_page(page)


def test_a_page_in_order_has_no_problem(tmp_path):
    assert problems(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    "old, new, said",
    [
        (' alt="A falling curve."', "", "no alt text"),
        ("A falling curve.", "", "empty alt text"),
        ("A falling curve.", "curve.png", "file name as alt text"),
        ('href="book.css"', 'href="https://example.org/book.css"', "another host"),
        ('src="a/curve.png"', 'src="//example.org/curve.png"', "another host"),
        ("./widget.js", "https://example.org/widget.js", "another host"),
        ('<p class="admonition-title">Solution</p>', "<p>Proof.</p>", "no title"),
    ],
)
def test_a_page_with_a_problem_is_found(tmp_path, old, new, said):
    found = problems(tmp_path, GOOD.replace(old, new))
    assert len(found) == 1 and said in found[0]
