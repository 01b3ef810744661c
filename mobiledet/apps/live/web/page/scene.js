"use strict";

// Lines and zones: drawn and moved over the video. Points are shares of the frame; the SVG's own units are its pixels, and
// it is fitted into its place just as the image below it is.

const layer = byId("layer");
const HINTS = {
  line: "Click where the line begins, then where it ends. Objects that cross it to the side of the arrow come in.",
  zone: "Click each corner; a double click, Enter, or a click on the first corner ends the zone. Escape drops it.",
  none: "Drag points or edges to move them; arrows point to the side that is in.",
};

let shapes = null; // [{kind, name, points}] while they are edited, else null
let chosen = -1; // index of the shape whose name is in the field
let drawing = false; // whether the chosen shape's last point follows the pointer
let grabbed = null; // {point, from, points} while something is dragged; point null for the whole shape
let frameSize = [9, 16]; // height, width

function fitLayer(size) {
  if (String(size) === String(frameSize)) return;
  frameSize = size;
  drawShapes();
}

/** Pixels of the frame for one of the screen. */
const perPixel = () => 1 / (layer.getScreenCTM()?.a || 1);

function drawShapes() {
  const [height, width] = frameSize;
  layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const unit = perPixel();
  layer.replaceChildren(...(shapes || []).flatMap((shape, index) => {
    if (!shape.points.length) return [];
    const at = shape.points.map(([x, y]) => [x * width, y * height]);
    const d = `M${at.map((point) => point.join(" ")).join("L")}${shape.kind === "zone" ? "Z" : ""}`;
    const kind = `${shape.kind}${index === chosen ? " chosen" : ""}`;
    const parts = [
      element("path", { class: `${kind} under`, d }),
      element("path", { class: kind, d }),
      element("path", { class: "hit", d, "data-shape": index }),
    ];
    if (shape.kind === "line" && at.length === 2) parts.push(arrow(at, unit, kind));
    for (const [number, [cx, cy]] of at.entries()) {
      parts.push(element("circle", { class: kind, cx, cy, r: 6 * unit, "data-shape": index, "data-point": number }));
    }
    const [x, y] = at.reduce((top, point) => (point[1] < top[1] ? point : top));
    // Name and counts in the image itself are above.
    const low = y > height - 30 * unit, right = x > width * 0.7;
    parts.push(element("text", { class: kind, x: x + (right ? -10 : 10) * unit, y: y + (low ? -12 : 22) * unit,
      "font-size": 14 * unit, "text-anchor": right ? "end" : "start" }, shape.name));
    return parts;
  }));
}

/** From the middle of a line to its side "in", which is on the right of who looks along it. */
function arrow([[ax, ay], [bx, by]], unit, kind) {
  const length = Math.hypot(bx - ax, by - ay) || 1;
  const along = [(bx - ax) / length, (by - ay) / length], inward = [-along[1], along[0]];
  const at = (far, aside) => [0, 1].map((axis) =>
    ([ax + bx, ay + by][axis] / 2 + unit * (far * inward[axis] + aside * along[axis])).toFixed(2)).join(" ");
  return element("path", { class: kind, d: `M${at(0, 0)}L${at(22, 0)}M${at(14, 6)}L${at(22, 0)}L${at(14, -6)}` });
}

function showTools() {
  const editing = shapes !== null, shape = editing ? shapes[chosen] : undefined;
  layer.classList.toggle("editing", editing);
  layer.classList.toggle("drawing", drawing); // a click on a point that is replaced meanwhile would be none
  byId("edit").hidden = editing;
  byId("editing").hidden = !editing;
  byId("shape").hidden = !shape;
  byId("turn").hidden = !shape || shape.kind !== "line";
  if (shape && byId("shape-name").value !== shape.name) byId("shape-name").value = shape.name;
  setText("scene-hint", editing ? HINTS[drawing ? shape.kind : "none"] : "");
  drawShapes();
}

async function edit() {
  if (shapes) return true;
  const asked = camera;
  try {
    const scene = await answer(await ask(address("scene.json")));
    if (asked !== camera) return false;
    shapes = [["line", scene.lines], ["zone", scene.zones]].flatMap(([kind, named]) =>
      Object.entries(named).map(([name, points]) => ({ kind, name, points })));
  } catch (error) {
    showRefused(`Lines and zones can't be edited now: ${error.message}`);
    return false;
  }
  showRefused("");
  choose(shapes.length ? 0 : -1);
  return true;
}

