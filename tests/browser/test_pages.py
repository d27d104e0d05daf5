"""Every page of the built book in a real browser, as a reader meets it."""

import re
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

from conftest import BOOK
from tools import places

FILES = sorted(path.relative_to(BOOK) for path in BOOK.rglob("*.html"))
PAGES = [str(file) for file in FILES if file.parts[0] not in ("_static", "slides")]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
WEIGHT = 3_000_000  # bytes, before compression
PHONE = {"width": 390, "height": 844}
TYPESET = "() => !window.MathJax || MathJax.startup.promise.then(() => true)"


def open_page(context, address):
    """A page with all its formulas typeset, and what it asked for and complained of on the way."""
    page = context.new_page()
    seen = SimpleNamespace(page=page, requests=[], bad=[], complaints=[])

    def arrived(response):
        seen.requests.append(response.url)
        if response.status >= 400:
            seen.bad.append(f"{response.status} {response.url}")

    page.on("response", arrived)
    page.on("requestfailed", lambda request: seen.bad.append(f"failed {request.url}"))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("console", lambda m: seen.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(address, wait_until="networkidle")
    page.evaluate(TYPESET)
    return seen


@pytest.fixture(scope="module", params=PAGES)
def visit(request, browser, site):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    seen = open_page(context, site + request.param)
    seen.name = request.param
    yield seen
    context.close()


def test_it_loads_everything_from_its_own_site_and_without_complaint(visit, site):
    assert visit.bad == []
    assert [url for url in visit.requests if not url.startswith((site, "data:", "blob:"))] == []
    assert visit.complaints == []


def test_a_chapter_weighs_at_most_three_megabytes(visit, site):
    if visit.name in CHAPTERS:
        loaded = {urlsplit(url.removeprefix(site)).path for url in visit.requests if url.startswith(site)}
        assert {visit.name, "_static/widgets.js"} <= loaded and any("mathjax" in name for name in loaded)
        weight = sum((BOOK / name).stat().st_size for name in loaded)
        print(f"{visit.name}: {weight / 1e6:.2f} MB")  # shown by pytest -rP
        assert weight <= WEIGHT, f"{weight / 1e6:.2f} MB"


def test_every_formula_is_typeset(visit):
    untouched = visit.page.evaluate(
        """() => [...document.querySelectorAll("span.math, div.math")]
        .filter((e) => !e.querySelector("mjx-container") || e.querySelector("mjx-merror, [data-mjx-error]"))
        .map((e) => e.textContent)"""
    )
    assert untouched == []
    text = visit.page.locator("article, main").first.evaluate(
        """(e) => { const copy = e.cloneNode(true);
        copy.querySelectorAll("pre, code, mjx-container, script, noscript").forEach((n) => n.remove());
        return copy.textContent; }"""
    )
    assert re.findall(r"\\[a-zA-Z]+|\\\(|\\\[|\$\$?", text) == []


def test_no_displayed_formula_is_wider_than_its_column(visit):
    """At the width of a laptop, in folded proofs and solutions as well; on a phone it may scroll."""
    wide = visit.page.evaluate(
        """() => {
        const folded = [...document.querySelectorAll(".toggle-hidden")];
        folded.forEach((box) => box.classList.remove("toggle-hidden"));
        const formulas = [...document.querySelectorAll("div.math, div.math mjx-container")];
        const wide = formulas.filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 2);
        const found = wide.map((e) => e.textContent.slice(0, 40));
        folded.forEach((box) => box.classList.add("toggle-hidden"));
        return found; }"""
    )
    assert wide == []


def test_what_a_cell_prints_fits_its_column(visit):
    wide = visit.page.locator(".cell_output pre").evaluate_all(
        "(all) => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent.slice(0, 60))"
    )
    assert wide == []


def test_pictures_are_described_in_sentences(visit):
    for alt in visit.page.locator("article img").evaluate_all("(all) => all.map((image) => image.alt)"):
        assert len(alt.split()) >= 3 and not re.search(r"\.(png|svg|jpe?g|webp)\b", alt), alt


def test_it_fits_a_phone(visit):
    visit.page.set_viewport_size(PHONE)
    try:
        visit.page.wait_for_timeout(100)
        wide = visit.page.evaluate("document.scrollingElement.scrollWidth")
    finally:
        visit.page.set_viewport_size({"width": 1280, "height": 900})
    assert wide <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(visit, scheme):
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.evaluate("() => { document.documentElement.dataset.mode = 'auto'; }")
    visit.page.evaluate(f"() => {{ document.documentElement.dataset.theme = '{scheme}'; }}")
    visit.page.wait_for_timeout(300)  # colours fade
    # the passes, node by node, take longer to carry over than to find
    options = {"preload": False, "resultTypes": ["violations"]}
    found = Axe().run(visit.page, options=options).response["violations"]
    serious = [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in found
        for node in violation["nodes"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


SLIDERS = ".interactive-figure:not(:has(.playground))"


def look(figure):
    """What a figure shows: its drawing, the slider's position in words, and its caption."""
    return figure.evaluate(
        """(e) => [e.querySelector("svg, img").outerHTML,
        e.querySelector("input").getAttribute("aria-valuetext"),
        e.querySelector("figcaption").textContent]"""
    )


def test_interactive_figures_answer_to_mouse_and_keyboard(visit):
    figures = visit.page.locator(SLIDERS).all()
    playgrounds = visit.page.locator(".playground").count()  # test_playground.py plays with them
    assert len(figures) + playgrounds == visit.page.locator("script[type$='widget-view+json']").count()
    assert figures or visit.name not in CHAPTERS
    for figure in figures:
        slider = figure.locator("input")
        slider.scroll_into_view_if_needed()
        start = look(figure)
        last = slider.evaluate("(e) => Number(e.value) === Number(e.max)")
        for _ in range(slider.evaluate("(e) => Number(e.max)")):
            slider.press("ArrowLeft" if last else "ArrowRight")
            drawing, position, _ = look(figure)  # two positions may have the same caption
            assert position != start[1]
            if drawing != start[0]:  # late times look alike
                break
        else:
            raise AssertionError("the drawing is the same at every position")
        box = slider.bounding_box()
        ends = box["x"] + 0.02 * box["width"], box["x"] + 0.98 * box["width"]
        height = box["y"] + box["height"] / 2
        shown = []
        for end in ends:
            visit.page.mouse.move(box["x"] + box["width"] / 2, height)
            visit.page.mouse.down()
            visit.page.mouse.move(end, height, steps=5)
            visit.page.mouse.up()
            shown.append(look(figure))
        assert all(first != last for first, last in zip(*shown, strict=True))


@pytest.mark.parametrize("name", CHAPTERS)
def test_interactive_figures_answer_to_touch(browser, site, name):
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = open_page(context, site + name).page
    for figure in page.locator(SLIDERS).all():
        slider = figure.locator("input")
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        shown = []
        for part in (0.05, 0.95):
            page.touchscreen.tap(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
            shown.append(look(figure))
        assert shown[0] != shown[1]
    context.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_without_scripts_a_chapter_shows_still_pictures_and_opens_its_solutions(browser, site, name):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site + name)
    stills = page.locator(".cell_output noscript img").all()
    assert len(stills) == page.locator("script[type$='widget-view+json']").count() > 0
    for still in stills:
        assert still.is_visible() and len(still.get_attribute("alt").split()) >= 3
    for solution in page.locator("div.solution.dropdown").all():
        assert solution.locator("p").last.is_visible()
    context.close()


def test_a_slow_script_of_the_figures_does_not_keep_the_text_from_the_reader(browser, site):
    context = browser.new_context()
    page = context.new_page()
    page.route("**/widgets.js*", lambda route: (time.sleep(3), route.continue_()))
    page.goto(site + CHAPTERS[0], wait_until="commit")
    page.locator("article h1").wait_for(timeout=2500)
    painted = page.evaluate(
        """() => new Promise((done) => new PerformanceObserver((list) => done(list.getEntries()[0].startTime))
        .observe({ type: "paint", buffered: true }))"""
    )
    assert painted < 2500
    page.locator(".interactive-figure input").first.wait_for()  # it comes all the same
    context.close()


def test_a_folded_solution_opens_and_closes_by_keyboard(visit):
    if visit.name not in CHAPTERS:
        return
    page = visit.page
    solution = page.locator("div.solution.dropdown").first
    button = solution.locator("button.toggle-button").first
    inside = solution.locator("section, .solution-content, p:not(.admonition-title)").last
    assert not inside.is_visible()
    button.focus()
    page.keyboard.press("Enter")
    inside.wait_for(state="visible", timeout=3000)
    page.keyboard.press("Enter")
    inside.wait_for(state="hidden", timeout=3000)


def test_folded_code_opens_by_keyboard_and_mouse_and_eighty_characters_fit(visit):
    if visit.name not in CHAPTERS:
        return
    page = visit.page
    folded = page.locator("details.hide.above-input").all()
    for cell in folded:
        code, switch = cell.locator(".cell_input pre"), cell.locator("summary")
        assert not code.is_visible()
        switch.focus()
        page.keyboard.press("Enter")
        code.wait_for(state="visible", timeout=3000)
    scrolling = page.evaluate(
        """() => [...document.querySelectorAll(".cell_input pre")].filter((pre) =>
        pre.textContent.split("\\n").every((line) => [...line].length <= 80) &&
        pre.scrollWidth > pre.clientWidth).map((pre) => pre.textContent.slice(0, 80))"""
    )
    assert scrolling == []
    for cell in folded:
        cell.locator("summary").click()
        cell.locator(".cell_input pre").wait_for(state="hidden", timeout=3000)


@pytest.fixture
def visit_fresh(browser, site):
    """Opens a page as on a first visit."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield lambda name: open_page(context, site + name).page
    context.close()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("NTK", "glossary"),
        ("Θ", "glossary"),
        ("orbit", "glossary"),
        ("mlp_kernel", "api"),
        ("Burnside", "groups"),
    ],
)
def test_search_finds_symbols_by_name(visit_fresh, site, asked, expected):
    page = visit_fresh(f"search.html?q={asked}")
    page.locator("ul.search li a").first.wait_for(timeout=10_000)
    found = page.locator("ul.search li a").evaluate_all("(all) => all.map((a) => a.href)")
    assert any(expected in address for address in found[:10]), found


def test_solutions_are_printed_unfolded(visit_fresh):
    page = visit_fresh(CHAPTERS[0])
    page.emulate_media(media="print")
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    for solution in page.locator("div.solution.dropdown").all():
        assert solution.locator("p").last.is_visible()


def test_a_chapter_opens_in_colab_and_on_binder(visit):
    if visit.name not in CHAPTERS:
        return
    links = visit.page.locator("a[href]").evaluate_all("(all) => all.map((a) => a.href)")
    source = visit.name.replace(".html", ".ipynb")
    repository = next(link for link in links if "github.com" in link and "/issues" not in link)
    owner = "/".join(repository.split("/")[3:5])
    assert (BOOK / source).exists()
    assert f"https://colab.research.google.com/github/{owner}/blob/{places.branch()}/{source}" in links
    assert f"https://mybinder.org/v2/gh/{owner}/{places.branch()}?urlpath=lab/tree/{source}" in links
