/* The page: fetches what it needs, lets worker.mjs run the clip, draws what comes back, counts milliseconds.

       fetch, each with its hash -> worker: load, warm up -> `passes` times over the clip, measured -> replay, results, JSON

   Lesson: notebooks/08_on_device_latency.ipynb */

import { drawFrame, outline } from "./draw.mjs";
import { encodeMask } from "./tracker.mjs";

const REPLAY_MS = 125; // a frame
const INTERVALS = [1, 3, 6];
const CORES = navigator.hardwareConcurrency || 1;
const THREADS = self.crossOriginIsolated ? CORES : 1; // without isolation there is no shared memory

const $ = (id) => document.getElementById(id);
const state = { frames: [], runs: [], shown: 0, paused: false, measuring: false, turn: 0 };
let about, files, clip, engine;

main().catch(fail);

async function main() {
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") throw new Error("This browser has no WebAssembly.");
  about = await (await get("about.json", "the description")).json();
  [clip, files] = await Promise.all([get("clip.rgb", "the clip").then(bytes), fetchFiles()]);
  setUp();
  await measure();
}

/* --------------------------------------------------------------------------------------------- loading */

async function fetchFiles() {
  const { mjs, wasm } = about.runtime.files;
  const begin = performance.now();
  say("Loading the programs and the runtime (13 MB) …");
  const [key, reuse, script, binary] = await Promise.all([
    get("key.onnx", "the key program").then(bytes),
    get("reuse.onnx", "the reuse program").then(bytes),
    get(mjs.url, "the runtime", mjs.integrity).then((response) => response.blob()),
    get(wasm.url, "the runtime", wasm.integrity).then((response) => response.arrayBuffer()),
  ]);
  // the very bytes that were checked are what runs
  const runtime = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  return { key, reuse, runtime, wasm: binary, ms: performance.now() - begin };
}

async function get(url, what, integrity = "") {
  const response = await fetch(url, { integrity }).catch((error) => ({ ok: false, statusText: error.message }));
  if (response.ok) return response;
  const help = integrity
    ? ` ${about.runtime.name} ${about.runtime.version} is not reachable, or not the file that was expected. Without internet: minst bench web --assets FOLDER (${about.runtime.get}).`
    : " Is minst bench web still running?";
  throw new Error(`Could not load ${what} from ${url}: ${response.status ?? ""} ${response.statusText}.${help}`);
}

const bytes = async (response) => new Uint8Array(await response.arrayBuffer());

/* A worker with both programs loaded and warm; its number of threads cannot be changed afterwards. */
async function startEngine(threads) {
  engine?.worker.terminate();
  say(`Starting the runtime on ${threads} thread${threads > 1 ? "s" : ""}, warming up …`);
  const worker = new Worker("worker.mjs", { type: "module" });
  const ask = (message) =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
      worker.onerror = (event) => reject(new Error(`The worker failed: ${event.message ?? "it could not be loaded"}.`));
      worker.postMessage(message);
    });
  engine = { worker, ask, wanted: threads };
  const { ms, ...given } = files;
  engine.load = (await ask({ start: { ...given, frames: clip, about, threads } })).load;
}

/* --------------------------------------------------------------------------------------------- measuring */

let queue = Promise.resolve();

/* A run with the settings of the page; a run that is on its way gives up first. */
function measure() {
  const turn = ++state.turn;
  state.paused = false;
  queue = queue.then(() => (turn === state.turn ? run(turn) : null)).catch(fail);
  return queue;
}

async function run(turn) {
  state.measuring = true;
  const setting = { ...about.setting, reuse_interval: Number(chosen("interval")), association: chosen("association") };
  const threads = Number(chosen("threads"));
  buttons();
  if (engine?.wanted !== threads) await startEngine(threads);
  const samples = { key: [], reuse: [] };
  for (let pass = 0; pass < about.passes; pass++) {
    await engine.ask({ track: { setting, outputs: about.outputs } });
    state.frames = [];
    for (let t = 0; t < about.frames; t++) {
      const { result } = await engine.ask({ step: t });
      if (turn !== state.turn) return; // the settings have changed
      const begin = performance.now();
      state.frames.push(kept(result, setting));
      show(t);
      result.ms.drawing = performance.now() - begin;
      samples[result.is_key ? "key" : "reuse"].push(result.ms);
      say(`Measuring: pass ${pass + 1} of ${about.passes} …`);
      await painted(turn);
    }
  }
  state.measuring = false;
  state.runs.push(summary(setting, samples));
  showResults(state.runs.at(-1));
  say(`Measured: ${about.passes} ×  ${about.frames} frames, one frame after the other.`);
  buttons();
}

