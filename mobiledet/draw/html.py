"""Pages that need nothing but themselves: one HTML file, no network, no scripts, light and dark mode.

Every text is escaped by jinja2; what is HTML already is `markupsafe.Markup`, as all functions here return it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mobiledet.draw.svg import THEME

_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; {% for name, (light, _) in theme.items() %}--{{ name }}: {{ light }}; {% endfor %} }
@media (prefers-color-scheme: dark) {
  :root { {% for name, (_, dark) in theme.items() %}--{{ name }}: {{ dark }}; {% endfor %} } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; font-size: 14px; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; }
th { background: var(--tint); font-weight: 600; }
th:first-child, td:first-child, .text { text-align: left; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; margin: .5rem 0; }
code { background: var(--tint); padding: .1rem .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--soft); }
dd { margin: 0; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 31rem), 1fr)); gap: 1.2rem; }
.pair { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 4px; }
figure { margin: 0; break-inside: avoid; } figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: 13px; padding: .3rem 0; }
@media print { body { max-width: none; margin: 0; } .wide { overflow: visible; } svg { min-width: 0; }
  table { white-space: normal; overflow-wrap: break-word; font-size: 12px; } h2, h3 { break-after: avoid; } }
{{ style }}
</style>
</head>
<body>
<h1>{{ heading }}</h1>
{% for part in parts %}
{{ part }}
{% endfor %}
</body>
</html>
"""

_SECTION = """\
<section>
<h2>{{ title }}</h2>
{% for block in blocks if block %}
{% if block is escaped %}{{ block }}{% else %}<p>{{ block }}</p>{% endif %}

{% endfor %}
</section>"""

_TABLE = """\
{% macro cells(row, tag) %}
{% for cell in row %}
<{{ tag }}{% if cell.kind %} class="{{ cell.kind }}"{% endif %}{% if cell.tip %} title="{{ cell.tip }}"{% endif %}>
{{- cell.text }}</{{ tag }}>
{% endfor %}
{% endmacro %}
<div class="wide"><table{% if kind %} class="{{ kind }}"{% endif %}>
<thead><tr>
{{ cells(head, "th") }}</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{{ cells(row, "td") }}</tr>
{% endfor %}
</tbody></table></div>"""

_IMAGES = """\
<div class="images">
{% for images, caption in rows %}
<figure><div class="pair">
{% for about, data in images %}
<img src="data:image/jpeg;base64,{{ data }}" alt="{{ about }}" loading="lazy">
{% endfor %}
</div><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
</div>"""

_BULLETS = "<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>"
_FACTS = "<dl>{% for key, value in facts.items() %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What stands in it.
        kind: CSS classes: ``text`` (to the left; numbers are to the right), ``good``, ``bad``, ``soft``.
        tip: What is shown when the mouse is over it.
    """

    text: str
    kind: str = ""
    tip: str = ""


def page(title: str, heading: str, parts: Sequence[Markup], *, style: str = "") -> str:
    """A whole page; ``title`` is for the browser's tab, ``style`` is CSS beyond that of every page."""
    return str(render(_PAGE, title=title, heading=heading, parts=parts, style=Markup(style), theme=THEME)) + "\n"


def section(title: str, *blocks: str) -> Markup:
    """A heading and what is below it: elements as they are, other texts as paragraphs; empty ones are skipped."""
    return render(_SECTION, title=title, blocks=blocks)


def table(head: Sequence[Cell], rows: Sequence[Sequence[Cell]], *, kind: str = "") -> Markup:
    """A table, of CSS class ``kind``, that scrolls by itself where the page is too narrow for it."""
    return render(_TABLE, head=head, rows=rows, kind=kind)


def image_rows(rows: Sequence[tuple[Sequence[tuple[str, bytes]], str]]) -> Markup:
    """Figures of one or more JPEGs side by side: for each image what it shows and the file's bytes; and a caption."""
    encoded = [([(about, b64encode(data).decode()) for about, data in images], text) for images, text in rows]
    return render(_IMAGES, rows=encoded)


def bullets(lines: Sequence[str]) -> Markup:
    """A list of sentences."""
    return render(_BULLETS, lines=lines)


def facts(values: Mapping[str, object]) -> Markup:
    """Names, and what is known of each."""
    return render(_FACTS, facts=values)


def render(template: str, **values: Any) -> Markup:
    """Fill a jinja2 template; what isn't `Markup` is escaped, and a name that isn't given is an error."""
    return Markup(_ENVIRONMENT.from_string(template).render(**values))
