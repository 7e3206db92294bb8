// A tracked frame on a canvas, as minst/visualize/masks.py draws it: half transparent masks, contours, tags.
//
// Lesson: notebooks/08_on_device_latency.ipynb

const [FILL, LINE, HALO] = [0.42, 1.1, 2.2]; // opacity of masks; widths of contour and white halo, in frame pixels

// bytes: RGB (H, W, 3) of one frame. instances: [{id, text, anchor, inside, line}]; the last on top.
export function drawFrame(canvas, bytes, [height, width], instances, palette) {
  const scale = canvas.width / width;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.drawImage(picture(bytes, height, width), 0, 0);
  context.lineCap = "round";
  for (const { id, inside, line } of instances) {
    const color = `rgb(${palette[(id - 1) % palette.length]})`;
    context.globalAlpha = FILL;
    context.fillStyle = color;
    context.fill(inside);
    for (const [style, wide, alpha] of [["white", HALO, 0.75], [color, LINE, 1]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: wide, globalAlpha: alpha });
      context.stroke(line);
    }
  }
  context.globalAlpha = 1;
  drawTags(context, instances, palette, width, height, width / (canvas.clientWidth || canvas.width));
}

// {logits >= threshold} as two Path2D, the pixels inside and the line about them, and where a tag stands: above the
// topmost pixel, in the middle of the mask.
export function outline(logits, threshold, height, width) {
  const [inside, line] = [new Path2D(), new Path2D()];
  let [top, left, right] = [height, width, 0];
  const value = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? -1e-3 : logits[y * width + x] - threshold);
  for (let y = -1; y < height; y++)
    for (let x = -1, start = 0; x < width; x++) {
      const values = [value(x, y), value(x + 1, y), value(x + 1, y + 1), value(x, y + 1)];
      const [here, next] = values.map((v) => v >= 0);
      if (next && !here) start = x + 1;
      if (here && !next) {
        inside.rect(start, y, x + 1 - start, 1);
        [top, left, right] = [Math.min(top, y), Math.min(left, start), Math.max(right, x + 1)];
      }
      march(line, values, x, y);
    }
  return { inside, line, anchor: [(left + right) / 2, top] };
}

// Marching squares: between four pixel centres the line goes from one edge that it crosses to another.
function march(line, values, x, y) {
  const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
  let open = false;
  for (let k = 0; k < 4; k++) {
    const [a, b] = [values[k], values[(k + 1) % 4]];
    if (a >= 0 === b >= 0) continue;
    const [[x0, y0], [x1, y1]] = [corners[k], corners[(k + 1) % 4]];
    const share = a / (a - b); // where it is zero, linearly
    line[open ? "lineTo" : "moveTo"](x0 + 0.5 + share * (x1 - x0), y0 + 0.5 + share * (y1 - y0));
    open = !open;
  }
}

function picture(bytes, height, width) {
  const small = Object.assign(document.createElement("canvas"), { width, height });
  const image = new ImageData(width, height);
  image.data.fill(255);
  for (let p = 0; p < height * width; p++) for (let c = 0; c < 3; c++) image.data[4 * p + c] = bytes[3 * p + c];
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

// Tags of 12 screen pixels above the masks; one that would cover another moves down. unit: frame pixels a screen pixel.
function drawTags(context, instances, palette, width, height, unit) {
  context.font = `${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const high = 17 * unit;
  const taken = [];
  for (const { id, text, anchor } of [...instances].reverse()) {
    const wide = context.measureText(text).width + 8 * unit;
    const x = Math.min(Math.max(anchor[0] - wide / 2, 1), width - wide - 1);
    let y = Math.max(anchor[1] - high - 2 * unit, 1);
    while (taken.some((t) => x < t.x + t.wide && t.x < x + wide && Math.abs(y - t.y) < high) && y + 2 * high < height) y += high;
    taken.push({ x, y, wide });
    const color = palette[(id - 1) % palette.length];
    context.fillStyle = `rgb(${color})`;
    context.fillRect(x, y, wide, high);
    context.fillStyle = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140 ? "white" : "black";
    context.fillText(text, x + 4 * unit, y + high / 2 + 0.5 * unit);
  }
}
