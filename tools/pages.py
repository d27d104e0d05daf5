r"""The Sphinx extension of this book: docstrings as they are written, and no code for unused services.

Docstrings hold `$…$` and `$$…$$` for formulas, single backticks for code and shapes such as (|G|, *features),
all of which reStructuredText reads differently. They are translated before napoleon sees them; examples are
left alone.
"""

from __future__ import annotations

import re

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


def _leave_out_thebe(app, pagename, templatename, context, doctree):
    # The theme's set-up for thebe, live code from other hosts, is written twice, which is a syntax error.
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in (getattr(script, "filename", None) or "")
        and "THEBE_JS_URL" not in (getattr(script, "attributes", {}).get("body") or "")
    ]


def setup(app):
    """Translates ahead of napoleon, which listens to the same event at priority 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("html-page-context", _leave_out_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
