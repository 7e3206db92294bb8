"""A picture with an SVG over it that says where it was clicked: a widget that ipywidgets lacks.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import anywidget
import traitlets

__all__ = ["View"]

SCRIPT = """
function render({ model, el }) {
  const image = document.createElement("img");
  const overlay = document.createElement("div");
  el.classList.add("minst-view");
  el.append(image, overlay);
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
  const name = () => { image.alt = model.get("label"); el.dataset.label = model.get("label"); };
  model.on("change:image", drawImage);
  model.on("change:overlay", drawOverlay);
  drawImage(); drawOverlay(); name();
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
  return () => URL.revokeObjectURL(address);
}
export default { render };
"""
STYLE = """
.minst-view { position: relative; display: inline-block; margin: 2px; line-height: 0; }
.minst-view { cursor: pointer; }
.minst-view img { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 4px; }
.minst-view > div { position: relative; }
.minst-view svg { max-width: 100%; height: auto; font-family: system-ui, sans-serif; }
"""


class View(anywidget.AnyWidget):
    """`image` (JPEG bytes, or none) below `overlay` (an SVG, which gives the size).

    `click` becomes {"x", "y"} in [0, 1] from the upper left, "pick" (the `data-pick` of what was
    hit, or "") and "count".
    """

    _esm = SCRIPT
    _css = STYLE
    image = traitlets.Bytes(b"").tag(sync=True)
    overlay = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    click = traitlets.Dict().tag(sync=True)
