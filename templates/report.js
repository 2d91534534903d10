"use strict";
// Tables are searched and sorted, charts fill the width and are read out; the page is whole without any of it.

const LEFT = 54, RIGHT = 508, TOP = 20, BOTTOM = 212, HEIGHT = 250; // the frame of a chart, as report/charts.py has it
const all = (root, selector) => [...root.querySelectorAll(selector)];

// ---- what the reader set stays when the page is read again

const kept = {
  key: `orchestrator ${location.pathname}`,
  read() { try { return JSON.parse(sessionStorage.getItem(this.key)) || {}; } catch { return {}; } },
  write(name, value) {
    try { sessionStorage.setItem(this.key, JSON.stringify({ ...this.read(), [name]: value })); } catch { /* not here */ }
  },
};

function keepFolds(root) {
  for (const fold of all(root, "details")) {
    const place = fold.closest("section") || document.body;
    const name = `fold ${place.querySelector("h2")?.textContent} ${all(place, "details").indexOf(fold)}`;
    const before = kept.read()[name];
    if (before !== undefined) fold.open = before;
    fold.addEventListener("toggle", () => { if (!printing) kept.write(name, fold.open); });
  }
}

// ---- tables

function filters(root) {
  for (const box of all(root, "[data-filter]")) {
    const table = document.getElementById(box.dataset.filter);
    const rows = [...table.tBodies[0].rows];
    const [words, kind, count] = ["input", "select", "output"].map((name) => box.querySelector(name));
    const apply = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const other = kind.value !== "" && !row.dataset.kind.split("\n").includes(kind.value);
        row.hidden = other || !wanted.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
      kept.write(`filter ${table.id}`, [words.value, kind.value]);
    };
    [words.value, kind.value] = kept.read()[`filter ${table.id}`] || ["", ""];
    if (kind.selectedIndex < 0) kind.value = "";
    for (const change of ["input", "change"]) box.addEventListener(change, apply);
    box.hidden = false;
    apply();
  }
}

function cellValue(row, column) {
  const cell = row.cells[column];
  const text = cell ? cell.dataset.value || cell.textContent.trim() : "";
  const number = Number(text.replaceAll(",", "").split(/[\s(–]/)[0]);
  return text !== "" && !Number.isNaN(number) ? number : text;
}

function compareValues(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function tables(root) {
  for (const table of all(root, "table[id]")) {
    const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => { cell.dataset.label = heads[column]?.textContent || ""; });
    }
    table.classList.add("labelled");
    if (table.tBodies[0].rows.length > 1) heads.forEach((head, column) => sortable(table, head, column));
  }
}

function sortable(table, head, column) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sort";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [cellValue(row, column), row]);
    rows.sort(([a], [b]) => (a === "" || b === "" || up ? compareValues(a, b) : compareValues(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}

// ---- a text to take along

function copies(root) {
  for (const box of all(root, ".copied")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const text = box.querySelector("pre").textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch { // a page from disk may not be trusted with the clipboard
        const field = document.createElement("textarea");
        field.value = text;
        document.body.append(field);
        field.select();
        document.execCommand("copy");
        field.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    box.prepend(button);
  }
}

// ---- charts

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);

const short = (value, digits) => (value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e5)
  ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : String(Number(value.toPrecision(digits))));

function scaleOf(data) {
  if (!data) return null;
  const [low, high, start, end, kind] = data.split(" ");
  const to = kind === "log" ? Math.log10 : Number, from = kind === "log" ? (value) => 10 ** value : Number;
  const a = to(Number(low)), b = to(Number(high)), first = Number(start), last = Number(end);
  return {
    low: Number(low), high: Number(high), log: kind === "log",
    value: (pixel) => from(a + (pixel - first) / (last - first) * (b - a)),
  };
}

// The first values count less than they would in a plain running mean: as TensorBoard smooths.
function smoothed(values, weight) {
  let sum = 0, count = 0;
  return values.map((value) => {
    sum = sum * weight + value * (1 - weight);
    count = count * weight + (1 - weight);
    return sum / count;
  });
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of [1, 2, 5]) found.push(factor * 10 ** power);
  }
  return found.filter((value) => value >= low && value <= high);
}

