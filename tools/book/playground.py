"""A Sphinx extension that puts the playground on a page that is no notebook.

`{playground} The mean of 64` makes what a stored notebook has: a view, its state and, for readers whose
browser runs no scripts, a still picture and a sentence. The state, most of which is the front end's source,
stands at the end of the page, so that the text is there first.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

WIDGET = "application/vnd.jupyter.widget"


class Playground(Directive):
    """The playground with a preset."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        """A place that `_write` fills once the page is made."""
        return [nodes.raw("", f"<div data-playground={json.dumps(self.arguments[0])}></div>", format="html")]


def _write(app, pagename, templatename, context, doctree):
    found = [] if doctree is None else [node.astext() for node in doctree.findall(nodes.raw)]
    states = {}
    for place in (text for text in found if text.startswith("<div data-playground=")):
        from nteq.interactive import Playground as Widget  # JAX, which pages without one need not wait for

        preset = json.loads(place.removeprefix("<div data-playground=").removesuffix("></div>"))
        widget, name = Widget(preset), f"playground-{len(states) + 1}"
        state = {"_esm": str(Widget._esm), "data": widget.data, "index": 0, "scene": widget.scene}
        states[name] = {"model_name": "AnyModel", "state": state}
        picture = f"_images/{Path(pagename).name}-{name}.png"
        (Path(app.outdir) / picture).parent.mkdir(parents=True, exist_ok=True)
        (Path(app.outdir) / picture).write_bytes(base64.b64decode(widget._repr_mimebundle_()[0]["image/png"]))
        sentence = html.escape(widget.data["captions"][0])
        still = f'<img src="{context["pathto"](picture, 1)}" alt="{sentence}"><p>{sentence}</p>'
        view = f'<script type="{WIDGET}-view+json">{json.dumps({"model_id": name})}</script>'
        view += f"<noscript>{still}</noscript>"
        context["body"] = context["body"].replace(place, f"<div>{view}</div>", 1)
    if states:
        text = json.dumps({"version_major": 2, "version_minor": 0, "state": states}).replace("</", r"<\/")
        context["body"] += f'<script type="{WIDGET}-state+json">{text}</script>'
        app.add_js_file("widgets.js", type="module")


def setup(app):
    """Registers the directive."""
    app.add_directive("playground", Playground)
    app.connect("html-page-context", _write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
