// The page: fetches what it needs, lets worker.mjs run the clip, draws what comes back, counts milliseconds.
//
//     fetch, each with its hash -> worker: load, warm up -> `passes` times over the clip, measured -> replay, JSON
//
// Lesson: notebooks/08_on_device_latency.ipynb

import { drawFrame, outline } from "./draw.mjs";
import { encodeMask } from "./tracker.mjs";

const REPLAY_MS = 125; // a frame
const INTERVALS = [1, 3, 6];
const CORES = navigator.hardwareConcurrency || 1;

const $ = (id) => document.getElementById(id);
const element = (tag, fields, ...inside) => {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...inside);
  return made;
};
const ms = (x) => (x < 100 ? x.toFixed(1) : x.toFixed(0));
const chosen = (id) => document.querySelector(`input[name=${id}]:checked`).value;
// from the folder of all pages on, wherever that lies; a whole address stays as it is
const address = (url) => new URL(url, new URL(about.root, location.href)).href;
const bytes = async (response) => new Uint8Array(await response.arrayBuffer());

const state = { frames: [], runs: [], shown: 0, paused: false, measuring: false, turn: 0 };
let about, files, clip, engine;
let queue = Promise.resolve();

main().catch(fail);

async function main() {
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") throw new Error("This browser has no WebAssembly.");
  about = await (await get("about.json")).json();
  const { mjs, wasm } = about.runtime.files;
  const begin = performance.now();
  say("Loading the programs and the runtime (13 MB) …");
  const [frames, key, reuse, weights, script, binary] = await Promise.all([
    get("clip.rgb").then(bytes),
    get("key.onnx").then(bytes),
    get("reuse.onnx").then(bytes),
    get("weights.bin").then(bytes),
    get(address(mjs.url), mjs.integrity).then((response) => response.blob()),
    get(address(wasm.url), wasm.integrity).then((response) => response.arrayBuffer()),
  ]);
  clip = frames;
  // the very bytes that were checked are what runs
  const runtime = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  files = { key, reuse, weights, runtime, wasm: binary, ms: performance.now() - begin };
  setUp();
  await measure();
}

async function get(url, integrity = "") {
  const response = await fetch(url, { integrity }).catch((error) => ({ ok: false, statusText: error.message }));
  if (response.ok) return response;
  const help = integrity
    ? `${about.runtime.name} ${about.runtime.version} is not reachable, or not the file that was expected. Without internet: give --assets FOLDER (${about.runtime.get}).`
    : "Is its server still running?";
  throw new Error(`Could not load ${url}: ${response.status ?? ""} ${response.statusText}. ${help}`);
}

// A worker with both programs loaded and warm; its number of threads cannot be changed afterwards.
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

// A run with the settings of the page; a run that is on its way gives up first.
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
      // until the browser has painted, and as long as the page is paused
      do await new Promise(requestAnimationFrame);
      while (state.paused && turn === state.turn);
    }
  }
  state.measuring = false;
  state.runs.push(summary(setting, samples));
  showResults(state.runs.at(-1));
  say(`Measured: ${about.passes} ×  ${about.frames} frames, one frame after the other.`);
  buttons();
}

// What is remembered of a frame: outlines and run-length codes in the place of whole masks.
function kept({ instances, ...frame }, setting) {
  const [height, width] = about.size;
  const threshold = Math.log(setting.mask_threshold / (1 - setting.mask_threshold));
  const found = instances.map(({ logits, ...instance }) => ({
    ...instance,
    ...outline(logits, threshold, height, width),
    segmentation: encodeMask(logits, threshold, height, width),
    text: `${instance.id} ${about.classes[instance.label]} ${instance.score.toFixed(2)}`,
  }));
  return { ...frame, instances: found };
}

function summary(setting, samples) {
  const each = (value) => ({ key: value(samples.key), reuse: value(samples.reuse) });
  const stages = (stage) => each((frames) => figures(frames.map((ms) => ms[stage])));
  const network = stages("network");
  const mean = (T) => (T === 1 || network.reuse ? (network.key.median_ms + (T - 1) * (network.reuse?.median_ms ?? 0)) / T : null);
  const fields = { ids: "id", labels: "label", scores: "score", queries: "query", segmentations: "segmentation" };
  return {
    time: new Date().toISOString(),
    setting,
    passes: about.passes,
    ...engine.load,
    load_ms: { download: files.ms, ...engine.load.load_ms },
    network,
    mean_frame_ms: Object.fromEntries(INTERVALS.map((T) => [T, mean(T)])),
    apart: { before: stages("before"), after: stages("after"), drawing: stages("drawing") },
    samples_ms: each((frames) => frames.map((ms) => ms.network)),
    frames: state.frames.map(({ frame, is_key, instances }) => {
      const lists = Object.entries(fields).map(([name, field]) => [name, instances.map((i) => i[field])]);
      return { frame, is_key, ...Object.fromEntries(lists) };
    }),
  };
}

// Quantiles between neighbours linearly, as numpy's; null without values.
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

