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
    assert all(url.startswith((site, "data:", "blob:")) for url in deck.requests)
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


def test_the_first_slide_is_the_playground_and_answers_to_arrow_keys_itself(browser, site):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = open_page(context, site + "slides/index.html").page
    page.locator(".playground[data-ready]").wait_for(timeout=20_000)
    point = page.locator(".playground .point").first
    point.focus()
    before = point.get_attribute("transform")
    page.keyboard.press("ArrowRight")
    assert point.get_attribute("transform") != before
    assert page.evaluate("Reveal.getIndices().h") == 0
    box = page.locator(".playground .plane").bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    added = page.locator(".playground .point").last.get_attribute("transform")
    x, y = map(float, added.removeprefix("translate(").removesuffix(")").split(","))
    assert abs(x + 0.5) < 0.03 and abs(y - 0.5) < 0.03
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(600)
    step = page.locator(".playground").get_attribute("data-step")
    page.wait_for_timeout(600)
    assert page.locator(".playground").get_attribute("data-step") == step  # out of sight it stops
    context.close()