/* What is remembered of a frame: outlines and run-length codes in the place of whole masks. */
function kept({ frame, is_key, instances, ms }, setting) {
  const [height, width] = about.size;
  const threshold = Math.log(setting.mask_threshold / (1 - setting.mask_threshold));
  const found = instances.map(({ id, label, score, query, logits }) => {
    const segmentation = encodeMask(logits, threshold, height, width);
    const text = `${id} ${about.classes[label]} ${score.toFixed(2)}`;
    return { id, label, score, query, segmentation, text, path: outline(logits, threshold, height, width), anchor: top(segmentation) };
  });
  return { frame, is_key, ms, instances: found };
}

/* Where a tag stands: above the topmost pixel, in the middle of the mask. */
function top({ size: [height], counts }) {
  let [start, highest, first, last] = [0, height, Infinity, 0];
  counts.forEach((run, i) => {
    if (i % 2) {
      const columns = [Math.floor(start / height), Math.floor((start + run - 1) / height)];
      [first, last] = [Math.min(first, columns[0]), columns[1]];
      highest = Math.min(highest, columns[0] === columns[1] ? start % height : 0);
    }
    start += run;
  });
  return [(first + last + 1) / 2, highest];
}

/* Until the browser has painted, and as long as the page is paused. */
async function painted(turn) {
  do await new Promise(requestAnimationFrame);
  while (state.paused && turn === state.turn);
}

function summary(setting, samples) {
  const stages = (stage) => Object.fromEntries(Object.entries(samples).map(([name, ms]) => [name, figures(ms.map((m) => m[stage]))]));
  const network = stages("network");
  const mean = (T) => (network.key.median_ms + (T - 1) * (network.reuse?.median_ms ?? (T === 1 ? 0 : NaN))) / T;
  return {
    time: new Date().toISOString(),
    setting,
    threads: engine.load.threads,
    passes: about.passes,
    load_ms: { download: files.ms, ...engine.load.load_ms },
    first_run_ms: engine.load.first_run_ms,
    warm_up_ms: engine.load.warm_up_ms,
    network,
    mean_frame_ms: Object.fromEntries(INTERVALS.map((T) => [T, Number.isNaN(mean(T)) ? null : mean(T)])),
    apart: { before: stages("before"), after: stages("after"), drawing: stages("drawing") },
    samples_ms: { key: samples.key.map((m) => m.network), reuse: samples.reuse.map((m) => m.network) },
    frames: state.frames.map(({ instances, ms, ...frame }) => ({
      ...frame,
      ids: instances.map((i) => i.id),
      labels: instances.map((i) => i.label),
      scores: instances.map((i) => i.score),
      queries: instances.map((i) => i.query),
      segmentations: instances.map((i) => i.segmentation),
    })),
  };
}

/* Quantiles between neighbours linearly, as numpy's; null without values. */
function figures(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const quantile = (q) => {
    const at = q * (sorted.length - 1);
    const below = sorted[Math.floor(at)];
    return below + (at % 1) * (sorted[Math.ceil(at)] - below);
  };
  return { n: values.length, median_ms: quantile(0.5), p25_ms: quantile(0.25), p75_ms: quantile(0.75), p95_ms: quantile(0.95) };
}

/* --------------------------------------------------------------------------------------------- the page */