function setUp() {
  const [height, width] = about.size;
  const scale = Math.max(1, Math.min(3, Math.ceil(1100 / width)));
  Object.assign($("view"), { width: width * scale, height: height * scale });
  $("frame").max = about.frames;
  const T = about.setting.reuse_interval;
  const intervals = [...new Set([...INTERVALS, T])].sort((a, b) => a - b);
  choices("interval", intervals.map((n) => [n, n === 1 ? "frame" : `${n} frames`]), T);
  choices("association", [["mask", "masks (ours)"], ["cosine", "cosine (paper)"]], about.setting.association);
  const pages = Object.entries(about.pages);
  const link = ([place, name]) => element("a", { href: address(place), textContent: name, ariaCurrent: name === about.sample ? "page" : null });
  if (pages.length > 1) $("films").replaceChildren("Films:", ...pages.map(link));
  choices("threads", CORES > 1 ? [[1, "1"], [CORES, `all ${CORES}`]] : [[1, "1"]], 1);
  if (!self.crossOriginIsolated) {
    // without isolation there is no shared memory
    document.querySelectorAll("input[name=threads]").forEach((input) => (input.disabled = input.value > 1));
    $("alone").textContent = "One thread only: browsers share memory between threads on https and localhost alone, and only if the server isolates its pages, as minst bench web does.";
  }
  $("play").onclick = () => { state.paused = !state.paused; buttons(); };
  $("frame").oninput = () => pauseAt(Number($("frame").value) - 1);
  $("again").onclick = measure;
  $("download").onclick = download;
  setInterval(() => {
    if (!state.measuring && !state.paused && state.frames.length) show((state.shown + 1) % state.frames.length);
  }, REPLAY_MS);
  const runtime = `${about.runtime.name} ${about.runtime.version}, WASM`;
  const model = `${about.weights}, frames of ${width} × ${height}, clip “${about.sample}”`;
  $("device").textContent = `${runtime}; ${model}; ${CORES} cores; ${navigator.userAgent}`;
}

function choices(id, options, selected) {
  $(id).replaceChildren(...options.map(([value, text]) => {
    const input = element("input", { type: "radio", name: id, value, checked: value === selected, onchange: measure });
    return element("label", {}, input, element("span", { textContent: text }));
  }));
}

function pauseAt(t) {
  state.paused = true;
  show(t);
  buttons();
}

function show(t) {
  const frame = state.frames[t];
  if (!frame) return;
  state.shown = t;
  const [height, width] = about.size;
  const best = [...frame.instances].reverse(); // the best on top
  drawFrame($("view"), clip.subarray(3 * height * width * t), about.size, best, about.palette);
  $("view").setAttribute("aria-label", `frame ${t + 1}: ${frame.instances.map((i) => i.text).join(", ") || "nothing found"}`);
  $("frame").value = t + 1;
  $("where").textContent = `${t + 1} of ${about.frames}`;
  const key = state.frames.findLastIndex((f, i) => f.is_key && i <= t) + 1;
  $("badge").textContent = frame.is_key ? "key frame" : "reuse frame";
  $("badge").className = frame.is_key ? "key" : "reuse";
  $("said").textContent = `${ms(frame.ms.network)} ms of network${frame.is_key ? ", new kernels" : `, kernels of frame ${key}`}`;
  // milliseconds of every frame of this pass, as bars: key frames dark
  const most = Math.max(...state.frames.map((f) => f.ms.network));
  $("strip").replaceChildren(...state.frames.map((f, i) => {
    const bar = element("i", { className: f.is_key ? "key" : "reuse" });
    bar.style.height = `${(100 * f.ms.network) / most}%`;
    const title = `frame ${i + 1}: ${ms(f.ms.network)} ms`;
    return element("span", { title, className: i === t ? "now" : "", onclick: () => pauseAt(i) }, bar);
  }));
}

function showResults(run) {
  rows("network", ["key", "reuse"].map((kind) => {
    const f = run.network[kind];
    return [`${kind} frame`, ...(f ? [ms(f.median_ms), `${ms(f.p25_ms)} – ${ms(f.p75_ms)}`, ms(f.p95_ms), f.n] : ["–", "–", "–", 0])];
  }));
  rows("mean", INTERVALS.map((T) => {
    const mean = run.mean_frame_ms[T];
    return [`T = ${T}`, ...(mean ? [`${ms(mean)} ms`, `${(1000 / mean).toFixed(1)} frames a second`] : ["–", ""])];
  }));
  const pair = (name, times) => [name, ...[times.key, times.reuse].map((t) => (t ? ms(t.median_ms ?? t) : "–"))];
  rows("apart", [
    pair("bytes to floats", run.apart.before),
    pair("scores, association, masks", run.apart.after),
    pair("outlines and drawing", run.apart.drawing),
    pair("loading the program", run.load_ms),
    pair("first run", run.first_run_ms),
  ]);
}

function rows(id, lines) {
  $(id).tBodies[0].replaceChildren(...lines.map(([name, ...cells]) =>
    element("tr", {}, element("th", { scope: "row", textContent: name }), ...cells.map((textContent) => element("td", { textContent })))));
}

function download() {
  const { palette, inputs, outputs, setting, ...session } = about;
  const device = {
    user_agent: navigator.userAgent,
    cores: CORES,
    cross_origin_isolated: self.crossOriginIsolated,
    secure_context: self.isSecureContext,
  };
  const json = { kind: "minst bench web", format_version: 1, ...session, device, runs: state.runs };
  const href = URL.createObjectURL(new Blob([JSON.stringify(json, null, 1)], { type: "application/json" }));
  element("a", { href, download: `minst-web-${new Date().toISOString().slice(0, 19).replace(/\D/g, "")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

function buttons() {
  for (const id of ["play", "frame"]) $(id).disabled = false;
  $("play").textContent = state.paused ? "Play" : "Pause";
  $("again").disabled = state.measuring;
  $("download").disabled = !state.runs.length;
}

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
