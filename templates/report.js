"use strict";
// Tables are searched and charts read out; the page is whole without any of it.

for (const box of document.querySelectorAll("[data-filter]")) {
  const rows = [...document.getElementById(box.dataset.filter).tBodies[0].rows];
  const [words, kind, count] = ["input", "select", "output"].map((name) => box.querySelector(name));
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (kind.value !== "" && row.dataset.kind !== kind.value) || !wanted.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  for (const change of ["input", "change"]) box.addEventListener(change, apply);
  box.hidden = false;
  apply();
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);

const short = (value, digits) => (value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e5)
  ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : String(Number(value.toPrecision(digits))));

function reader(data, digits) {
  if (!data) return null;
  const [low, high, start, end, kind] = data.split(" ");
  const [from, to] = kind === "log" ? [Math.log10(low), Math.log10(high)] : [Number(low), Number(high)];
  return (pixel) => {
    const value = from + (pixel - start) / (end - start) * (to - from);
    return short(kind === "log" ? 10 ** value : value, digits);
  };
}

function markers(svg) {
  const found = [];
  for (const shape of svg.querySelectorAll("[data-name]")) {
    const places = shape.points ? [...shape.points] : [{ x: shape.cx.baseVal.value, y: shape.cy.baseVal.value }];
    for (const place of places) found.push({ shape, x: place.x, y: place.y });
  }
  return found.sort((a, b) => a.x - b.x || a.y - b.y);
}

for (const svg of document.querySelectorAll("svg.chart")) {
  const readers = [reader(svg.dataset.x, 4), reader(svg.dataset.y, 3)];
  let all = null, at = -1;
  const leave = () => {
    tip.hidden = true;
    if (at >= 0) all[at].shape.classList.remove("hot");
    at = -1;
  };
  const show = (index) => {
    leave();
    at = index;
    const marker = all[at], corner = svg.getBoundingClientRect(), zoom = corner.width / svg.viewBox.baseVal.width;
    marker.shape.classList.add("hot");
    const values = readers[0] ? ` (${readers[0](marker.x)}, ${readers[1](marker.y)})` : "";
    tip.textContent = marker.shape.dataset.name + values;
    tip.hidden = false;
    tip.style.left = `${Math.min(corner.left + marker.x * zoom + 12, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${corner.top + marker.y * zoom - 34}px`;
  };
  const near = (event) => {
    all = all || markers(svg);
    const corner = svg.getBoundingClientRect(), zoom = corner.width / svg.viewBox.baseVal.width;
    const x = (event.clientX - corner.left) / zoom, y = (event.clientY - corner.top) / zoom;
    let best = -1, least = 900;
    all.forEach((marker, index) => {
      const distance = (marker.x - x) ** 2 + (marker.y - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    if (best < 0) leave(); else show(best);
  };
  svg.addEventListener("pointermove", near);
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    all = all || markers(svg);
    if (!step || !all.length) return;
    event.preventDefault();
    show((at + step + all.length) % all.length);
  });
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
