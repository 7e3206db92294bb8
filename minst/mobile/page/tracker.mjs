// The tracker of minst/tracking.py once more, in the visitor's language: kernel reuse and kernel association.
//
//     key frame     key.onnx    frame          -> class_logits (N, K), objectness (N), kernels (N, D),
//                                                 mask_features (D, h, w), mask_logits (N, h, w)
//     other frames  reuse.onnx  frame, kernels -> mask_logits (N, h, w)
//
// Only the network is another file's work (worker.mjs), so all of this also runs in node, without a browser.
// Tensors are flat Float32Arrays, row after row. Symbols: N queries = slots, K classes, D channels, h w = H/8, W/8.
//
// Lesson: notebooks/08_on_device_latency.ipynb

const STRIDE = 8; // of the mask logits
const TIE_BREAK = 1e-6; // equal similarities leave a query in its slot

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

export class KernelTracker {
  // setting: {reuse_interval, association, score_threshold, mask_threshold, min_area, max_absence}, as in Python.
  constructor(setting, [height, width], { N, K, D, h, w }) {
    Object.assign(this, { setting, height, width, N, K, D, h, w });
    this.maskLogit = Math.log(setting.mask_threshold / (1 - setting.mask_threshold));
    Object.assign(this, { frame: 0, sinceKey: 0, nextId: 1, slots: null });
  }

  // Which program the next frame is for.
  get isKey() {
    return this.slots === null || this.sinceKey >= this.setting.reuse_interval;
  }

  // The outputs of the program that `isKey` asked for -> {frame, is_key, instances}, best score first.
  // An instance: {id, label, score, query, logits (H * W) at full size}; a pixel is its own where logits >= maskLogit.
  step(out) {
    const isKey = this.isKey;
    if (isKey) this.#keyFrame(out);
    this.sinceKey = isKey ? 1 : this.sinceKey + 1;
    return { instances: this.#report(out.mask_logits, isKey), is_key: isKey, frame: this.frame++ };
  }

  #keyFrame(out) {
    const { N, K, setting } = this;
    const scores = classScores(out.class_logits, out.objectness, N, K); // (N, K)
    const best = rows(scores, N, K).map((row) => Math.max(...row)); // (N)
    const first = this.slots === null;
    if (first) this.slots = Array.from({ length: N }, () => ({ id: 0, seen: 0, lastSeen: 0, total: new Float32Array(K) }));
    const order = first ? [...Array(N).keys()] : assign(this.#similarity(out, best), N);
    const kernels = rows(out.kernels, N, this.D);
    this.kernels = Float32Array.from(order.flatMap((query) => [...kernels[query]])); // slot by slot, for reuse.onnx
    this.slots.forEach((slot, i) => {
      slot.query = order[i];
      slot.score = best[order[i]];
      if (slot.score >= setting.score_threshold) {
        for (let k = 0; k < K; k++) slot.total[k] += scores[order[i] * K + k];
        slot.seen += 1;
        slot.lastSeen = this.frame;
      } else if (slot.seen && this.frame - slot.lastSeen > setting.max_absence) {
        Object.assign(slot, { id: 0, seen: 0, total: new Float32Array(K) });
      }
    });
  }

  // Slots x new queries (N, N): how alike two kernels are, times both scores: only live ones compete.
  #similarity(out, best) {
    const { N, D, kernels } = this;
    const alike =
      this.setting.association === "cosine"
        ? cosineSimilarity(kernels, out.kernels, N, D)
        : maskSimilarity(applyKernels(kernels, out.mask_features, N, D), out.mask_logits, N);
    return table(N, (i, j) => alike[i * N + j] * this.slots[i].score * best[j]);
  }

  // Masks of the live slots alone. After a key frame row n of the mask logits is query n, after a reuse frame slot n.
  #report(maskLogits, isKey) {
    const { setting, h, w, height, width } = this;
    const found = [];
    this.slots.forEach((slot, i) => {
      if (slot.score < setting.score_threshold) return;
      const row = isKey ? slot.query : i;
      const logits = upsample(maskLogits.subarray(row * h * w, (row + 1) * h * w), h, w, height, width);
      if (logits.filter((x) => x >= this.maskLogit).length < setting.min_area) return;
      slot.id ||= this.nextId++;
      const mean = Array.from(slot.total, (x) => x / Math.max(slot.seen, 1));
      const score = Math.max(...mean);
      found.push({ id: slot.id, label: mean.indexOf(score), score, query: slot.query, logits });
    });
    return found.sort((a, b) => b.score - a.score);
  }
}

// sqrt(class probability * objectness): logits (N, K), (N) -> (N, K).
export function classScores(classLogits, objectness, N, K) {
  return Float32Array.from(classLogits.subarray(0, N * K), (x, i) =>
    Math.sqrt(sigmoid(x) * sigmoid(objectness[Math.floor(i / K)])),
  );
}

// Cosine of every old kernel with every new one: (N, D), (N, D) -> (N, N).
export function cosineSimilarity(older, newer, N, D) {
  const [a, b] = [older, newer].map((kernels) => rows(kernels, N, D).map(unit));
  return table(N, (i, j) => dot(a[i], b[j]));
}

