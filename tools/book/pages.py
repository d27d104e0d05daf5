r"""The Sphinx extension of this book: docstrings as they are written, still pictures where scripts are off.

Docstrings hold `$…$` and `$$…$$` for formulas, single backticks for code and shapes such as (|G|, *features),
all of which reStructuredText reads differently. They are translated before napoleon sees them; examples are
left alone.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_TOKENS = re.compile(
    r"\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$]+)\$|``(?P<literal>.+?)``|`(?P<code>[^`]+)`", re.S
)


def to_restructuredtext(text: str) -> str:
    r"""The docstring text as reStructuredText.

    >>> print(to_restructuredtext("`f` on $G$, shape (|G|, *features)"))
    ``f`` on :math:`G`, shape (\|G\|, \*features)
    """
    blocks = re.split(r"((?:^[ ]*>>>.*(?:\n[ ]*\S.*)*\n?)+)", text, flags=re.M)
    return "".join(block if i % 2 else _translate(block) for i, block in enumerate(blocks))


def _translate(text: str) -> str:
    parts, end = [], 0
    for match in _TOKENS.finditer(text):
        parts.append(_escape(text[end : match.start()]))
        if match["display"]:
            line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            indent = re.match(r" *", line)[0]
            lines = [piece.strip() for piece in match["display"].strip().splitlines() if piece.strip()]
            body = "".join(f"{indent}   {piece}\n" for piece in lines)
            # A formula ends its paragraph; what follows it starts the next one.
            parts.append(
                f"\n\n{indent}.. math::\n\n{body}\n{indent}"
                if line.strip()
                else f".. math::\n\n{body}\n{indent}"
            )
        elif match["inline"]:
            parts.append(f":math:`{' '.join(match['inline'].split())}`")
        else:
            parts.append(f"``{match['literal'] or match['code']}``")
        end = match.end()
        if match["display"]:
            end += (
                len(re.match(r"[ ]*\n?[ ]*", text[end:])[0]) if re.match(r"[ ]*\n[ ]*\S", text[end:]) else 0
            )
    parts.append(_escape(text[end:]))
    return "".join(parts)


def _escape(text: str) -> str:
    text = re.sub(r"(?<!\\)([|*])", r"\\\1", text)
    return re.sub(r"(?<=\w)_(?=[\s,.;:)]|$)", r"\\_", text)


def _process(app, what, name, obj, options, lines):
    lines[:] = to_restructuredtext("\n".join(lines)).split("\n")


class StillPictures(SphinxPostTransform):
    """Puts an interactive figure's still picture into the page, for readers whose browser runs no scripts.

    A notebook stores both for the same output, and MyST-NB would show one of them.
    """

    default_priority = 3  # just ahead of MyST-NB's choice
    formats = ("html",)

    def run(self, **kwargs):
        """Adds the picture and its caption, in a noscript element, to the stored figure's script."""
        for bundle in list(self.document.findall(nodes.container)):
            shown = {child.get("mime_type"): child for child in bundle.children if hasattr(child, "get")}
            if bundle.get("nb_element") == "mime_bundle" and {_WIDGET_VIEW, "image/png"} <= shown.keys():
                view = shown[_WIDGET_VIEW]
                picture = next(iter(shown["image/png"].findall(nodes.image)))
                picture["alt"] = caption = self._caption(view)
                view += [
                    nodes.raw("", "<noscript>", format="html"),
                    picture.deepcopy(),
                    nodes.raw("", f"<p>{html.escape(caption)}</p></noscript>", format="html"),
                ]

    def _caption(self, view) -> str:
        model = json.loads(re.search(r"\{.*\}", view.astext(), re.S)[0])["model_id"]
        scripts = self.env.nb_metadata[self.env.docname]["js_files"].values()
        for _, attributes in scripts:
            if attributes.get("type") == "application/vnd.jupyter.widget-state+json":
                state = json.loads(attributes["body"])["state"][model]["state"]
                return state["data"]["captions"][state["index"]]
        raise ValueError(f"{self.env.docname} holds no state of the widget {model}")


def _mend_roles(app, pagename, templatename, context, doctree):
    # A list whose items are not of the role that a list needs: screen readers announce it wrongly.
    if "body" in context:
        context["body"] = context["body"].replace('<div role="list" class="citation-list">', "<div>")


def _leave_out_thebe(app, pagename, templatename, context, doctree):
    # The theme's set-up for thebe, live code from other hosts, is written twice, which is a syntax error.
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in (getattr(script, "filename", None) or "")
        and "THEBE_JS_URL" not in (getattr(script, "attributes", {}).get("body") or "")
    ]


def _first_page(app, exception):
    # Jupyter Book's own index.html names no icon, so that a browser asks the host for /favicon.ico. This page
    # is left at once, so its icon is empty and part of it: one that is still loading then would be cut off.
    if exception is None and app.builder.format == "html":
        first = app.builder.get_target_uri(app.config.root_doc)
        title = html.escape(app.config.html_title)
        (Path(app.outdir) / "index.html").write_text(
            f'''<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={first}">
<link rel="icon" href="data:,">
<title>{title}</title>
</head>
<body><a href="{first}">{title}</a></body>
</html>
'''
        )


def _one_address(app, config):
    config.ogp_site_url, config.ogp_site_name = config.html_baseurl, config.html_title


def setup(app):
    """Translates ahead of napoleon, which listens to the same event at priority 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("html-page-context", _leave_out_thebe, priority=900)
    app.connect("config-inited", _one_address)
    app.connect("build-finished", _first_page)
    app.connect("html-page-context", _mend_roles)
    app.add_post_transform(StillPictures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
