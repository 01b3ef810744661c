"""FPS cards as one HTML page with charts that needs nothing but itself: no network, no scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from mobiledet.apps.live.card.fps_card import FRAMES, STAGES, Card
from mobiledet.draw.html import Cell, bullets, facts, page, render, section, table
from mobiledet.draw.svg import Bar, Line, bar_chart, line_chart
from mobiledet.utils.text import count, readable_ms, shorten

_STYLE = """
.boards { display: flex; flex-wrap: wrap; gap: 1rem; }
.board { flex: 1 1 15rem; max-width: 24rem; border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }
.board h2 { margin: 0; font-size: 1rem; } .board p { margin: .2rem 0; }
.board .fps { font-size: 2.4rem; font-weight: 600; line-height: 1.2; } .board .fps small { font-size: 1rem; }
.figures td, .figures th { text-align: left; vertical-align: top; white-space: normal; min-width: 9rem;
  max-width: 20rem; }
.figures td:first-child { color: var(--soft); white-space: nowrap; min-width: 0; }
"""

_BOARDS = """\
<div class="boards">
{% for board in boards %}
<div class="board"><h2>{{ board.label }}</h2>
<p class="fps">{{ board.fps }} <small>FPS, {{ board.period }}</small></p>
<p>{{ board.age }}</p><p class="soft">{{ board.model }}</p>
{% if board.throttled %}<p class="bad">{{ board.throttled }}</p>{% endif %}
</div>
{% endfor %}
</div>"""

_PERIODS = {"first minute": "first_minute", "last minute": "last_minute", "whole run": "overall"}
_PERIOD_COLORS = {"first minute": "orange", "last minute": "blue", "whole run": "gray"}
_STAGE_COLORS = dict(zip(STAGES, ("gray", "good", "green", "blue", "violet", "teal", "red", "orange"), strict=True))
_MOST_POINTS = 430
"""Of a line; longer timelines are shown as means."""

Figure = tuple[str, Callable[[Card], str]]
"""A row of a table: its name, and how it is read from a card; empty or ``-`` where it isn't known."""


def cards_page(cards: Sequence[Card]) -> str:
    """The page; at least one card."""
    timelines = [
        timeline_chart(cards, "fps", "FPS", legend=True),
        timeline_chart(cards, "age_ms", "age, ms"),
        timeline_chart(cards, "temperature_c", "°C", floor=False),
        timeline_chart(cards, "memory_mib", "MiB"),
    ]
    stages = "Medians. They overlap in time: grabbing and drawing run beside the network, so the sum is not the age."
    named = {name: f"{'of it ' if name == 'nms' else ''}{name}, ms" for name in STAGES}
    stage_figures = [(title, _spread("stages_ms", name)) for name, title in named.items()]
    sections = [
        render(_BOARDS, boards=[_board(card) for card in cards]),
        section("Frames per second", fps_chart(cards) or "Not measured."),
        section("Stages of a frame", stages_chart(cards) or "Not measured.", stages, _table(cards, stage_figures)),
    ]
    if any(timelines):
        sections.append(section("Over the run", *timelines))
    sections += [
        section("All figures", _table(cards, _run_figures())),
        section("Caveats", bullets(caveats(cards))),
        section("Environment", *map(_environment, cards)),
    ]
    heading = f"{cards[0].label} in live detection" if len(cards) == 1 else f"{len(cards)} boards in live detection"
    return page("mobiledet FPS card", shorten(heading, 100), sections, style=_STYLE)


def caveats(cards: Sequence[Card]) -> list[str]:
    """What must be known to compare these figures, a sentence each."""
    lines = []
    for what, key in (("models", ("model", "name")), ("numbers of threads", ("settings", "threads"))):
        if len({card.text(*key) for card in cards}) > 1:
            lines.append(f"The boards ran different {what}.")
    if len({_size(card, "source", "size") for card in cards}) > 1:
        lines.append("Their frames differ in size.")
    for card in cards:
        lines += [f"{shorten(card.label, 60)}: {line}" if len(cards) > 1 else line for line in _own_caveats(card)]
    return [*lines, *dict.fromkeys(line for card in cards for line in card.words("unseen"))]


