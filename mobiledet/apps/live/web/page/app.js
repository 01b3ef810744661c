"use strict";

const POLL_MS = 250;
const PATIENCE_MS = 3000; // for an answer, and for the stream to begin
const SEND_MS = 120; // between two changes while the slider moves

const byId = (id) => document.getElementById(id);
const picture = byId("picture");

let about = { run: null, names: [], colors: [], cameras: [] };
let camera = 1; // whose video and numbers are shown; 0 is all in one image
let settings = null; // as the server sent them last
let viewer = ""; // names our stream, so that the server can say whether it still runs
let streamBegun = 0;
let pollTimer = 0;
let polling = false;
let lostSince = 0;

// ---- asking the server

const token = new URLSearchParams(location.search).get("token");

/** A route's address; with the token, for a page in a frame of another one gets no cookies. */
function address(path, query = {}) {
  const given = new URLSearchParams({ ...query, ...(camera === 1 ? {} : { camera }), ...(token ? { token } : {}) });
  return String(given) ? `${path}?${given}` : path;
}

const posted = (value) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

/** The JSON of an answer, or its text as an error. */
async function answer(response) {
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

async function ask(path, options = {}) {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), PATIENCE_MS);
  try {
    return await fetch(path, { ...options, signal: control.signal, cache: "no-store" });
  } finally {
    clearTimeout(timer);
  }
}

async function poll() {
  clearTimeout(pollTimer);
  if (polling || document.hidden) return;
  polling = true;
  const asked = camera;
  try {
    const response = await ask(address("numbers", { viewer }));
    if (response.status === 403) return showLost("This address is no longer valid; open the one that the program printed last.");
    if (!response.ok) throw new Error(`status ${response.status}`);
    const seen = await response.json();
    if (seen.run !== about.run) await meet();
    if (asked !== camera) return;
    lostSince = 0;
    keepStream(seen);
    show(seen);
  } catch {
    lostSince = lostSince || Date.now();
    const seconds = Math.round((Date.now() - lostSince) / 1000);
    showLost(`The program doesn't answer${seconds ? `, for ${seconds} s now` : ""}. Reconnecting.`);
  } finally {
    polling = false;
    if (!document.hidden) pollTimer = setTimeout(poll, POLL_MS);
  }
}

/** Ask a program that has just started what it shows and which classes it knows. */
async function meet() {
  about = await answer(await ask(address("about.json")));
  byId("threshold").min = about.lowest;
  makeClasses();
  const names = about.cameras.map(({ title }, index) => new Option(`${index + 1}: ${title.split(" on ").pop()}`, index + 1));
  if (about.grid) names.unshift(new Option("all", 0));
  byId("camera").replaceChildren(...names);
  byId("cameras").hidden = names.length < 2;
  showCamera(Number(names[0].value));
}

const isTracked = () => Boolean(about.cameras[camera - 1]?.tracked);

function showCamera(number) {
  camera = number;
  settings = null;
  const title = (about.cameras[camera - 1] || about).title;
  setText("title", title);
  document.title = title ? `${title} - mobiledet live` : "mobiledet live";
  byId("snapshot").href = address("snapshot.jpg");
  byId("scene-tools").hidden = !isTracked();
  stopEditing();
  showScene(null);
  fpsChart.clear();
  ageChart.clear();
  openStream();
  askDay();
}

byId("camera").addEventListener("change", (event) => {
  showCamera(Number(event.target.value));
  poll();
});

async function change(changed) {
  try {
    // For all cameras. The answer is about the first, whose revision says nothing about another.
    const next = await answer(await ask(`settings${token ? `?token=${encodeURIComponent(token)}` : ""}`, posted(changed)));
    if (camera === 1) showSettings(next);
    else if (settings) showSettings({ ...next, revision: settings.revision }, true);
    showRefused("");
  } catch (error) {
    showRefused(`Not changed: ${error.name === "AbortError" ? "no answer" : error.message}`);
    if (settings) showSettings(settings, true);
  }
}

// ---- the stream

function openStream() {
  viewer = Math.random().toString(36).slice(2);
  streamBegun = Date.now();
  picture.src = address("stream.mjpg", { viewer });
}

function closeStream() {
  viewer = "";
  picture.removeAttribute("src");
}

/** A stream that broke off looks like a frame that stands still; the server knows which it is. */
function keepStream(seen) {
  if (!seen.watching && Date.now() - streamBegun > PATIENCE_MS) openStream();
}

