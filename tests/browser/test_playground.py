"""The playground on the book's first page, played with as a reader plays."""

import json
import subprocess
from types import SimpleNamespace

import pytest
from test_pages import PHONE, open_page

from tools import places

INTRO = "book/intro.html"


@pytest.fixture
def visit(browser, site):
    """Opens the page as on a first visit; without complaint, whatever is done there."""
    opened = []

    def visit(address="", **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 1300}} | options))
        seen = open_page(context, site + INTRO + address)
        seen.page.locator(".playground[data-ready]").wait_for(timeout=60_000)
        opened.append((context, seen))
        return seen.page

    yield visit
    for context, seen in opened:
        assert seen.complaints == [] and seen.bad == []
        context.close()


def play(page, what, argument=None):
    """A line of JavaScript about the playground p and its simulation s."""
    start = "(a) => { const p = document.querySelector('.playground').playground, s = p.simulation; return "
    return page.evaluate(start + what + "; }", argument)


def settle(page, step=0, **scene):
    """Sets a scene and trains it for at least so many steps, to the end of a batch."""
    play(page, "p.run(false)")
    play(page, "p.set(a)", scene)
    play(page, f"p.run({'true' if step else 'false'})")
    page.wait_for_function(
        """(step) => { const { simulation } = document.querySelector('.playground').playground;
        return simulation.ready && simulation.measured && simulation.step >= step; }""",
        arg=step,
        timeout=60_000,
    )
    play(page, "p.run(false)")
    before = None
    while before != (before := play(page, "s.step")):  # until the batch is finished
        page.wait_for_timeout(250)


def measured(page):
    """Spreads of the trained networks, and of the closed form low, middle and high, by number of networks."""
    found = play(page, "s.measured.map(({ m, repeats, spread }) => ({ m, spread, repeats }))")
    theory = play(page, "s.theory")
    return SimpleNamespace(by_size={one["m"]: one["spread"] for one in found}, **theory)


def band(page, m, repeats=1):
    return page.evaluate(
        """async ([m, repeats]) => {
        const state = document.querySelector("script[type$='widget-state+json']").textContent;
        const source = Object.values(JSON.parse(state).state)[0].state._esm;
        const blob = new Blob([source], { type: "text/javascript" });
        const module = await import(URL.createObjectURL(blob));
        return module.band(document.querySelector(".playground").playground.simulation.theory, m, repeats);
        }""",
        [m, repeats],
    )


def field(page):
    return play(page, "[...s.field]")


def centre(page, mark):
    box = page.locator(mark).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


POINT = ".playground .point >> nth=0"


def said(page):
    page.wait_for_timeout(50)
    return page.locator(".playground [aria-live]").inner_text()


def test_a_dragged_point_takes_its_orbit_and_the_map_along(visit):
    page = visit()
    settle(page, show="infinite", step=200)
    before = field(page), page.locator(".playground .plane g[aria-hidden]").inner_html()
    x, y = centre(page, POINT)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 60, steps=8)
    page.mouse.up()
    page.wait_for_timeout(1500)
    after = field(page), page.locator(".playground .plane g[aria-hidden]").inner_html()
    width = page.locator(".playground .plane").bounding_box()["width"]
    assert play(page, "p.scene.points[0]") == pytest.approx(
        [0.6 + 60 / width, 0.15 - 120 / width, 1], abs=0.02
    )
    assert max(abs(a - b) for a, b in zip(before[0], after[0], strict=True)) > 0.3
    assert before[1] != after[1] and before[1].count("<circle") == after[1].count("<circle") == 9
    assert "point 1 of 3" in said(page)


def test_points_are_added_and_removed_by_mouse(visit):
    page = visit()
    box = page.locator(".playground .plane").bounding_box()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.9 * box["height"])
    assert play(page, "p.scene.points.length") == 4 and "point 4 added" in said(page)
    assert play(page, "p.scene.points[3].slice(0, 2)") == pytest.approx([-0.6, -0.8], abs=0.02)
    page.mouse.dblclick(*centre(page, ".playground .point >> nth=4"))  # the diamond is nth=3
    assert play(page, "p.scene.points.length") == 3 and "removed" in said(page)