def _own_caveats(card: Card) -> list[str]:
    lines = []
    fps, given, seconds = card.sustained_fps, card.number("source", "fps"), card.number("seconds")
    if card.value("source", "live") and fps is not None and given and fps > 0.97 * given:
        lines.append(f"The source gives {given:g} frames per second; the board might manage more.")
    if card.number("fps", "last_minute") is None:
        length = "" if seconds is None else f" of {seconds:.0f} s"
        lines.append(f"A run{length} is too short to distinguish sustained speed from that of a cold board.")
    if throttled := card.words("throttled"):
        lines.append(f"The board was slowed down in this run: {', '.join(throttled)}.")
    first, last = card.number("fps", "first_minute"), card.number("fps", "last_minute")
    if first and last and last < 0.9 * first:
        lines.append(f"It became slower: {last:.1f} FPS in the last minute after {first:.1f} in the first.")
    if lost := card.number("frames", "lost_seconds"):
        lines.append(f"The source was lost for {lost:.1f} s.")
    load, cores = card.number("machine", "load_average"), card.number("machine", "cores")
    if load is not None and cores and load > cores + 0.5:
        lines.append(f"More processes were running than there are cores: a load of {load:g} on {cores:g}.")
    return lines


def fps_chart(cards: Sequence[Card]) -> Markup:
    """Bars of the FPS in the first minute, in the last and over all, for each board; nothing if none was measured."""
    rows = []
    for card in cards:
        bars = [
            Bar({period: fps}, f"{fps:.1f}", tips={period: f"{card.label}, {period}: {fps:.1f} FPS"})
            for period, key in _PERIODS.items()
            if (fps := card.number("fps", key)) is not None
        ]
        if bars:
            rows.append((card.label, bars))
    if not rows:
        return Markup()
    title = "FPS in the first minute, in the last, and over the whole run"
    return bar_chart(rows, _PERIOD_COLORS, unit="FPS", title=title)


def stages_chart(cards: Sequence[Card]) -> Markup:
    """A bar of the stages' medians for each board; nothing if none was measured."""
    rows = []
    for card in cards:
        parts = stage_parts(card)
        tips = {}
        for name, value in parts.items():
            p95 = card.number("stages_ms", name, "p95")
            more = f", 95 % below {readable_ms(p95)}" if p95 is not None and name != "network" else ""
            tips[name] = f"{card.label}: {name} {readable_ms(value)} ms{more}"
        if parts:
            rows.append((card.label, [Bar(parts, readable_ms(sum(parts.values())), tips=tips)]))
    if not rows:
        return Markup()
    return bar_chart(rows, _STAGE_COLORS, unit="ms", title="Median milliseconds of each stage")


def stage_parts(card: Card) -> dict[str, float]:
    """Median milliseconds of the stages that are known, NMS taken out of the network."""
    found = {name: value for name in STAGES if (value := card.number("stages_ms", name, "p50")) is not None}
    if "nms" in found and "network" in found:
        found["nms"] = min(found["nms"], found["network"])
        found["network"] -= found["nms"]
    elif "nms" in found:
        del found["nms"]
    return {name: max(0.0, value) for name, value in found.items()}


