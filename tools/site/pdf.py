"""The whole book as one PDF, printed from the built pages by Chromium: `make pdf`.

Every page is printed as a reader sees it, with its solutions unfolded, and numbered on from the one before.
In front come a title page and a table of contents; links between pages lead to pages of the PDF.
"""

from __future__ import annotations

import html
import io
import shutil
import sys
from datetime import date

from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject

from tools import places
from tools.site.server import serve

TARGET = places.BUILT / "symmetries-ntk.pdf"
CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]

STYLE = """
@page { size: A4; margin: 20mm 18mm 20mm; @bottom-center { content: counter(page); font: 10pt sans-serif; } }
html { counter-reset: page %d; font-size: 13px; }
body, .bd-main, .bd-content, .bd-article-container { display: block; max-width: none; padding: 0; margin: 0; }
.bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-footer, .prev-next-footer,
.prev-next-area, .headerlink, .toggle-button, #jb-print-docs-body, .skip-link, #pst-back-to-top, details.cite,
.interactive-figure label, .copybtn { display: none !important; }
div.highlight pre { font-size: 0.66rem; white-space: pre-wrap; overflow: visible; }
figure, .interactive-figure, table, div.math, .cell_output img { break-inside: avoid; }
figure img { max-height: 12cm; width: auto; max-width: 100%%; }
h1, h2, h3 { break-after: avoid; }
a { text-decoration: none; }
"""


def printed(page, first: int) -> bytes:
    """An open page as a PDF whose pages are numbered from `first`."""
    page.emulate_media(media="print", color_scheme="light")
    page.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")
    page.add_style_tag(content=STYLE % (first - 1))
    page.evaluate(
        """() => {
        document.querySelectorAll(".toggle-hidden").forEach((e) => e.classList.remove("toggle-hidden"));
        document.querySelectorAll("details").forEach((e) => { e.open = true; });
        dispatchEvent(new Event("beforeprint"));
        return Promise.all([...document.querySelectorAll(".still img")].map((e) => e.decode()));
        }"""
    )
    return page.pdf(prefer_css_page_size=True, print_background=True, tagged=True)


def front(page, entries: list[tuple[str | None, str, int]], address: str) -> bytes:
    """Title page and table of contents."""
    rows, part = [], None
    for of, title, number in entries:
        if of != part:
            rows.append(f"<h2>{html.escape(of)}</h2>")
            part = of
        rows.append(f"<p><span>{html.escape(title)}</span><span>{number}</span></p>")
    page.set_content(
        f"""<style>@page {{ size: A4; margin: 25mm; }} body {{ font: 12pt sans-serif; }}
        h1 {{ font-size: 30pt; margin-top: 60mm; }} section {{ break-before: page; }}
        p {{ display: flex; justify-content: space-between; margin: 0.35em 0; }}
        h2 {{ font-size: 13pt; }}</style>
        <h1>Symmetries and Neural Tangent Kernels</h1>
        <div>The authors of Symmetries and Neural Tangent Kernels</div>
        <div>Printed on {date.today().isoformat()} from {html.escape(address)}</div>
        <section><h1 style="margin-top: 0; font-size: 20pt">Contents</h1>{"".join(rows)}</section>"""
    )
    return page.pdf(prefer_css_page_size=True, tagged=True)


def lead_inside(writer: PdfWriter, local: str, starts: dict[str, int]) -> None:
    """Turns links to pages of the site into links to pages of the PDF."""
    for sheet in writer.pages:
        for reference in sheet.get("/Annots", []):
            action = reference.get_object().get("/A")
            address = str(action.get("/URI", "")) if action else ""
            name = address.removeprefix(local).split("#")[0].removesuffix(".html")
            if address.startswith(local) and name in starts:
                target = writer.pages[starts[name]].indirect_reference
                reference.get_object()[NameObject("/A")] = DictionaryObject(
                    {
                        NameObject("/S"): NameObject("/GoTo"),
                        NameObject("/D"): ArrayObject([target, NameObject("/Fit")]),
                    }
                )


def main() -> int:
    """Prints the book."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise SystemExit("make pdf needs Chromium: on Debian and Ubuntu, apt install chromium.")
    if not (places.BUILT / "index.html").exists():
        raise SystemExit("There is no book in _build/html: run make book first.")
    address = places.site()
    with serve(places.BUILT) as local, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        sheet = browser.new_page()
        pages = places.contents()
        before = len(PdfReader(io.BytesIO(front(sheet, [(p, n, 1) for p, n in pages], address))).pages)
        parts, entries, starts, number = [], [], {}, before + 1
        for part, name in pages:
            page = browser.new_page(viewport={"width": 900, "height": 1200})
            page.goto(f"{local}{name}.html", wait_until="networkidle")
            page.evaluate("() => !window.MathJax || MathJax.startup.promise.then(() => true)")
            title = page.locator("article h1").first.evaluate(
                """(e) => [...e.childNodes].filter((n) => !n.classList?.contains("headerlink"))
                .map((n) => n.textContent).join("")"""
            )
            reader = PdfReader(io.BytesIO(printed(page, number)))
            page.close()
            parts.append(reader)
            entries.append((part, title, number))
            starts[name] = number - 1
            number += len(reader.pages)
            print(f"{title}: {len(reader.pages)} pages", flush=True)
        writer = PdfWriter()
        writer.append(PdfReader(io.BytesIO(front(sheet, entries, address))))
        for reader in parts:
            writer.append(reader, import_outline=False)
        browser.close()
    above = None
    for part, title, first in entries:
        if part is not None and (above is None or above[0] != part):
            above = part, writer.add_outline_item(title=part, page_number=first - 1)
        writer.add_outline_item(title=title, page_number=first - 1, parent=above and above[1])
    lead_inside(writer, local, starts)
    writer.add_metadata({"/Title": "Symmetries and Neural Tangent Kernels"})
    writer.compress_identical_objects()
    writer.write(TARGET)
    print(
        f"{TARGET.relative_to(places.ROOT)}: {len(writer.pages)} pages, {TARGET.stat().st_size / 1e6:.1f} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