def test_one_network_is_lopsided_within_the_bounds_of_theory(visit):
    page = visit()
    inside, sizes = 0, []
    for seed in range(1, 13):
        settle(page, networks=1, show="one", seed=seed, step=300)
        low, _, high = band(page, 1)
        sizes.append(measured(page).by_size[1])
        inside += low <= sizes[-1] <= high
    assert inside >= 10, sizes
    assert min(sizes) > 0.05 and play(page, "s.theory.floor") < 1e-20


def test_the_mean_of_many_follows_the_closed_form(visit):
    page = visit()
    settle(page, networks=256, width=128, step=150)
    found = measured(page)
    for m in (1, 4, 16, 64, 256):
        low, middle, high = band(page, m, 256 // m)
        slack = 0.1 * middle  # finite width
        assert low - slack <= found.by_size[m] <= high + slack, m
    assert found.by_size[256] < 0.12 * found.by_size[1]


def test_without_augmentation_the_mean_stays_where_theory_says(visit):
    page = visit()
    settle(page, networks=256, augmentation="none", step=150)
    found = measured(page)
    plateau = found.floor**0.5
    assert plateau > 0.3
    assert found.by_size[256] == pytest.approx(plateau, rel=0.15)
    assert found.by_size[256] > 0.3 * found.by_size[1]
    assert "infinite ensemble" in page.locator(".playground figcaption").inner_text()


def asymmetry(page):
    """The largest difference between the map and the map turned by 90 degrees."""
    values = field(page)
    side = round(len(values) ** 0.5)
    turned = [values[column * side + side - 1 - row] for row in range(side) for column in range(side)]
    return max(abs(a - b) for a, b in zip(values, turned, strict=True))


@pytest.mark.parametrize(
    ("name", "symmetric"),
    [
        ("Far from the data", True),
        ("Half the orbit", False),
        ("Uneven start", False),
        ("C8 from C4's data", True),  # under quarter turns, not under its own group
    ],
)
def test_each_preset_shows_its_point(visit, name, symmetric):
    page = visit()
    page.get_by_role("button", name=name).click()
    page.wait_for_function("() => document.querySelector('.playground').playground.simulation.step > 200")
    play(page, "p.run(false)")
    page.wait_for_timeout(200)
    assert page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
    assert name in said(page)
    assert (asymmetry(page) < 1e-8) == symmetric
    assert (play(page, "s.theory.floor") < 1e-16) == (name == "Far from the data")


def test_one_lopsided_network_and_the_mean_of_64(visit):
    page = visit()
    page.get_by_role("button", name="One lopsided network").click()
    page.wait_for_function("() => document.querySelector('.playground').playground.simulation.step > 200")
    play(page, "p.run(false)")
    page.wait_for_timeout(200)
    one = asymmetry(page)
    settle(page, networks=64, show="mean", step=250)
    assert one > 1 and 1e-3 < asymmetry(page) < one / 4


def test_everything_is_done_by_keyboard_alone(visit):
    page = visit(reduced_motion="reduce")
    page.get_by_role("button", name="One lopsided network").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if "point 1 of 3" in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
            break
    else:
        raise AssertionError("Tab does not lead to the points")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert play(page, "p.scene.points[0]") == pytest.approx([0.65, 0.16, 1])
    assert said(page) == "at +0.65, +0.16"
    page.keyboard.press("-")
    assert play(page, "p.scene.points[0][2]") == -1 and said(page) == "label −1"
    page.keyboard.press("Delete")
    assert play(page, "p.scene.points.length") == 2 and said(page) == "point 1 removed, 2 left"
    assert "point 1 of 2" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.get_by_role("button", name="Add a point").focus()
    page.keyboard.press("Enter")
    assert play(page, "p.scene.points.length") == 3 and "point 3 added" in said(page)
    page.keyboard.press("ArrowLeft")  # it has the focus
    assert said(page).startswith("at ")
    step = play(page, "s.step")
    page.get_by_role("button", name="Step").focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(500)
    assert play(page, "s.step") == step + 1
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(800)
    page.keyboard.press("Space")
    assert play(page, "s.step") > step + 1
    page.get_by_label("group").focus()
    page.keyboard.type("D3")
    assert play(page, "p.scene.group") == "D3" and play(page, "s.asked.length") == 12
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert play(page, "s.step") == 0 and said(page) == "back at the start"


def test_a_finger_moves_and_adds_points(visit):
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    page.locator(".playground .plane").scroll_into_view_if_needed()
    play(page, "p.run(false)")
    box = page.locator(".playground .plane").bounding_box()
    page.touchscreen.tap(box["x"] + 0.1 * box["width"], box["y"] + 0.15 * box["height"])
    page.wait_for_timeout(100)
    assert play(page, "p.scene.points[3].slice(0, 2)") == pytest.approx([-0.8, 0.7], abs=0.02)
    session = page.context.new_cdp_session(page)
    x, y = centre(page, ".playground .point >> nth=4")
    for kind, move in [("touchStart", 0), ("touchMove", 20), ("touchMove", 60), ("touchEnd", 0)]:
        points = [] if kind == "touchEnd" else [{"x": x + move, "y": y + move}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_timeout(200)
    far = 120 / box["width"]
    assert play(page, "p.scene.points[3].slice(0, 2)") == pytest.approx([-0.8 + far, 0.7 - far], abs=0.03)


def test_a_linked_scene_opens_as_it_was(visit):
    page = visit()
    scene = dict(group="D5", augmentation="half", networks=8, width=16, depth=2, activation="erf", seed=7)
    play(page, "p.set(a)", scene | {"points": [[0.25, -0.5, -0.5], [0.1, 0.2, 1]], "asked": [-0.4, 0.9]})
    page.wait_for_timeout(400)
    address = page.evaluate("location.hash")
    assert "group=D5" in address and "points=0.25,-0.5,-0.5;0.1,0.2,1" in address
    opened = visit(address)
    assert play(opened, "p.scene") == play(page, "p.scene")
    assert opened.get_by_label("group").input_value() == "D5"
    play(opened, "p.run(false)")
    opened.evaluate("() => { location.hash = '#playground?group=C3&networks=2'; }")
    opened.wait_for_timeout(300)
    assert play(opened, "[p.scene.group, p.scene.networks]") == ["C3", 2]


@pytest.mark.parametrize(
    "address",
    [
        "#playground?group=Q99&points=a,b;;1&asked=&networks=1e9&width=-4&depth=x",
        "#playground?",
        "#how-to-use-it",
    ],
)
def test_an_address_that_says_nonsense_does_no_harm(visit, address):
    page = visit(address)
    scene = play(page, "p.scene")
    assert scene["group"][0] in "CD" and 1 <= scene["networks"] <= 256 and 4 <= scene["width"] <= 128


def test_a_first_visit_leaves_the_address_alone(visit):
    page = visit()
    page.wait_for_timeout(600)
    assert page.evaluate("location.hash") == ""


def test_it_stops_off_screen_and_in_a_hidden_tab_and_goes_on(visit):
    page = visit()
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(400)
    stopped = play(page, "s.step")
    page.wait_for_timeout(500)
    assert play(page, "s.step") == stopped
    page.evaluate("() => window.scrollTo(0, 0)")
    page.wait_for_function(
        "(step) => document.querySelector('.playground').playground.simulation.step > step", arg=stopped
    )
    page.evaluate(
        """() => { Object.defineProperty(document, "hidden", { get: () => window.away, configurable: true });
        window.away = true; document.dispatchEvent(new Event("visibilitychange")); }"""
    )
    page.wait_for_timeout(300)
    stopped = play(page, "s.step")
    page.wait_for_timeout(500)
    assert play(page, "s.step") == stopped
    page.evaluate("() => { window.away = false; document.dispatchEvent(new Event('visibilitychange')); }")
    page.wait_for_function(
        "(step) => document.querySelector('.playground').playground.simulation.step > step", arg=stopped
    )


def test_it_starts_paused_for_who_prefers_less_motion(visit):
    page = visit(reduced_motion="reduce")
    page.wait_for_timeout(500)
    assert play(page, "s.step") == 0
    assert page.get_by_role("button", name="Play").is_visible()
    assert len(field(page)) == 64**2  # and yet there is something to see


CLUSTER = [[0.6, 0.15, 1], [0.45, 0.7, -1], [0.2, 0.15, 1], [0.8, 0.8, -1], [0.1, 0.9, 1], [0.5, 0.5, -1],
           [0.3, 0.4, 1], [0.9, 0.1, -1]]  # fmt: skip


def test_sixty_four_networks_are_trained_and_drawn_at_once(visit):
    """How fast is printed, with -s; a busy machine would fail a limit."""
    page = visit()
    play(page, "p.set(a)", {"networks": 64, "width": 64, "points": CLUSTER})
    assert play(page, "s.y.length") == 32
    page.wait_for_timeout(1500)
    seconds, frames, steps, longest, drawing = page.evaluate(
        """async () => {
        const { simulation, profile } = document.querySelector(".playground").playground;
        const frames = profile.frames, step = simulation.step, start = performance.now();
        profile.longest = profile.drawing = 0;
        await new Promise((done) => setTimeout(done, 1500));
        return [(performance.now() - start) / 1000, profile.frames - frames, simulation.step - step,
            profile.longest, profile.drawing];
        }"""
    )
    rates = f"{frames / seconds:.0f} frames and {steps / seconds:.0f} steps a second"
    print(f"{rates}, longest slice {longest:.1f} ms, longest drawing {drawing:.1f} ms")
    assert steps >= frames > 0


def test_memory_is_flat_over_ten_thousand_steps(visit):
    page = visit()
    session = page.context.new_cdp_session(page)
    play(page, "p.set(a)", {"networks": 8, "width": 16})
    play(page, "p.run(true)")

    def used(step):
        page.wait_for_function(
            "(step) => document.querySelector('.playground').playground.simulation.step >= step",
            arg=step,
            timeout=120_000,
        )
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"]

    early, late = used(500), used(10_000)
    print(f"{early / 1e6:.2f} MB after 500 steps, {late / 1e6:.2f} MB after 10,000")
    assert late - early < 300_000


def test_the_python_that_is_copied_computes_the_same_scene(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for scene in (
        dict(group="C4", augmentation="half", networks=4, width=16),
        dict(group="D3", augmentation="full", start="uneven", activation="erf", depth=2, networks=2, width=8),
    ):
        settle(page, step=30, **scene)
        page.get_by_role("button", name="Copy as Python").click()
        page.wait_for_timeout(100)
        code = page.evaluate("navigator.clipboard.readText()")
        assert said(page) == "Python code copied"
        made = play(page, "[s.eta, s.step, s.theory.own, s.theory.floor]")
        check = """
own = covariance.trace() / len(asked) - covariance.mean()
print(own, mean.var(), answers.shape[0])
"""
        done = subprocess.run(
            [places.ROOT / ".venv" / "bin" / "python", "-c", code + check],
            capture_output=True, text=True, cwd=places.ROOT, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        own, floor, members = map(float, done.stdout.strip().splitlines()[-1].split())
        assert own == pytest.approx(made[2], abs=1e-9) and floor == pytest.approx(made[3], abs=1e-9)
        assert members == scene["networks"]
        assert len([line for line in code.splitlines() if line]) <= 24


def test_without_leave_to_use_the_clipboard_the_code_is_shown(visit):
    page = visit()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    page.get_by_role("button", name="Copy as Python").click()
    assert page.get_by_label("Python code").input_value().startswith("import jax")


def test_without_scripts_there_is_a_still_picture_and_a_sentence(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site + INTRO)
    still = page.locator("noscript img")
    assert still.is_visible() and still.evaluate("(e) => e.complete && e.naturalWidth") > 500
    assert "infinite ensemble is exactly so" in page.locator("noscript p").inner_text()
    context.close()


def test_in_print_the_map_stays_and_the_controls_go(visit):
    page = visit()
    page.emulate_media(media="print")
    assert (
        page.locator(".playground canvas").is_visible()
        and page.locator(".playground figcaption").is_visible()
    )
    assert not page.locator(".playground button").first.is_visible()


def test_on_paper_a_still_picture_takes_the_place_of_one_that_was_never_on_the_screen(browser, site):
    page = browser.new_page(viewport={"width": 1280, "height": 700})
    page.goto(site + "notebooks/mean_is_ensemble.html", wait_until="networkidle")
    for _ in range(2):  # a browser may announce it twice
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    still = page.locator(".interactive-figure > .still")
    assert still.count() == 1 and not page.locator(".playground").is_visible()
    assert "64 networks" in still.inner_text()
    still.scroll_into_view_if_needed()
    still.locator("img").evaluate("(e) => e.decode()")
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert still.count() == 0
    page.locator(".playground[data-ready]").wait_for(timeout=60_000)
    page.close()


def test_the_state_of_the_page_is_one_scene_and_the_source(visit):
    page = visit()
    state = json.loads(page.locator("script[type$='widget-state+json']").text_content())["state"]
    assert len(state) == 1 and len(next(iter(state.values()))["state"]["_esm"].encode()) <= 60_000