def timeline_chart(
    cards: Sequence[Card], series: str, unit: str, *, floor: bool = True, legend: bool = False
) -> Markup:
    """A line for each board over the time of its run, in its colour; nothing when no board measured it.

    ``series`` is the line of the timeline, in ``unit``; ``floor`` begins the axis at 0, ``legend`` names the boards.
    """
    lines = []
    for place, card in enumerate(cards):
        values, step = card.series(series), max(1e-3, card.number("timeline", "step_s") or 1.0)
        if sum(value is not None for value in values) < 2:
            continue
        group = max(1, -(-len(values) // _MOST_POINTS))
        parts = [values[start : start + group] for start in range(0, len(values), group)]
        middles = [(number * group + len(part) / 2) * step for number, part in enumerate(parts)]
        tip = card.label + (f", means of {group * step:g} s" if group > 1 else "")
        lines.append(Line(card.label, middles, [_mean(part) for part in parts], place, tip))
    if not lines:
        return Markup()
    return line_chart(lines, unit=unit, title=f"{unit} over the time of the run", floor=floor, legend=legend)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _board(card: Card) -> Mapping[str, str]:
    """What is on a board's tile."""
    fps, middle, late = card.sustained_fps, card.number("age_ms", "p50"), card.number("age_ms", "p95")
    age = "age of a frame unknown" if middle is None else f"{readable_ms(middle)} ms from frame to boxes"
    if middle is not None and late is not None:
        age += f", 95 % below {readable_ms(late)}"
    model = " ".join(filter(None, [card.text("model", "name"), card.text("model", "precision")]))
    number = card.number("settings", "threads")
    threads = "threads unknown" if number is None else count(int(number), "thread") if number else "one thread per core"
    return {
        "label": card.label,
        "fps": "-" if fps is None else f"{fps:.1f}",
        "period": "last minute" if card.number("fps", "last_minute") is not None else "whole run",
        "age": age,
        "model": f"{model}, {_size(card, 'model', 'input_size')}, {threads}",
        "throttled": ", ".join(card.words("throttled")),
    }


def _table(cards: Sequence[Card], figures: Sequence[Figure]) -> Markup:
    """A table with a column for each board, without the rows in which nobody has anything."""
    head = [Cell(""), *(Cell(shorten(card.label, 60), tip=card.label) for card in cards)]
    rows = []
    for name, read in figures:
        texts = [read(card) or "-" for card in cards]
        if any(text != "-" for text in texts):
            rows.append([Cell(name), *map(Cell, texts)])
    return table(head, rows, kind="figures") if rows else Markup()


def _run_figures() -> list[Figure]:
    return [
        ("processor", _text("machine", "processor")),
        ("cores", _number("machine", "cores")),
        ("memory, GiB", _number("machine", "memory_gib")),
        ("system", _text("machine", "system")),
        ("model", _text("model", "name")),
        ("runtime", _text("model", "runtime")),
        ("precision", _text("model", "precision")),
        ("network's input", lambda card: _size(card, "model", "input_size")),
        ("classes", _number("model", "classes")),
        ("GMACs", _number("model", "gmacs", form=".3g")),
        ("threads", _number("settings", "threads")),
        ("threshold", _number("settings", "threshold")),
        ("window, browser view", _shown),
        ("saved as", _text("settings", "save")),
        ("source", _text("source", "name")),
        ("size of its frames", lambda card: _size(card, "source", "size")),
        ("its FPS", _number("source", "fps", form=".4g")),
        ("seconds", _number("seconds", form=",.0f")),
        ("start to first boxes, ms", _number("start_to_first_boxes_ms", form=",.0f")),
        *((f"frames {key.replace('_', ' ')}", _number("frames", key, form=",.0f")) for key in FRAMES),
        ("reconnections", _number("frames", "reconnects")),
        ("source lost, s", _number("frames", "lost_seconds")),
        ("FPS, whole run", _number("fps", "overall", form=".1f")),
        ("FPS, first minute", _number("fps", "first_minute", form=".1f")),
        ("FPS, last minute", _number("fps", "last_minute", form=".1f")),
        ("FPS, worst second", _number("fps", "worst_second", form=".1f")),
        ("age, ms", _spread("age_ms")),
        ("age on the screen, ms", _spread("shown_age_ms")),
        ("processor used, %", _several("cpu_percent", mean="mean", max="max")),
        ("memory, MiB", _several("memory_mib", first_minute="first minute", last_minute="last minute", peak="max")),
        ("temperature, °C", _several("temperature_c", start="start", end="end", max="max")),
        ("slowed down by", lambda card: ", ".join(card.words("throttled"))),
    ]


def _environment(card: Card) -> Markup:
    """What a card was made with."""
    packages = ", ".join(f"{name} {version}" for name, version in (card.value("machine", "packages") or {}).items())
    values = {
        "Board": card.label,
        "Made": card.text("made"),
        "mobiledet": card.text("mobiledet"),
        "Python": card.text("machine", "python"),
        "Packages": packages,
        "Load before": card.text("machine", "load_average"),
        "Command": render("<code>{{ command }}</code>", command=card.text("command") or "unknown"),
    }
    return facts({name: value for name, value in values.items() if value})


def _number(*keys: str, form: str = "g") -> Callable[[Card], str]:
    def read(card: Card) -> str:
        value = card.number(*keys)
        return "-" if value is None else format(value, form)

    return read


def _text(*keys: str) -> Callable[[Card], str]:
    return lambda card: card.text(*keys)


def _spread(*keys: str) -> Callable[[Card], str]:
    """Median, 95th percentile, and maximum where that is known."""

    def read(card: Card) -> str:
        half, late, most = (card.number(*keys, key) for key in ("p50", "p95", "max"))
        if half is None:
            return "-"
        more = [f"95 % below {readable_ms(late)}"] if late is not None else []
        return ", ".join([readable_ms(half), *more, *([f"max {readable_ms(most)}"] if most is not None else [])])

    return read


def _several(group: str, **names: str) -> Callable[[Card], str]:
    def read(card: Card) -> str:
        values = [(name, card.number(group, key)) for key, name in names.items()]
        return ", ".join(f"{name} {value:,.0f}" for name, value in values if value is not None) or "-"

    return read


def _size(card: Card, *keys: str) -> str:
    """Width times height, as people write it."""
    sides = card.words(*keys)
    return f"{sides[1]}x{sides[0]}" if len(sides) == 2 else "-"


def _shown(card: Card) -> str:
    if not card.value("settings"):
        return "-"
    views = [name for key, name in (("window", "window"), ("serve", "browser view")) if card.value("settings", key)]
    return ", ".join(views) or "neither"
