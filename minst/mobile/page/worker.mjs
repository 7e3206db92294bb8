// The network and the clock, on a thread of their own so that the page stays usable. What app.mjs asks, one at a time:
//
//     {start: {runtime (a URL), wasm, key, reuse, weights, frames (bytes), about, threads}}  -> {load}      sessions, warm-up
//     {track: setting}                                                              -> {ready}     a fresh tracker
//     {step: frame number}                                                          -> {result}    one frame, timed
//
// What is timed, in milliseconds: before (bytes to floats), network (one program), after (scores, association,
// enlargement, threshold). Drawing is app.mjs's. Lesson: notebooks/08_on_device_latency.ipynb

import { KernelTracker } from "./tracker.mjs";

const WARM_UP = 3; // runs of each program that are not counted, after the first, which is told apart

let ort, sessions, clip, tracker;

self.onmessage = async ({ data }) => {
  try {
    if (data.start) self.postMessage({ load: await start(data.start) });
    else if (data.track) self.postMessage({ ready: track(data.track) });
    else self.postMessage({ result: await step(data.step) });
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};

async function start({ runtime, wasm, key, reuse, weights, frames, about, threads }) {
  ort = await import(runtime);
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: threads, proxy: false });
  ort.env.logLevel = "error";
  clip = { frames, size: about.size };
  sessions = {};
  const said = { load_ms: {}, first_run_ms: {}, warm_up_ms: {} };
  const kernels = new Float32Array(about.inputs.kernels.reduce((a, b) => a * b));
  for (const [name, bytes] of Object.entries({ key, reuse })) {
    const begin = performance.now();
    sessions[name] = await ort.InferenceSession.create(bytes, {
      executionProviders: ["wasm"],
      externalData: [{ path: "weights.bin", data: weights }], // of both programs
    });
    said.load_ms[name] = performance.now() - begin; // the first of them starts the runtime, too
    const times = [];
    for (let i = 0; i <= WARM_UP; i++) {
      const feed = { frame: picture(i % about.frames) };
      if (name === "reuse") feed.kernels = tensor(kernels, about.inputs.kernels);
      const begin = performance.now();
      await sessions[name].run(feed);
      times.push(performance.now() - begin);
    }
    said.first_run_ms[name] = times[0];
    said.warm_up_ms[name] = times.slice(1);
  }
  return { ...said, threads: ort.env.wasm.numThreads };
}

function track({ setting, outputs }) {
  const [[, N, K], [, , D], [, , h, w]] = [outputs.class_logits, outputs.kernels, outputs.mask_logits];
  tracker = new KernelTracker(setting, clip.size, { N, K, D, h, w });
  return true;
}

async function step(number) {
  const times = [performance.now()];
  const isKey = tracker.isKey;
  const feed = { frame: picture(number) };
  if (!isKey) feed.kernels = tensor(tracker.kernels, [1, tracker.N, tracker.D]);
  times.push(performance.now());
  const out = await sessions[isKey ? "key" : "reuse"].run(feed);
  times.push(performance.now());
  const result = tracker.step(Object.fromEntries(Object.entries(out).map(([name, value]) => [name, value.data])));
  times.push(performance.now());
  const [before, network, after] = times.slice(1).map((time, i) => time - times[i]);
  return { ...result, ms: { before, network, after } };
}

// Frame `number`, RGB bytes (H, W, 3) -> (1, 3, H, W) floats in [0, 1].
function picture(number) {
  const [height, width] = clip.size;
  const pixels = height * width;
  const bytes = clip.frames.subarray(3 * pixels * number);
  const floats = new Float32Array(3 * pixels);
  for (let c = 0; c < 3; c++) for (let p = 0; p < pixels; p++) floats[c * pixels + p] = bytes[3 * p + c] / 255;
  return tensor(floats, [1, 3, height, width]);
}

function tensor(values, shape) {
  return new ort.Tensor("float32", values, shape);
}
