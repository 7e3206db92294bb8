/* A tracked frame on a canvas, as minst/visualize/masks.py draws it: half transparent masks, crisp contours, tags.

   Lesson: notebooks/08_on_device_latency.ipynb */

const [FILL, LINE, HALO] = [0.42, 1.1, 2.2]; // opacity of masks; widths of contour and white halo, in frame pixels

/* bytes: RGB (H, W, 3) of one frame. instances: [{id, text, path}]; the last on top. */
export function drawFrame(canvas, bytes, [height, width], instances, palette) {
  const scale = canvas.width / width;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture(bytes, height, width), 0, 0, width, height);
  context.lineJoin = "round";
  for (const { id, path } of instances) {
    const color = `rgb(${colorOf(id, palette)})`;
    context.globalAlpha = FILL;
    context.fillStyle = color;
    context.fill(path, "evenodd");
    for (const [style, line, alpha] of [["white", HALO, 0.75], [color, LINE, 1]]) {
      [context.strokeStyle, context.lineWidth, context.globalAlpha] = [style, line, alpha];
      context.stroke(path);
    }
  }
  context.globalAlpha = 1;
  drawTags(context, instances, palette, width, height, width / (canvas.clientWidth || canvas.width));
}

export function colorOf(id, palette) {
  return palette[(id - 1) % palette.length];
}

/* The outline of {logits >= threshold} as a Path2D: marching squares, every crossing placed linearly between two pixel
   centres. Walking round a cell, the mask is entered on one edge and left on another; each such pair is a piece of
   outline, and the edge where it ends is where the neighbouring cell's piece begins. */
export function outline(logits, threshold, height, width) {
  const inside = padded(logits, threshold, height, width);
  const value = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? -1e-3 : logits[y * width + x] - threshold);
  const next = new Map(); // edge where a piece begins -> edge where it ends
  const points = new Map(); // edge -> where the outline crosses it
  const cross = ([x0, y0], [x1, y1]) => {
    const edge = 2 * ((Math.min(y0, y1) + 1) * (width + 2) + Math.min(x0, x1) + 1) + (x0 === x1 ? 1 : 0);
    const [a, b] = [value(x0, y0), value(x1, y1)];
    const share = a === b ? 0.5 : a / (a - b);
    points.set(edge, [x0 + 0.5 + share * (x1 - x0), y0 + 0.5 + share * (y1 - y0)]);
    return edge;
  };
  for (let y = 0; y <= height; y++)
    for (let x = 0; x <= width; x++) {
      const corner = y * (width + 2) + x;
      const round = [inside[corner], inside[corner + 1], inside[corner + width + 3], inside[corner + width + 2]];
      if (round[0] === round[1] && round[1] === round[2] && round[2] === round[3]) continue;
      const at = [[x - 1, y - 1], [x, y - 1], [x, y], [x - 1, y]];
      for (let i = 0; i < 4; i++) {
        if (round[i] || !round[(i + 1) % 4]) continue; // entered between corners i and i + 1
        let k = (i + 1) % 4;
        while (round[(k + 1) % 4]) k = (k + 1) % 4; // left between k and k + 1
        next.set(cross(at[i], at[(i + 1) % 4]), cross(at[k], at[(k + 1) % 4]));
      }
    }
  return join(next, points);
}

/* The mask with a ring of pixels that lie outside: every outline is closed. (H + 2, W + 2) */
function padded(logits, threshold, height, width) {
  const inside = new Uint8Array((height + 2) * (width + 2));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) inside[(y + 1) * (width + 2) + x + 1] = logits[y * width + x] >= threshold;
  return inside;
}

function join(next, points) {
  const path = new Path2D();
  while (next.size) {
    let edge = next.keys().next().value;
    path.moveTo(...points.get(edge));
    while (next.has(edge)) {
      const end = next.get(edge);
      next.delete(edge);
      path.lineTo(...points.get(end));
      edge = end;
    }
    path.closePath();
  }
  return path;
}

function picture(bytes, height, width) {
  const small = Object.assign(document.createElement("canvas"), { width, height });
  const image = new ImageData(width, height);
  image.data.fill(255);
  for (let p = 0; p < height * width; p++) for (let c = 0; c < 3; c++) image.data[4 * p + c] = bytes[3 * p + c];
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

/* Tags of 12 screen pixels above the masks; one that would cover another moves down, then up. unit: frame pixels a
   screen pixel. */
function drawTags(context, instances, palette, width, height, unit) {
  context.font = `${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const high = 17 * unit;
  const taken = [];
  for (const { id, text, anchor } of [...instances].reverse()) {
    const wide = context.measureText(text).width + 8 * unit;
    const x = Math.min(Math.max(anchor[0] - wide / 2, 1), width - wide - 1);
    const free = (y) => y >= 0 && y + high <= height && !taken.some((t) => x < t.x + t.wide && t.x < x + wide && Math.abs(y - t.y) < high);
    const wanted = Math.max(anchor[1] - high - 2 * unit, 1);
    const y = [0, 1, -1, 2, -2, 3].map((n) => wanted + n * (high + unit)).find(free) ?? wanted;
    taken.push({ x, y, wide });
    const color = colorOf(id, palette);
    context.fillStyle = `rgb(${color})`;
    context.beginPath();
    context.rect(x, y, wide, high);
    context.fill();
    context.fillStyle = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140 ? "white" : "black";
    context.fillText(text, x + 4 * unit, y + high / 2 + 0.5 * unit);
  }
}