function setUp() {
  const [height, width] = about.size;
  const scale = Math.max(1, Math.min(3, Math.ceil(1100 / width)));
  [$("view").width, $("view").height] = [width * scale, height * scale];
  $("frame").max = about.frames;
  const T = about.setting.reuse_interval;
  const intervals = [...new Set([...INTERVALS, T])].sort((a, b) => a - b);
  choices("interval", intervals.map((n) => [n, n === 1 ? "frame" : `${n} frames`]), T);
  choices("association", [["mask", "masks (ours)"], ["cosine", "cosine (paper)"]], about.setting.association);
  const many = CORES > 1 ? [[CORES, `all ${CORES}`]] : [];
  choices("threads", [[1, "1"], ...many], 1);
  $("threads").querySelectorAll("input").forEach((input) => (input.disabled = Number(input.value) > THREADS));
  if (!self.crossOriginIsolated) {
    $("alone").hidden = false;
    $("alone").textContent = "One thread only: browsers share memory between threads on https and localhost, not on a plain network address.";
  }
  $("play").onclick = () => { state.paused = !state.paused; buttons(); };
  $("frame").oninput = () => { state.paused = true; show(Number($("frame").value) - 1); buttons(); };
  $("strip").onclick = (event) => {
    const bar = event.target.closest("[data-frame]");
    if (bar) { state.paused = true; show(Number(bar.dataset.frame)); buttons(); }
  };
  $("again").onclick = measure;
  $("download").onclick = download;
  addEventListener("resize", () => show(state.shown));
  setInterval(replay, REPLAY_MS);
  showResults(null);
  definitions("device", device());
}

function choices(id, options, selected) {
  $(id).replaceChildren(...options.map(([value, text]) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: id, value, checked: value === selected });
    input.onchange = measure;
    label.append(input, Object.assign(document.createElement("span"), { textContent: text }));
    return label;
  }));
}

const chosen = (id) => document.querySelector(`input[name=${id}]:checked`).value;

function replay() {
  if (!state.measuring && !state.paused && state.frames.length) show((state.shown + 1) % state.frames.length);
}

function show(t) {
  const frame = state.frames[t];
  if (!frame) return;
  state.shown = t;
  const [height, width] = about.size;
  const here = [...frame.instances].reverse(); // the best on top
  drawFrame($("view"), clip.subarray(3 * height * width * t), about.size, here, about.palette);
  $("view").setAttribute("aria-label", `frame ${t + 1}: ${frame.instances.map((i) => i.text).join(", ") || "nothing found"}`);
  $("frame").value = t + 1;
  $("where").textContent = `${t + 1} of ${about.frames}`;
  const key = state.frames.findLastIndex((f, i) => f.is_key && i <= t) + 1;
  $("badge").textContent = frame.is_key ? "key frame" : "reuse frame";
  $("badge").className = `badge ${frame.is_key ? "key" : "reuse"}`;
  $("said").textContent = `${ms(frame.ms.network)} ms of network${frame.is_key ? ", new kernels" : `, kernels of frame ${key}`}`;
  strip(t);
}

