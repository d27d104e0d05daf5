import pytest

from tools import places
from tools.site.check import check_launches, check_links, main, read_page

GOOD = """<link rel="stylesheet" href="book.css"><link rel="icon" href="icon.svg">
<a href="page.html#s">solution</a><a href="https://example.org">read</a>
<img src="a/curve.png" alt="A falling curve."><script>import("./widget.js")</script>
<div class="solution dropdown admonition" id="s">
<p class="admonition-title">Solution</p>"""


def problems(folder, html):
    page = folder / "page.html"
    page.write_text(html)
    read = read_page(page)
    check_links({page.resolve(): read})
    return read.problems


def test_a_page_in_order_has_no_problem(tmp_path):
    assert problems(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    "old, new, said",
    [
        (' alt="A falling curve."', "", "no alt text"),
        ("A falling curve.", "", "empty alt text"),
        ("A falling curve.", "curve.png", "file name as alt text"),
        ('<link rel="icon" href="icon.svg">', "", "no icon"),
        ('href="book.css"', 'href="https://example.org/book.css"', "another host"),
        ('src="a/curve.png"', 'src="//example.org/curve.png"', "another host"),
        ("./widget.js", "https://example.org/widget.js", "another host"),
        ('<p class="admonition-title">Solution</p>', "<p>Proof.</p>", "no title"),
        ("page.html#s", "other.html", "leads to no file"),
        ("page.html#s", "#t", "no place on that page"),
    ],
)
def test_a_page_with_a_problem_is_found(tmp_path, old, new, said):
    found = problems(tmp_path, GOOD.replace(old, new))
    assert len(found) == 1 and said in found[0]


def test_links_to_other_hosts_are_listed_once(tmp_path, capsys):
    folder = tmp_path / "html"
    folder.mkdir()
    for name in ("one.html", "two.html"):
        (folder / name).write_text(
            '<link rel="icon" href="icon.svg"><a href="https://example.org/a">a</a><a href="one.html">one</a>'
        )
    assert main(str(folder)) == 0
    assert "2 pages" in capsys.readouterr().out
    assert (tmp_path / "external_links.txt").read_text() == "https://example.org/a\n"


COLAB = "https://colab.research.google.com/github"


@pytest.mark.parametrize(
    "link, said",
    [
        (f"{COLAB}/REPOSITORY/blob/BRANCH/notebooks/one.ipynb", None),
        ("https://mybinder.org/v2/gh/REPOSITORY/BRANCH?urlpath=lab/tree/notebooks/one.ipynb", None),
        (f"{COLAB}/REPOSITORY/blob/BRANCH/notebooks/two.ipynb", "not built"),
        ("https://mybinder.org/v2/gh/REPOSITORY/BRANCH?urlpath=lab/tree/one.ipynb", "not built"),
        (f"{COLAB}/REPOSITORY/blob/main/notebooks/one.ipynb", "opens nothing"),
        ("https://mybinder.org/v2/gh/REPOSITORY/main?urlpath=lab/tree/notebooks/one.ipynb", "opens nothing"),
        ("https://mybinder.org/v2/gh/REPOSITORY/BRANCH?filepath=notebooks/one.ipynb", "opens nothing"),
        (f"{COLAB}/somebody/else/blob/BRANCH/notebooks/one.ipynb", "opens nothing"),
    ],
)
def test_a_link_to_colab_or_binder_opens_a_notebook_that_is_published(tmp_path, link, said):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "one.ipynb").touch()
    repository = places.repository().removeprefix("https://github.com/")
    page = tmp_path / "page.html"
    link = link.replace("REPOSITORY", repository).replace("BRANCH", places.branch())
    page.write_text(f'<link rel="icon" href="icon.svg"><a href="{link}">open</a>')
    read = read_page(page)
    check_launches({page: read}, tmp_path)
    assert [said in problem for problem in read.problems] == ([True] if said else [])


SECRET = """number = {tuple(p): g for g, p in enumerate(np.asarray(permutations).tolist())}
    return np.array([[number[tuple(g[h])] for h in permutations] for g in np.asarray(permutations)])"""


@pytest.mark.parametrize(
    "name, text",
    [
        ("page.html", SECRET),
        ("page.html", SECRET.replace("number", '<span class="n">number</span>')),
        ("searchindex.js", SECRET),
        ("coursework/ps1.ipynb", SECRET),
    ],
)
def test_a_solution_in_the_site_is_found(tmp_path, capsys, name, text):
    (tmp_path / "coursework").mkdir()
    (tmp_path / "page.html").write_text(
        GOOD.replace('href="page.html#s"', 'href="#s"').replace("book.css", "page.html")
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "curve.png").write_bytes(b"")
    folder = str(tmp_path)
    assert main(folder) == 0
    with (tmp_path / name).open("a") as file:
        file.write(text)
    assert main(folder) == 1
    assert f"{name} gives away what is in ps1, cayley_table" in capsys.readouterr().err
