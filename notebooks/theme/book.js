// Theme, search, meanings of terms. All else works without this file.
const $ = (query) => document.querySelector(query);
const words = document.body.dataset;

$("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : root.dataset.theme === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.theme = root.dataset.theme; } catch { /* then it holds for this page */ }
});

// The index is a script and comes when it is first needed: a book that is opened from a folder may not fetch.
const input = $("#search"), found = $("#found");
const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
const index = () => new Promise((ready) => {
  if (window.bookIndex) return ready(window.bookIndex);
  const script = Object.assign(document.createElement("script"), { src: "search-index.js", onload: () => ready(window.bookIndex) });
  document.head.append(script);
});
input.addEventListener("input", async () => {
  const asked = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  found.hidden = !asked.length;
  const places = (await index()).map(([page, address, heading, text]) => {
    const name = heading === page ? page : `${page} · ${heading}`, title = name.toLowerCase(), all = `${title} ${text.toLowerCase()}`;
    return { name, address, text, fits: asked.every((word) => all.includes(word)), rank: asked.filter((word) => title.includes(word)).length + all.includes(asked.join(" ")) };
  }).filter((place) => place.fits).sort((a, b) => b.rank - a.rank);
  $("#found p").textContent = `${places.length} ${words.found}`;
  $("#found ul").innerHTML = places.slice(0, 30).map(({ name, address, text }) => {
    const from = Math.max(0, text.toLowerCase().indexOf(asked[0]) - 40);
    return `<li><a href="${address}">${escaped(name)}<small>${escaped(text.slice(from, from + 130))}</small></a></li>`;
  }).join("");
});
addEventListener("click", (event) => { if (!event.target.closest("search")) found.hidden = true; });
addEventListener("keydown", ({ key, target }) => {
  if (key === "/" && target !== input) setTimeout(() => input.focus());
  if (key === "Escape") { found.hidden = true; hide(); }
});

// What a term means: under the pointer, at the focus, at the first touch.
let box, leaving;
const hide = () => { box?.remove(); box = null; };
const later = () => { leaving = setTimeout(hide, 200); };
const stay = () => clearTimeout(leaving);
function show(term) {
  stay();
  hide();
  box = Object.assign(document.createElement("div"), { id: "says", role: "tooltip", textContent: term.dataset.says, onmouseenter: stay, onmouseleave: later });
  document.body.append(box);
  const { left, bottom } = term.getBoundingClientRect(), room = document.documentElement.clientWidth - box.offsetWidth - 16;
  box.style.left = `${Math.max(16, Math.min(left, room))}px`;
  box.style.top = `${bottom + scrollY}px`;
  term.setAttribute("aria-describedby", "says");
}
for (const term of document.querySelectorAll(".term")) {
  const on = { mouseenter: () => show(term), focus: () => show(term), mouseleave: later, blur: hide };
  for (const [name, act] of Object.entries(on)) term.addEventListener(name, act);
  term.addEventListener("touchend", (event) => { if (document.activeElement !== term) { event.preventDefault(); term.focus(); } });
}

// A film begins by itself only for who likes things to move.
if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
  for (const film of document.querySelectorAll("video")) {
    film.autoplay = false;
    film.pause();
  }
}

// What is wider than the page is scrolled with the keyboard too.
function measure() {
  for (const wide of document.querySelectorAll("pre, .scroll, .math.block")) {
    const over = wide.scrollWidth > wide.clientWidth || wide.scrollHeight > wide.clientHeight;
    for (const [name, value] of Object.entries({ tabindex: 0, role: "group", "aria-label": words.wide })) {
      if (over) wide.setAttribute(name, value); else wide.removeAttribute(name);
    }
  }
}
measure();
addEventListener("resize", measure);
document.addEventListener("toggle", measure, true);
