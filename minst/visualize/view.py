"""A picture with an SVG over it that says where it was clicked: a widget that ipywidgets lacks.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import anywidget
import traitlets

__all__ = ["View"]

SCRIPT = """
const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
function render({ model, el }) {
  const image = document.createElement("img");
  const overlay = document.createElement("div");
  el.classList.add("minst-view");
  const spoken = document.createElement("p");  // what a screen reader says of a change
  spoken.setAttribute("aria-live", "polite");
  el.append(image, overlay, spoken);
  let address = "";
  const drawImage = () => {
    const bytes = model.get("image");
    image.hidden = !bytes || !bytes.byteLength;
    if (image.hidden) return;
    const old = address;
    address = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    // The old picture stays until the new one is there.
    image.onload = () => old && URL.revokeObjectURL(old);
    image.src = address;
  };
  const drawOverlay = () => { overlay.innerHTML = model.get("overlay"); };
  const say = () => { spoken.textContent = model.get("spoken"); };
  const name = () => { image.alt = model.get("label"); el.dataset.label = model.get("label"); };
  model.on("change:image", drawImage);
  model.on("change:overlay", drawOverlay);
  model.on("change:spoken", say);
  drawImage(); drawOverlay(); say(); name();
  let count = 0;  // so that two clicks at one place are two events
  el.addEventListener("click", (event) => {
    const box = el.getBoundingClientRect();
    const target = event.target.closest("[data-pick]");
    model.set("click", {
      x: (event.clientX - box.left) / box.width,
      y: (event.clientY - box.top) / box.height,
      pick: target ? target.dataset.pick : "",
      count: ++count,
    });
    model.save_changes();
  });
  if (model.get("help")) {
    Object.assign(el, { tabIndex: 0, role: "application", ariaLabel: model.get("help") });
    el.addEventListener("keydown", (event) => {
      if (!KEYS.includes(event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();  // or the page would scroll
      model.set("key", { name: event.key, count: ++count });
      model.save_changes();
    });
  }
  return () => URL.revokeObjectURL(address);
}
export default { render };
"""
STYLE = """
.minst-view { position: relative; display: inline-block; margin: 2px; line-height: 0; }
.minst-view { cursor: pointer; }
.minst-view img { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 4px; }
.minst-view > div { position: relative; }
.minst-view > p { position: absolute; width: 1px; height: 1px; overflow: hidden; margin: 0; }
.minst-view:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; border-radius: 4px; }
.minst-view svg { max-width: 100%; height: auto; font-family: system-ui, sans-serif; }
"""


class View(anywidget.AnyWidget):
    """`image` (JPEG bytes, or none) below `overlay` (an SVG, which gives the size).

    `click` becomes {"x", "y"} in [0, 1] from the upper left, "pick" (the `data-pick` of what was
    hit, or "") and "count". With `help`, which says what keys do, it takes arrows, Home and End:
    `key` becomes {"name", "count"}. `spoken` is read aloud by screen readers when it changes.
    """

    _esm = SCRIPT
    _css = STYLE
    image = traitlets.Bytes(b"").tag(sync=True)
    overlay = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    help = traitlets.Unicode("").tag(sync=True)
    spoken = traitlets.Unicode("").tag(sync=True)
    key = traitlets.Dict().tag(sync=True)
    click = traitlets.Dict().tag(sync=True)