// A hidden tab costs nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(pollTimer);
    closeStream();
  } else {
    if (about.run !== null) openStream();
    askDay();
    poll();
  }
});

// ---- what is shown

const fpsChart = new Chart(byId("fps-chart"), ["fps"], (last) =>
  `Frames per second over the last two minutes, now ${number(last.fps, 1)}`);
const ageChart = new Chart(byId("age-chart"), ["median", "p95"], (last) =>
  `Age of the frame over the last two minutes, now ${number(last.median, 0)} ms, p95 ${number(last.p95, 0)} ms`);

function show(seen) {
  const n = seen.numbers;
  showBanner(seen);
  setText("fps", number(n.fps, 1));
  setTime("age", n.age_ms);
  setTime("age-p95", n.age_p95_ms);
  const now = performance.now() / 1000;
  fpsChart.add(now, { fps: n.fps });
  ageChart.add(now, { median: n.age_ms, p95: n.age_p95_ms });
  showStages(n.stages_ms);
  showFacts(seen);
  if (!settings || seen.settings.revision >= settings.revision) showSettings(seen.settings);
  showCounts(seen.picture ? seen.picture.counts : {});
  showScene(seen.counts);
  const snapshot = byId("snapshot");
  snapshot.setAttribute("aria-disabled", String(!seen.picture));
  const size = seen.picture ? seen.picture.size : n.source.size;
  if (size) {
    byId("frame").style.aspectRatio = `${size[1]} / ${size[0]}`;
    fitLayer(size);
  }
}

function showBanner(seen) {
  const source = seen.numbers.source;
  const quiet = seen.picture ? seen.picture.seconds_ago : 0;
  let text = "";
  if (!seen.watching && seen.viewers >= seen.most_viewers) text = `${seen.viewers} viewers are watching, which is the most allowed; the video starts when one leaves.`;
  else if (seen.ended) text = "That was the last frame.";
  else if (!source.connected) text = source.message || (seen.picture ? "No frames are arriving." : "Waiting for the first frame");
  else if (seen.settings.paused) text = "Paused";
  else if (!seen.picture) text = "Waiting for the first frame";
  else if (quiet > 2) text = `No new frame for ${Math.round(quiet)} s.`;
  setText("banner", text);
  byId("frame").classList.toggle("stale", Boolean(seen.picture) && !seen.ended && (!source.connected || (quiet > 2 && !seen.settings.paused)));
}

function showLost(text) {
  setText("banner", text);
  byId("frame").classList.add("stale");
  byId("snapshot").setAttribute("aria-disabled", "true");
  const now = performance.now() / 1000;
  fpsChart.add(now, { fps: null });
  ageChart.add(now, { median: null, p95: null });
}

function showStages(stages) {
  const most = Math.max(...Object.values(stages), 0.001);
  byId("stages").replaceChildren(...Object.entries(stages).flatMap(([name, value]) => {
    const bar = make("span", "", "bar");
    bar.style.width = `${(100 * value) / most}%`;
    const cell = make("dd");
    cell.append(bar);
    return [make("dt", name), cell, make("dd", number(value, 1), "value")];
  }));
}

function showFacts(seen) {
  const n = seen.numbers, s = n.source;
  const facts = [["Captured", whole(s.captured)], ["Processed", whole(n.processed)], ["Dropped", whole(s.dropped)]];
  if (s.skipped) facts.push(["Unreadable", whole(s.skipped)]);
  if (s.reconnects) facts.push(["Reconnected", whole(s.reconnects)]);
  if (s.size) facts.push(["Frame size", `${s.size[1]} × ${s.size[0]}`]);
  if (s.fps) facts.push(["Source says", `${number(s.fps, 1)} FPS`]);
  facts.push(["Running", clock(n.seconds)]);
  if (n.cpu_percent !== null) facts.push(["Processor", `${number(n.cpu_percent, 0)} % of all cores`]);
  if (n.memory_mib !== null) facts.push(["Memory", `${whole(Math.round(n.memory_mib))} MiB`]);
  if (n.temperature_c !== null) facts.push(["Temperature", `${number(n.temperature_c, 0)} °C`]);
  if (n.throttled.length) facts.push(["Slowed down", n.throttled.join(", "), "warn"]);
  facts.push(["Watching", whole(seen.viewers)]);
  byId("facts").replaceChildren(...facts.flatMap(([name, value, kind]) => [make("dt", name), make("dd", value, kind)]));
}

