"use strict";

// Small line charts over the last two minutes, and bars over a day, drawn as SVG.
const CHART_SECONDS = 120;
const SVG = "http://www.w3.org/2000/svg";

class Chart {
  /** `lines` names the values of a sample that are drawn; `describe` says in words what is seen. */
  constructor(svg, lines, describe) {
    this.svg = svg;
    this.lines = lines;
    this.describe = describe;
    this.samples = [];
  }

  /** Add values at a moment (seconds); null where nothing is known, which leaves a gap. */
  add(time, values) {
    this.samples.push({ time, ...values });
    while (this.samples.length && this.samples[0].time < time - CHART_SECONDS) this.samples.shift();
    this.draw(time);
  }

  clear() {
    this.samples = [];
    this.svg.replaceChildren();
  }

  draw(now) {
    const known = this.samples.flatMap((s) => this.lines.map((line) => s[line])).filter((v) => v !== null);
    const most = roundUp(Math.max(...known, 0));
    const { parts, x: across, y } = axes(this.svg, most, `${CHART_SECONDS} s ago`);
    const x = (time) => across(1 - (now - time) / CHART_SECONDS);
    this.lines.forEach((line, index) => {
      parts.push(element("path", { class: `l${index + 1}`, d: this.path(line, x, y) }));
    });
    this.svg.replaceChildren(...parts);
    this.svg.setAttribute("aria-label", this.describe(this.samples.at(-1)));
  }

  path(line, x, y) {
    let path = "";
    let last = null; // moment of the point before, null in a gap
    for (const sample of this.samples) {
      const value = sample[line];
      if (value === null) { last = null; continue; }
      // Where the page slept or the server was away, there is nothing to draw a line through.
      path += `${last !== null && sample.time - last < 3 ? "L" : "M"}${x(sample.time).toFixed(1)} ${y(value).toFixed(1)}`;
      last = sample.time;
    }
    return path;
  }
}

/** Axes from 0 to `most`, and where on them a share of the width and a value are. */
function axes(svg, most, begin) {
  const width = Math.max(120, svg.clientWidth || 300);
  const height = svg.clientHeight || 92;
  const left = 34, right = 4, top = 8, bottom = 16;
  const x = (share) => left + share * (width - left - right);
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const parts = [];
  for (const value of [0, most / 2, most]) {
    parts.push(element("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    parts.push(element("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  parts.push(element("text", { x: left, y: height - 3 }, begin));
  parts.push(element("text", { x: width - right, y: height - 3, "text-anchor": "end" }, "now"));
  return { parts, x, y };
}

/** Bars of values stacked upon each other, which `words` names; each bar is `{time, values}`, times being seconds since 1970. */
function drawBars(svg, bars, words) {
  const totals = bars.map(({ values }) => values.reduce((sum, value) => sum + value, 0));
  const { parts, x, y } = axes(svg, Math.max(2, roundUp(Math.max(...totals))), "24 h ago");
  bars.forEach(({ time, values }, index) => {
    if (!totals[index]) return;
    const clock = new Date(1000 * time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const group = element("g", {});
    group.append(element("title", {}, `${clock}: ${values.map((value, part) => `${words[part]} ${value}`).join(", ")}`));
    let below = 0;
    values.forEach((value, part) => {
      const left = x(index / bars.length), width = Math.max(1, x((index + 1) / bars.length) - left - 0.5);
      group.append(element("rect", { class: `l${part + 1}`, x: left, width, y: y(below + value), height: y(below) - y(below + value) }));
      below += value;
    });
    parts.push(group);
  });
  svg.replaceChildren(...parts);
  const sums = words.map((word, part) => `${word} ${bars.reduce((sum, { values }) => sum + values[part], 0)}`).join(", ");
  svg.setAttribute("aria-label", `The last day in bars of 15 minutes${words.length > 1 ? `: ${sums}` : ""}`);
}

/** The next of 1, 2, 4, 10, 20, 40, 100 ...: half of each is written without many digits. */
function roundUp(value) {
  for (let unit = 1; ; unit *= 10) {
    for (const step of [1, 2, 4]) if (value <= unit * step) return unit * step;
  }
}

function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
