"use strict";

// Small line charts over the last two minutes, drawn as SVG.
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

  draw(now) {
    const width = Math.max(120, this.svg.clientWidth || 300);
    const height = this.svg.clientHeight || 92;
    const left = 34, right = 4, top = 8, bottom = 16;
    const known = this.samples.flatMap((s) => this.lines.map((line) => s[line])).filter((v) => v !== null);
    const most = roundUp(Math.max(...known, 0));
    const x = (time) => width - right - ((now - time) / CHART_SECONDS) * (width - left - right);
    const y = (value) => height - bottom - (value / most) * (height - top - bottom);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [];
    for (const value of [0, most / 2, most]) {
      parts.push(element("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      parts.push(element("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, String(value)));
    }
    parts.push(element("text", { x: left, y: height - 3 }, `${CHART_SECONDS} s ago`));
    parts.push(element("text", { x: width - right, y: height - 3, "text-anchor": "end" }, "now"));
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