// ---- settings

let sliding = 0; // timer while the slider's value is on its way
let sentThreshold = 0;

function showSettings(next, again = false) {
  const same = settings && settings.revision === next.revision;
  settings = next;
  if (same && !again) return;
  if (!sliding) showThreshold(next.threshold);
  byId("labels").checked = next.labels;
  const pause = byId("pause");
  pause.setAttribute("aria-pressed", String(next.paused));
  setText("pause", next.paused ? "Resume" : "Pause");
  for (const box of document.querySelectorAll("#classes input")) {
    box.checked = next.classes === null || next.classes.includes(Number(box.value));
  }
}

function showThreshold(value) {
  const slider = byId("threshold");
  slider.value = value;
  setText("threshold-value", Number(value).toFixed(2));
}

byId("threshold").addEventListener("input", () => {
  const slider = byId("threshold");
  setText("threshold-value", Number(slider.value).toFixed(2));
  if (sliding) return;
  // At once, then every so often while it moves, and its last place in the end.
  const wait = Math.max(0, SEND_MS - (Date.now() - sentThreshold));
  sliding = setTimeout(async () => {
    const sent = Number(slider.value);
    sentThreshold = Date.now();
    await change({ threshold: sent });
    sliding = 0;
    if (Number(slider.value) !== sent) slider.dispatchEvent(new Event("input"));
  }, wait);
});

byId("labels").addEventListener("change", (event) => change({ labels: event.target.checked }));
byId("pause").addEventListener("click", () => settings && change({ paused: !settings.paused }));
byId("snapshot").addEventListener("click", (event) => {
  if (event.currentTarget.getAttribute("aria-disabled") === "true") event.preventDefault();
});

// ---- classes

let counters = new Map(); // label -> where its count is written

function makeClasses() {
  counters = new Map();
  const rows = about.names.map((name, index) => {
    const box = make("input");
    box.type = "checkbox";
    box.value = String(index + 1);
    box.checked = true;
    const swatch = make("span", "", "swatch");
    swatch.style.background = about.colors[index];
    const count = make("span", "", "count");
    counters.set(String(index + 1), count);
    const label = make("label");
    label.append(box, swatch, make("span", name, "name"), count);
    const row = make("li");
    row.append(label);
    return row;
  });
  byId("classes").replaceChildren(...rows);
  byId("classes-tools").hidden = rows.length === 0;
  search();
}

function showCounts(counts) {
  for (const [label, place] of counters) {
    const text = counts[label] ? String(counts[label]) : "";
    if (place.textContent !== text) place.textContent = text;
  }
}

function search() {
  const wanted = byId("search").value.trim().toLowerCase();
  let hits = 0;
  for (const row of byId("classes").children) {
    row.hidden = !row.querySelector(".name").textContent.toLowerCase().includes(wanted);
    hits += row.hidden ? 0 : 1;
  }
  const none = byId("classes-none");
  none.hidden = hits > 0;
  none.textContent = about.names.length ? "No class has that name." : "This model has no class names.";
}

byId("search").addEventListener("input", search);
byId("all").addEventListener("click", () => checkFound(true));
byId("none").addEventListener("click", () => checkFound(false));
byId("classes").addEventListener("change", sendClasses);

/** Show all classes that the search finds, or none of them. */
function checkFound(on) {
  for (const box of document.querySelectorAll("#classes li:not([hidden]) input")) box.checked = on;
  sendClasses();
}

function sendClasses() {
  const boxes = [...document.querySelectorAll("#classes input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => Number(box.value));
  change({ classes: chosen.length === boxes.length ? null : chosen });
}

// ---- small things

function make(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function setText(id, text) {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

function setTime(id, value) {
  byId(id).replaceChildren(number(value, 0), ...(value === null ? [] : [make("small", " ms")]));
}

function showRefused(text) {
  setText("refused", text);
  byId("refused").hidden = !text;
}

const number = (value, digits) => (value === null ? "-" : value.toFixed(digits));
const whole = (value) => value.toLocaleString("en-US");

function clock(seconds) {
  const s = Math.floor(seconds), two = (value) => String(value).padStart(2, "0");
  return `${s >= 3600 ? `${Math.floor(s / 3600)}:` : ""}${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

addEventListener("DOMContentLoaded", poll); // scene.js is there by then
