"""FPS cards as one HTML page that needs nothing but itself: no network, no scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from mobiledet.apps.benchmark.page import bullets, document, section
from mobiledet.apps.benchmark.table import format_ms, shorten
from mobiledet.apps.live.card.fps_card import STAGES, Card
from mobiledet.apps.live.card.fps_charts import STYLE, board_legend, fps_chart, stages_chart, timeline_chart

_STYLE = (
    STYLE
    + """
body { overflow-wrap: anywhere; }
.boards { display: flex; flex-wrap: wrap; gap: 1rem; }
.board { flex: 1 1 15rem; max-width: 24rem; border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  overflow-wrap: anywhere; }
.board h2 { margin: 0; font-size: 1rem; } .board p { margin: .2rem 0; }
.board .fps { font-size: 2.4rem; font-weight: 600; line-height: 1.2; } .board .fps small { font-size: 1rem; }
.facts td, .facts th { text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere;
  min-width: 9rem; max-width: 20rem; }
.facts td:first-child { color: var(--soft); white-space: nowrap; min-width: 0; }
.warn { color: #c23a26; }
@media (prefers-color-scheme: dark) { .warn { color: #f0806f; } }
"""
)

Fact = tuple[str, Callable[[Card], str]]


def cards_page(cards: Sequence[Card]) -> str:
    """The page, escaped throughout; at least one card."""
    times = [
        timeline_chart(cards, "fps", "FPS"),
        timeline_chart(cards, "age_ms", "age, ms"),
        timeline_chart(cards, "temperature_c", "°C", floor=False),
        timeline_chart(cards, "memory_mib", "MiB"),
    ]
    stages = "Medians. They overlap in time: grabbing and drawing run beside the network, so the sum is not the age."
    sections = [
        f'<div class="boards">{"".join(map(_board, cards))}</div>',
        section("Pictures a second", fps_chart(cards) or "Not measured."),
        section("Stages of a picture", stages_chart(cards) or "Not measured.", stages, _facts(cards, _stage_facts())),
    ]
    if any(times):
        sections.append(section("Over the run", board_legend(cards), *filter(None, times)))
    sections += [
        section("Everything", _facts(cards, _run_facts())),
        section("To be known", bullets(caveats(cards))),
        section("Made with", *map(_origin, cards)),
    ]
    heading = f"{cards[0].label} in live detection" if len(cards) == 1 else f"{len(cards)} boards in live detection"
    return document("mobiledet FPS card", shorten(heading, 100), sections, style=_STYLE)


def caveats(cards: Sequence[Card]) -> list[str]:
    """What somebody who compares these figures must know, in sentences."""
    lines = []
    for what, key in (("models", ("model", "name")), ("numbers of threads", ("settings", "threads"))):
        if len({card.text(*key) for card in cards}) > 1:
            lines.append(f"The boards ran different {what}.")
    if len({_size(card, "source", "size") for card in cards}) > 1:
        lines.append("Their pictures differ in size.")
    for card in cards:
        lines += [f"{shorten(card.label, 60)}: {line}" if len(cards) > 1 else line for line in _own_caveats(card)]
    told = dict.fromkeys(line for card in cards for line in card.words("unseen"))
    return [*lines, *told]


def _own_caveats(card: Card) -> list[str]:
    lines = []
    fps, given, seconds = card.sustained_fps, card.number("source", "fps"), card.number("seconds")
    if card.value("source", "live") and fps is not None and given and fps > 0.97 * given:
        lines.append(f"The source gives {given:g} pictures a second; the board might manage more.")
    if card.number("fps", "last_minute") is None:
        told = "" if seconds is None else f" of {seconds:.0f} s"
        lines.append(f"A run{told} is too short to tell sustained speed from that of a cold board.")
    if throttled := card.words("throttled"):
        lines.append(f"The board was slowed down in this run: {', '.join(throttled)}.")
    first, last = card.number("fps", "first_minute"), card.number("fps", "last_minute")
    if first and last and last < 0.9 * first:
        lines.append(f"It became slower: {last:.1f} FPS in the last minute after {first:.1f} in the first.")
    if lost := card.number("frames", "lost_seconds"):
        lines.append(f"The source was lost for {lost:.1f} s.")
    load, cores = card.number("machine", "load_average"), card.number("machine", "cores")
    if load is not None and cores and load > cores + 0.5:
        lines.append(f"More wanted to run than there are cores: a load of {load:g} on {cores:g}.")
    return lines


def _board(card: Card) -> str:
    fps, middle, late = card.sustained_fps, card.number("age_ms", "p50"), card.number("age_ms", "p95")
    period = "last minute" if card.number("fps", "last_minute") is not None else "whole run"
    age = "age of a picture unknown" if middle is None else f"{format_ms(middle)} ms from picture to boxes"
    if middle is not None and late is not None:
        age += f", 95 % below {format_ms(late)}"
    model = " ".join(filter(None, [card.text("model", "name"), card.text("model", "precision")]))
    count = card.number("settings", "threads")
    threads = _threads(count)
    throttled = ", ".join(card.words("throttled"))
    warning = f'<p class="warn">{escape(throttled)}</p>' if throttled else ""
    return (
        f'<div class="board"><h2>{escape(card.label)}</h2>'
        f'<p class="fps">{"-" if fps is None else f"{fps:.1f}"} <small>FPS, {period}</small></p>'
        f'<p>{escape(age)}</p><p class="soft">{escape(model)}, {escape(_size(card, "model", "input_size"))}, '
        f"{threads}</p>{warning}</div>"
    )


def _threads(count: float | None) -> str:
    if count is None:
        return "threads unknown"
    return "a thread for each core" if count == 0 else "1 thread" if count == 1 else f"{count:g} threads"


def _facts(cards: Sequence[Card], facts: Sequence[Fact]) -> str:
    """A table with a column for each board, without the rows in which nobody has anything."""
    head = "".join(f'<th title="{escape(card.label)}">{escape(shorten(card.label, 60))}</th>' for card in cards)
    rows = []
    for name, tell in facts:
        told = [tell(card) or "-" for card in cards]
        if any(text != "-" for text in told):
            cells = "".join(f"<td>{escape(text)}</td>" for text in told)
            rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    if not rows:
        return ""
    return f'<div class="wide"><table class="facts"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _stage_facts() -> list[Fact]:
    def tell(stage: str) -> Callable[[Card], str]:
        return lambda card: _pair(card, "stages_ms", stage)

    return [(f"{name}, ms" if name != "nms" else "of it nms, ms", tell(name)) for name in STAGES]


def _run_facts() -> list[Fact]:
    frames = ("captured", "processed", "dropped", "skipped", "paused", "shown", "saved", "not_saved", "reconnects")
    return [
        ("processor", lambda card: card.text("machine", "processor")),
        ("cores", _number("machine", "cores")),
        ("memory, GiB", _number("machine", "memory_gib")),
        ("system", lambda card: card.text("machine", "system")),
        ("model", lambda card: card.text("model", "name")),
        ("runtime", lambda card: card.text("model", "runtime")),
        ("precision", lambda card: card.text("model", "precision")),
        ("network's input", lambda card: _size(card, "model", "input_size")),
        ("classes", _number("model", "classes")),
        ("GMACs", _number("model", "gmacs", form=".3g")),
        ("threads", _number("settings", "threads")),
        ("threshold", _number("settings", "threshold")),
        ("window, browser view", _shown),
        ("saved as", lambda card: card.text("settings", "save")),
        ("source", lambda card: card.text("source", "name")),
        ("its pictures", lambda card: _size(card, "source", "size")),
        ("its FPS", _number("source", "fps", form=".4g")),
        ("seconds", _number("seconds", form=",.0f")),
        ("start to first boxes, ms", _number("start_to_first_boxes_ms", form=",.0f")),
        *((f"pictures {key.replace('_', ' ')}", _number("frames", key, form=",.0f")) for key in frames[:-1]),
        ("reconnections", _number("frames", "reconnects")),
        ("source lost, s", _number("frames", "lost_seconds")),
        ("FPS, whole run", _number("fps", "overall", form=".1f")),
        ("FPS, first minute", _number("fps", "first_minute", form=".1f")),
        ("FPS, last minute", _number("fps", "last_minute", form=".1f")),
        ("FPS, worst second", _number("fps", "worst_second", form=".1f")),
        ("age, ms", lambda card: _pair(card, "age_ms")),
        ("age on the screen, ms", lambda card: _pair(card, "shown_age_ms")),
        ("processor used, %", lambda card: _several(card, "cpu_percent", mean="mean", max="most")),
        (
            "memory, MiB",
            lambda card: _several(card, "memory_mib", first_minute="first", last_minute="last", peak="most"),
        ),
        ("temperature, °C", lambda card: _several(card, "temperature_c", start="start", end="end", max="most")),
        ("slowed down by", lambda card: ", ".join(card.words("throttled"))),
    ]


def _origin(card: Card) -> str:
    """How a card came about."""
    packages = ", ".join(f"{name} {version}" for name, version in (card.value("machine", "packages") or {}).items())
    facts = {
        "Board": card.label,
        "Made": card.text("made"),
        "mobiledet": card.text("mobiledet"),
        "Python": card.text("machine", "python"),
        "Packages": packages,
        "Load before": card.text("machine", "load_average"),
    }
    entries = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in facts.items() if text)
    return f"<dl>{entries}<dt>Command</dt><dd><code>{escape(card.text('command') or 'unknown')}</code></dd></dl>"


def _number(*keys: str, form: str = "g") -> Callable[[Card], str]:
    def tell(card: Card) -> str:
        value = card.number(*keys)
        return "-" if value is None else format(value, form)

    return tell


def _pair(card: Card, *keys: str) -> str:
    """Median, 95th percentile, and the most where that is known."""
    half, late, most = (card.number(*keys, key) for key in ("p50", "p95", "max"))
    if half is None:
        return "-"
    told = [format_ms(half)]
    if late is not None:
        told.append(f"95 % below {format_ms(late)}")
    if most is not None:
        told.append(f"most {format_ms(most)}")
    return ", ".join(told)


def _several(card: Card, group: str, **names: str) -> str:
    told = [(word, card.number(group, key)) for key, word in names.items()]
    return ", ".join(f"{word} {value:,.0f}" for word, value in told if value is not None) or "-"


def _size(card: Card, *keys: str) -> str:
    """Width times height, as people write it."""
    sides = card.words(*keys)
    return f"{sides[1]}x{sides[0]}" if len(sides) == 2 else "-"


def _shown(card: Card) -> str:
    if not card.value("settings"):
        return "-"
    told = [word for key, word in (("window", "window"), ("serve", "browser view")) if card.value("settings", key)]
    return ", ".join(told) or "neither"