/* Milliseconds of every frame of this pass, as bars: key frames dark. */
function strip(now) {
  const svg = $("strip");
  const [wide, high] = [svg.clientWidth || 500, 92];
  const most = Math.max(...state.frames.map((f) => f.ms.network));
  const [bottom, step] = [high - 16, wide / about.frames];
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  const bars = state.frames.map((f, i) => {
    const tall = Math.max(1, ((bottom - 6) * f.ms.network) / most);
    const fill = f.is_key ? "#222" : "#b0b0b0";
    const bar = shape("rect", { x: i * step + 0.12 * step, y: bottom - tall, width: 0.76 * step, height: tall, fill });
    const cell = shape("rect", { x: i * step, y: 0, width: step, height: bottom, fill: i === now ? "#0072b222" : "transparent", "data-frame": i });
    cell.append(Object.assign(shape("title", {}), { textContent: `frame ${i + 1}: ${ms(f.ms.network)} ms` }));
    bar.setAttribute("pointer-events", "none");
    return [cell, bar];
  });
  const axis = shape("line", { x1: 0, x2: wide, y1: bottom + 0.5, y2: bottom + 0.5, stroke: "#222" });
  const words = [[0, "start", "frame 1"], [wide / 2, "middle", `network of this pass, up to ${ms(most)} ms`], [wide, "end", about.frames]].map(([x, anchor, text]) =>
    Object.assign(shape("text", { x, y: high - 3, "text-anchor": anchor }), { textContent: text }));
  svg.replaceChildren(...bars.flat(), axis, ...words);
}

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/* The last run, beside the last ones with other numbers of threads. */
function showResults(run) {
  const last = [...new Map(state.runs.map((r) => [r.threads, r])).values()].sort((a, b) => a.threads - b.threads);
  const several = (r) => (last.length > 1 ? `, ${r.threads} thread${r.threads > 1 ? "s" : ""}` : "");
  const spread = (f) => (f ? [ms(f.median_ms), `${ms(f.p25_ms)} – ${ms(f.p75_ms)}`, ms(f.p95_ms), f.n] : ["–", "–", "–", 0]);
  const network = (last.length ? last : [null]).flatMap((r) => ["key", "reuse"].map((kind) => ({
    name: `${kind} frame${r ? several(r) : ""}`, cells: spread(r?.network[kind]), now: r === run && last.length > 1,
  })));
  rows("network", network);
  rows("mean", INTERVALS.map((T) => {
    const mean = run?.mean_frame_ms[T];
    const cells = mean ? [`${ms(mean)} ms`, `${(1000 / mean).toFixed(1)} frames a second`] : ["–", ""];
    return { name: `T = ${T}`, cells, now: T === run?.setting.reuse_interval };
  }));
  if (!run) return;
  const pair = (name, times) => ({ name, cells: [times.key, times.reuse].map((t) => (t ? [t.median_ms ?? t].flat().map(ms).join(", ") : "–")) });
  rows("apart", [
    pair("bytes to floats", run.apart.before),
    pair("scores, association, masks", run.apart.after),
    pair("outlines and drawing", run.apart.drawing),
    pair("loading the program", run.load_ms),
    pair("first run", run.first_run_ms),
    pair("warm-up runs", run.warm_up_ms),
    { name: "download of everything", cells: [ms(run.load_ms.download), ""] },
  ]);
  definitions("device", { ...device(), "threads": run.threads });
}

function rows(id, lines) {
  $(id).tBodies[0].replaceChildren(...lines.map(({ name, cells, now }) => {
    const row = Object.assign(document.createElement("tr"), { className: now ? "now" : "" });
    row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: name }));
    row.append(...cells.map((textContent) => Object.assign(document.createElement("td"), { textContent })));
    return row;
  }));
}

function definitions(id, entries) {
  $(id).replaceChildren(...Object.entries(entries).flatMap(([name, text]) => [
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: text }),
  ]));
}

function device() {
  return {
    "browser": navigator.userAgent,
    "cores": CORES,
    "shared memory": self.crossOriginIsolated ? "allowed" : "not allowed here",
    "clock": `steps of ${clockStep()} ms`,
    "runtime": `${about.runtime.name} ${about.runtime.version}, WASM`,
    "model": `${about.weights}, frames of ${about.size[1]} × ${about.size[0]}, clip “${about.sample}”`,
  };
}

/* Browsers make the clock coarse on purpose: the smallest step seen. */
function clockStep() {
  let smallest = Infinity;
  for (let i = 0; i < 20; i++) {
    const begin = performance.now();
    let now = begin;
    while (now === begin) now = performance.now();
    smallest = Math.min(smallest, now - begin);
  }
  return Number(smallest.toPrecision(1));
}

function download() {
  const { palette, inputs, outputs, setting, ...session } = about;
  const json = {
    kind: "minst bench web",
    format_version: 1,
    ...session,
    device: {
      user_agent: navigator.userAgent,
      cores: CORES,
      cross_origin_isolated: self.crossOriginIsolated,
      secure_context: self.isSecureContext,
      clock_step_ms: clockStep(),
    },
    runs: state.runs,
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(json, null, 1)], { type: "application/json" }));
  link.download = `minst-web-${new Date().toISOString().slice(0, 19).replace(/\D/g, "")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function buttons() {
  for (const id of ["play", "frame"]) $(id).disabled = false;
  $("play").textContent = state.paused ? "Play" : "Pause";
  $("again").disabled = state.measuring;
  $("download").disabled = !state.runs.length;
}

const ms = (x) => (x < 100 ? x.toFixed(1) : x.toFixed(0));

function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function fail(error) {
  state.measuring = false;
  $("error").hidden = false;
  $("error").textContent = error.message ?? String(error);
  document.querySelector("main").hidden = !state.frames.length; // nothing to see yet
  say("Stopped.");
}
