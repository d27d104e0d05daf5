"""The deck that `make slides` writes."""

import pytest
from test_pages import TYPESET, open_page


@pytest.fixture(scope="module")
def deck(browser, site):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield open_page(context, site + "slides/index.html")
    context.close()


def test_the_deck_needs_no_other_host_and_typesets_its_formulas(deck, site):
    assert deck.bad == [] and deck.complaints == []
    assert all(url.startswith((site, "data:")) for url in deck.requests)
    deck.page.evaluate(TYPESET)
    assert deck.page.locator("mjx-container").count() > 40
    assert deck.page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_arrow_keys_lead_through_all_slides_and_each_fits(deck):
    sections = deck.page.locator(".slides > section").count()
    assert sections == deck.page.evaluate("Reveal.getTotalSlides()") >= 25
    for number in range(sections):
        assert deck.page.evaluate("Reveal.getIndices().h") == number
        assert deck.page.evaluate("document.querySelector('section.present').scrollHeight") <= 700
        images = "[...document.querySelectorAll('section.present img')]"
        assert deck.page.evaluate(f"{images}.every((image) => image.complete && image.naturalWidth > 0)")
        deck.page.keyboard.press("ArrowRight")