// Dice of what every old and every new kernel segments in the new frame: logits (N, h * w) twice
// -> (N, N).
export function maskSimilarity(olderLogits, newerLogits, N) {
  const [a, b] = [olderLogits, newerLogits].map((logits) => rows(logits.map(sigmoid), N, logits.length / N));
  const [aa, bb] = [a, b].map((masks) => masks.map((mask) => dot(mask, mask)));
  return table(N, (i, j) => (2 * dot(a[i], b[j])) / (aa[i] + bb[j] + 1e-4));
}

// M = K . X_mask: (N, D), (D, h * w) -> (N, h * w).
export function applyKernels(kernels, features, N, D) {
  const pixels = features.length / D;
  const out = new Float32Array(N * pixels);
  for (let n = 0; n < N; n++)
    for (let d = 0; d < D; d++) {
      const k = kernels[n * D + d]; // the innermost loop walks along memory
      for (let p = 0, o = n * pixels, f = d * pixels; p < pixels; p++) out[o + p] += k * features[f + p];
    }
  return out;
}

// One-to-one assignment of largest total similarity, (N, N) -> the column of every row.
//
// The Hungarian algorithm by shortest augmenting paths, O(N^3). `u` and `v` are prices with cost[i][j] >= u[i] + v[j]
// always, and equality on assigned pairs: what proves the assignment optimal. Every row in turn looks for a free column
// along cheapest detours; index 0 of each array stands for "the row being placed".
export function assign(similarity, N) {
  const cost = (i, j) => -similarity[(i - 1) * N + j - 1] - (i === j ? TIE_BREAK : 0); // i, j from 1
  const u = new Float64Array(N + 1);
  const v = new Float64Array(N + 1);
  const rowOf = new Int32Array(N + 1); // column -> its row, 0 = free
  for (let row = 1; row <= N; row++) {
    const shortest = new Float64Array(N + 1).fill(Infinity); // to every column, so far
    const from = new Int32Array(N + 1); // the column before it on that path
    const done = new Uint8Array(N + 1);
    let column = 0;
    rowOf[0] = row;
    do {
      done[column] = 1;
      const i = rowOf[column];
      let [step, next] = [Infinity, 0];
      for (let j = 1; j <= N; j++) {
        if (done[j]) continue;
        const detour = cost(i, j) - u[i] - v[j];
        if (detour < shortest[j]) [shortest[j], from[j]] = [detour, column];
        if (shortest[j] < step) [step, next] = [shortest[j], j];
      }
      if (!next) throw new Error("assign: the similarities are not finite");
      for (let j = 0; j <= N; j++) {
        if (done[j]) [u[rowOf[j]], v[j]] = [u[rowOf[j]] + step, v[j] - step];
        else shortest[j] -= step;
      }
      column = next;
    } while (rowOf[column]);
    for (; column; column = from[column]) rowOf[column] = rowOf[from[column]]; // everybody on the path moves on by one
  }
  const columns = new Array(N);
  for (let j = 1; j <= N; j++) columns[rowOf[j] - 1] = j - 1;
  return columns;
}

// Bilinear enlargement by 8 (pixel centres at half coordinates, edges repeated), cut to the frame: (h, w) -> (H, W).
export function upsample(small, h, w, height, width) {
  const across = neighbours(width, w);
  const down = neighbours(height, h);
  const line = new Float64Array(w);
  const out = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const [above, below, share] = [down.first[y] * w, down.second[y] * w, down.share[y]];
    for (let x = 0; x < w; x++) line[x] = small[above + x] * (1 - share) + small[below + x] * share;
    for (let x = 0; x < width; x++) {
      const along = across.share[x];
      out[y * width + x] = line[across.first[x]] * (1 - along) + line[across.second[x]] * along;
    }
  }
  return out;
}

// Of every fine position its two neighbours on the coarse axis, and the share of the second.
function neighbours(fine, coarse) {
  const at = Float64Array.from({ length: fine }, (_, i) => Math.max((i + 0.5) / STRIDE - 0.5, 0));
  const first = Int32Array.from(at, Math.floor);
  return { first, second: first.map((i) => Math.min(i + 1, coarse - 1)), share: at.map((x, i) => x - first[i]) };
}

// A mask as COCO's uncompressed run-length code: runs of 0 and 1 in turn, column after column, beginning with 0.
export function encodeMask(logits, threshold, height, width) {
  const counts = [];
  let [value, start] = [false, 0]; // of this run
  for (let p = 0; p < height * width; p++) {
    const [x, y] = [Math.floor(p / height), p % height];
    const inside = logits[y * width + x] >= threshold;
    if (inside === value) continue;
    counts.push(p - start);
    [value, start] = [inside, p];
  }
  return { size: [height, width], counts: [...counts, height * width - start] };
}

function rows(flat, N, length) {
  return Array.from({ length: N }, (_, i) => flat.subarray(i * length, (i + 1) * length));
}

function table(N, value) {
  return Float32Array.from({ length: N * N }, (_, k) => value(Math.floor(k / N), k % N));
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function unit(vector) {
  const length = Math.max(Math.sqrt(dot(vector, vector)), 1e-12);
  return vector.map((x) => x / length);
}