function choose(index) {
  chosen = index;
  showTools();
}

async function begin(kind) {
  if (!(await edit())) return;
  dropUnfinished();
  let number = 1;
  while (shapes.some((shape) => shape.name === `${kind} ${number}`)) number += 1;
  shapes.push({ kind, name: `${kind} ${number}`, points: [] });
  drawing = true;
  choose(shapes.length - 1);
}

/** End the shape that is drawn, or drop it where it has too few points. The last point followed the pointer. */
function finish() {
  if (!drawing) return;
  const shape = shapes[chosen];
  shape.points.pop();
  if (shape.points.length < (shape.kind === "line" ? 2 : 3)) return dropUnfinished();
  drawing = false;
  showTools();
  if (matchMedia("(pointer: fine)").matches) byId("shape-name").select(); // elsewhere a keyboard would cover the page
}

function dropUnfinished() {
  if (!drawing) return;
  drawing = false;
  shapes.splice(chosen, 1);
  choose(shapes.length - 1);
}

function stopEditing() {
  shapes = grabbed = null;
  drawing = false;
  choose(-1);
}

async function save() {
  finish();
  const scene = { lines: {}, zones: {} }, names = new Set();
  for (const { kind, name, points } of shapes) {
    if (names.has(name.trim())) return showRefused(`Not saved: two are named ${name.trim() || "nothing"}.`);
    names.add(name.trim());
    scene[`${kind}s`][name.trim()] = points;
  }
  try {
    const response = await ask(address("scene"), posted(scene));
    if (response.status !== 500 && !response.ok) await answer(response);
    showRefused(response.ok ? "" : (await response.text()).trim());
    stopEditing();
  } catch (error) {
    showRefused(`Not saved: ${error.name === "AbortError" ? "no answer" : error.message}`);
  }
}

// ---- the pointer

/** Where a pointer is, in shares of the frame. */
function place(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(layer.getScreenCTM().inverse());
  const share = (value, most) => Math.round(1e4 * Math.min(1, Math.max(0, value / most))) / 1e4;
  return [share(point.x, frameSize[1]), share(point.y, frameSize[0])];
}

/** Pixels of the screen between two places. */
const apart = (a, b) => Math.hypot((a[0] - b[0]) * frameSize[1], (a[1] - b[1]) * frameSize[0]) / perPixel();

layer.addEventListener("pointerdown", (event) => {
  if (!shapes || event.button !== 0) return;
  event.preventDefault();
  layer.setPointerCapture(event.pointerId);
  const at = place(event);
  if (drawing) {
    const { kind, points } = shapes[chosen];
    if (!points.length) points.push(at, at);
    else {
      points[points.length - 1] = at;
      const placed = points.slice(0, -1);
      if (kind === "zone" && placed.length > 2 && apart(at, placed[0]) < 10) return finish();
      if (apart(at, placed.at(-1)) > 4) points.push(at);
      if (kind === "line" && points.length > 2) return finish();
    }
    return showTools();
  }
  const { shape, point } = event.target.dataset;
  if (shape === undefined) return;
  grabbed = { point: point === undefined ? null : Number(point), from: at, points: shapes[shape].points };
  choose(Number(shape));
});

layer.addEventListener("pointermove", (event) => {
  const at = place(event);
  if (drawing && shapes[chosen].points.length) shapes[chosen].points[shapes[chosen].points.length - 1] = at;
  else if (grabbed && grabbed.point !== null) {
    shapes[chosen].points = grabbed.points.map((point, index) => (index === grabbed.point ? at : point));
  } else if (grabbed) {
    // The whole shape stays in the frame.
    const by = [0, 1].map((axis) => {
      const sides = grabbed.points.map((point) => point[axis]);
      return Math.min(1 - Math.max(...sides), Math.max(-Math.min(...sides), at[axis] - grabbed.from[axis]));
    });
    shapes[chosen].points = grabbed.points.map((point) => point.map((side, axis) => Math.round(1e4 * (side + by[axis])) / 1e4));
  } else return;
  drawShapes();
});

