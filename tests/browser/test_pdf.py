"""The printed book."""

import io

from pypdf import PdfReader

from tools import places
from tools.site import pdf


def test_every_page_of_the_table_of_contents_is_printed():
    names = [name for _, name in places.contents()]
    assert names[0] == "book/intro" and "notebooks/augmentation_at_infinite_width" in names
    assert all((places.BUILT / f"{name}.html").exists() for name in names)


def test_a_printed_chapter_goes_on_with_the_numbers_and_has_figures_proofs_and_solutions(browser, site):
    page = browser.new_page()
    page.goto(f"{site}notebooks/empirical_ntk.html", wait_until="networkidle")
    page.evaluate("() => MathJax.startup.promise.then(() => true)")
    sheets = PdfReader(io.BytesIO(pdf.printed(page, 46))).pages
    page.close()
    text = [sheet.extract_text() for sheet in sheets]
    assert all(str(number) in words.split() for number, words in enumerate(text, 46))
    whole = " ".join(" ".join(text).split())
    assert "Proof" in whole and "Solution to Exercise" in whole
    assert whole.count("Fig.") >= 2 and sum(len(sheet.images) for sheet in sheets) >= 2