class Chart {
  constructor(svg) {
    this.svg = svg;
    [this.x, this.y] = [scaleOf(svg.dataset.x), scaleOf(svg.dataset.y)];
    this.log = false;
    this.weight = 0;
    this.at = -1;
    const number = (shape, ...names) => names.map((name) => Number(shape.getAttribute(name)));
    this.grid = all(svg, "line").map((shape) => ({ shape, at: number(shape, "x1", "y1", "x2", "y2") }));
    this.texts = all(svg, "text").map((shape) => ({ shape, at: number(shape, "x", "y") }));
    this.shapes = all(svg, "[data-name]").map((shape) => ({
      shape,
      points: shape.points ? [...shape.points].map(({ x, y }) => [x, y]) : [number(shape, "cx", "cy")],
    }));
    this.lines = this.shapes.filter(({ shape }) => shape.points);
    this.own = [];
    if (this.x && this.lines.some(({ points }) => points.length > 2)) this.tune();
    new ResizeObserver(() => this.draw()).observe(svg);
    svg.addEventListener("pointermove", (event) => this.near(event));
    for (const name of ["pointerleave", "blur"]) svg.addEventListener(name, () => this.leave());
    svg.addEventListener("keydown", (event) => this.key(event));
    this.draw();
  }

  tune() {
    const bar = document.createElement("p"), name = this.svg.getAttribute("aria-label");
    bar.className = "tune";
    bar.innerHTML = '<label>Smoothing <input type="range" min="0" max="0.95" step="0.05"></label>'
      + '<label><input type="checkbox"> log axis</label>';
    const [range, box] = bar.querySelectorAll("input");
    const before = kept.read()[`chart ${name}`] || [0, false];
    [range.value, box.checked] = before;
    box.parentElement.hidden = !(this.y.low > 0);
    const apply = () => {
      [this.weight, this.log] = [Number(range.value), box.checked && this.y.low > 0];
      kept.write(`chart ${name}`, [range.value, box.checked]);
      this.draw();
    };
    for (const input of [range, box]) input.addEventListener("input", apply);
    [this.weight, this.log] = [Number(before[0]), Boolean(before[1]) && this.y.low > 0];
    this.svg.before(bar);
  }