layer.addEventListener("pointerup", (event) => {
  grabbed = null;
  // A line may be dragged, too.
  const points = drawing && shapes[chosen].kind === "line" ? shapes[chosen].points : [];
  if (points.length === 2 && apart(points[0], place(event)) > 12) {
    points.push(points[1]);
    finish();
  }
});
layer.addEventListener("pointercancel", () => { grabbed = null; });
layer.addEventListener("dblclick", () => drawing && finish());

document.addEventListener("keydown", (event) => {
  if (!shapes || !["Enter", "Escape"].includes(event.key)) return;
  if (event.key === "Enter" && !drawing) return;
  event.preventDefault();
  if (event.key === "Enter") finish();
  else if (drawing) dropUnfinished();
  else stopEditing();
}, true);

new ResizeObserver(drawShapes).observe(layer);
byId("new-line").addEventListener("click", () => begin("line"));
byId("new-zone").addEventListener("click", () => begin("zone"));
byId("edit").addEventListener("click", edit);
byId("save").addEventListener("click", save);
byId("cancel").addEventListener("click", stopEditing);
byId("turn").addEventListener("click", () => { shapes[chosen].points.reverse(); drawShapes(); });
byId("delete").addEventListener("click", () => {
  if (drawing) return dropUnfinished();
  shapes.splice(chosen, 1);
  choose(shapes.length - 1);
});
byId("shape-name").addEventListener("input", (event) => { shapes[chosen].name = event.target.value; drawShapes(); });

// ---- counts, and the day

const DAY = 24 * 3600, BAR = 15 * 60;
let day = { now: 0, minutes: [] };
let daysTimer = 0;

function showScene(counts) {
  const total = (byClass) => Object.values(byClass).reduce((sum, count) => sum + count, 0);
  const lines = Object.entries(counts?.lines || {}), zones = Object.entries(counts?.zones || {});
  const rows = [
    ...lines.map(([name, by]) => [name, `in ${total(by.in)}, out ${total(by.out)}`]),
    ...zones.map(([name, zone]) => [name, `${total(zone.now)} now, ${zone.entered} entered`]),
  ];
  byId("scene-counts").hidden = !rows.length;
  const list = byId("scene-list");
  const written = JSON.stringify(rows);
  if (list.dataset.rows === written) return;
  list.dataset.rows = written;
  list.replaceChildren(...rows.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  const choice = byId("day-of"), before = choice.value;
  const options = [...lines.map(([name]) => `line:${name}`), ...zones.map(([name]) => `zone:${name}`)];
  if (String(options) !== String([...choice.options].map((option) => option.value))) {
    choice.replaceChildren(...options.map((value) => new Option(value.slice(5), value)));
    if (options.includes(before)) choice.value = before;
    drawDay();
  }
}

async function askDay() {
  clearTimeout(daysTimer);
  const asked = camera;
  if (!document.hidden && isTracked()) {
    try {
      const got = await answer(await ask(address("history.json")));
      if (asked === camera) { day = got; drawDay(); }
    } catch { /* the banner says that nobody answers */ }
  }
  clearTimeout(daysTimer);
  daysTimer = setTimeout(askDay, 15000);
}

/** Bars of a quarter of an hour, at whole quarters of the clock. */
function drawDay() {
  const [kind, name] = [byId("day-of").value.slice(0, 4), byId("day-of").value.slice(5)];
  const end = Math.ceil(day.now / BAR) * BAR, bars = [];
  for (let time = end - DAY; time < end; time += BAR) bars.push({ time, values: kind === "line" ? [0, 0] : [0] });
  for (const minute of day.minutes) {
    const bar = bars[Math.floor((minute.time - bars[0].time) / BAR)];
    if (!bar) continue;
    if (kind === "line") ["in", "out"].forEach((side, index) => { bar.values[index] += minute.lines[name]?.[side] || 0; });
    else bar.values[0] = Math.max(bar.values[0], minute.zones[name] || 0);
  }
  for (const key of document.querySelectorAll("#day-key .key")) key.hidden = kind !== "line";
  setText("day-what", kind === "line" ? "crossings in 15 minutes" : "most at once in 15 minutes");
  drawBars(byId("day"), bars, kind === "line" ? ["in", "out"] : ["at once"]);
}

byId("day-of").addEventListener("change", drawDay);
new ResizeObserver(drawDay).observe(byId("day"));