  draw() {
    const width = Math.max(280, Math.round(this.svg.getBoundingClientRect().width) || 520);
    const tall = Math.min(1.5, Math.max(1, width / 620));
    this.px = (x) => (x <= LEFT ? x : LEFT + (x - LEFT) * (width - LEFT - 12) / (RIGHT - LEFT));
    this.py = (y) => (y <= TOP ? y : y >= BOTTOM ? y - BOTTOM + this.bottom : TOP + (y - TOP) * tall);
    this.bottom = TOP + (BOTTOM - TOP) * tall;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${Math.round(HEIGHT - BOTTOM + this.bottom)}`);
    for (const { shape, at } of this.grid) {
      ["x1", "y1", "x2", "y2"].forEach((name, i) => shape.setAttribute(name, i % 2 ? this.py(at[i]) : this.px(at[i])));
    }
    for (const { shape, at } of this.texts) {
      shape.setAttribute("x", this.px(at[0]));
      shape.setAttribute("y", shape.matches(".tick.end") ? this.py(at[1] - 4) + 4 : this.py(at[1]));
    }
    this.axis(width);
    this.place();
  }

  // On a log axis the linear one's rows make room for rows of its own.
  axis(width) {
    for (const extra of this.own) extra.remove();
    this.own = [];
    const rows = [...this.grid.filter(({ at }) => at[1] === at[3]), ...this.texts.filter(({ shape }) => shape.matches(".tick.end"))];
    for (const { shape } of rows) shape.toggleAttribute("hidden", this.log);
    if (!this.log) return;
    let last = Infinity;
    for (const value of logTicks(this.y.low, this.y.high)) {
      const at = this.ofValue(value);
      if (last - at < 16) continue;
      last = at;
      const line = this.element("line", { class: "grid", x1: LEFT, x2: width - 12, y1: at, y2: at });
      const text = this.element("text", { class: "tick end", x: LEFT - 6, y: at + 4 });
      text.textContent = short(value, 3);
      this.svg.prepend(line);
      this.svg.append(text);
      this.own.push(line, text);
    }
  }

  element(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  ofValue(value) {
    const share = (Math.log10(value) - Math.log10(this.y.low)) / (Math.log10(this.y.high) - Math.log10(this.y.low));
    return this.bottom - share * (this.bottom - TOP);
  }

  place() {
    const down = (pixel) => (this.log ? this.ofValue(this.y.value(pixel)) : this.py(pixel));
    this.marks = [];
    for (const ghost of all(this.svg, ".ghost")) ghost.remove();
    for (const { shape, points } of this.shapes) {
      const raw = points.map(([x, y]) => [this.px(x), down(y)]);
      const values = this.weight && shape.points ? smoothed(points.map(([, y]) => y), this.weight) : points.map(([, y]) => y);
      const drawn = raw.map(([x], i) => [x, down(values[i])]);
      if (shape.points) {
        shape.setAttribute("points", drawn.map((point) => point.join(",")).join(" "));
        if (this.weight) this.ghost(shape, raw);
      } else {
        shape.setAttribute("cx", raw[0][0]);
        shape.setAttribute("cy", raw[0][1]);
      }
      drawn.forEach(([x, y], i) => this.marks.push({ shape, x, y, read: [points[i][0], values[i]] }));
    }
    this.marks.sort((a, b) => a.x - b.x || a.y - b.y);
  }

  // What was measured, faint behind its smoothed line.
  ghost(shape, raw) {
    const behind = shape.cloneNode();
    behind.removeAttribute("data-name");
    behind.classList.add("ghost");
    behind.setAttribute("points", raw.map((point) => point.join(",")).join(" "));
    shape.before(behind);
  }

  words(mark) {
    const name = mark.shape.dataset.name;
    return this.x ? `${name} (${short(this.x.value(mark.read[0]), 4)}, ${short(this.y.value(mark.read[1]), 3)})` : name;
  }

  // Where few lines are drawn, all of them are read at once at the place pointed at; else the nearest mark.
  near(event) {
    const corner = this.svg.getBoundingClientRect(), zoom = corner.width / this.svg.viewBox.baseVal.width;
    const x = (event.clientX - corner.left) / zoom, y = (event.clientY - corner.top) / zoom;
    const few = this.x && this.lines.length > 0 && this.shapes.length <= 8;
    let best = -1, least = few ? Infinity : 900;
    this.marks.forEach((mark, index) => {
      const distance = few ? Math.abs(mark.x - x) + Math.abs(mark.y - y) / 1e4 : (mark.x - x) ** 2 + (mark.y - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    if (best < 0) this.leave();
    else this.show(best, event.clientX, event.clientY, few);
  }

  show(index, left, top, few = false) {
    this.leave();
    this.at = index;
    const mark = this.marks[index];
    mark.shape.classList.add("hot");
    const beside = few ? this.marks.filter(({ x }) => Math.abs(x - mark.x) < 0.5) : [mark];
    tip.textContent = beside.map((each) => this.words(each)).join("\n");
    tip.hidden = false;
    tip.style.left = `${Math.max(8, Math.min(left + 14, window.innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, top - tip.offsetHeight - 10)}px`;
  }

  leave() {
    tip.hidden = true;
    if (this.at >= 0) this.marks[this.at].shape.classList.remove("hot");
    this.at = -1;
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !this.marks.length) return;
    event.preventDefault();
    const next = (this.at + step + this.marks.length) % this.marks.length;
    const corner = this.svg.getBoundingClientRect(), zoom = corner.width / this.svg.viewBox.baseVal.width;
    this.show(next, corner.left + this.marks[next].x * zoom, corner.top + this.marks[next].y * zoom);
  }
}

// ---- the whole page, or a part of one that was put in later

let printing = false;

function enliven(root) {
  filters(root);
  tables(root);
  copies(root);
  keepFolds(root);
  for (const svg of all(root, "svg.chart")) new Chart(svg);
}

addEventListener("beforeprint", () => {
  printing = true;
  for (const fold of all(document, "details")) fold.open = true;
});
addEventListener("afterprint", () => setTimeout(() => { printing = false; }));
addEventListener("pagehide", () => kept.write("scroll", [scrollX, scrollY]));

enliven(document);
if ("live" in document.documentElement.dataset) scrollTo(...(kept.read().scroll || [0, 0]));
