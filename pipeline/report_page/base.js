// What all parts of the page are made of. Text from images and workflows becomes text, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
/* Put children in the place of those that a node has; what is false or null is none. */
const refill = (node, ...children) => { node.replaceChildren(); return fill(node, null, children); };
const drawing = (width, height, title, ...children) =>
  svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title }, ...children);
const chart = (...all) => el("div", { class: "chart" }, drawing(...all));
/* Text in which what stands between `backticks` is code. */
const prose = (text) => String(text).split("`").map((part, i) => (i % 2 ? el("code", null, part) : part));

function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 10 ** digits) return Math.round(value).toLocaleString("en-US");
  if (size !== 0 && size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}
const count = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const unit = (name) => {
  const known = { _px: "px", _um: "µm", _um2: "µm²", _um3: "µm³", _mm2: "per mm²" };
  const end = Object.keys(known).sort((a, b) => b.length - a.length).find((each) => name.endsWith(each));
  return end ? known[end] : "";
};

/* Round numbers from low to high, about `many` of them. */
function ticks(low, high, many = 5) {
  const raw = (high - low) / many || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

const main = document.getElementById("main");
const contents = el("ul");
document.getElementById("contents").append(contents);

function section(id, title, lead, ...children) {
  const node = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title),
    lead && el("p", { class: "lead" }, lead), ...children);
  main.append(node);
  contents.append(el("li", null, el("a", { href: `#${id}` }, title)));
  return node;
}
const absent = (text) => el("p", { class: "absent" }, text);

function select(label, options, change, value) {
  const node = el("select", { onchange: () => change(node.value) },
    ...options.map(([key, text]) => el("option", { value: key }, text)));
  if (value !== undefined) node.value = value;
  return [el("label", null, label, node), node];
}

/* A table of the numbers behind a picture, made when it is opened. */
const SHOWN = 1000;
function numbers(name, columns, rows) {
  const node = el("details", { class: "numbers" }, el("summary", null, "Numbers"));
  node.addEventListener("toggle", () => {
    if (!node.open || node.children.length > 1) return;
    const all = rows();
    const more = all.length - SHOWN;
    node.append(el("div", { class: "scroll" }, plain(columns, all.slice(0, SHOWN))),
      el("p", { class: "small soft" }, more > 0 ? `${number(more)} more rows are in the file. ` : "",
        el("button", { onclick: () => save(`${name}.csv`, [columns, ...all]) }, "Save as CSV")));
  });
  return node;
}
function plain(columns, rows) {
  const numeric = columns.map((_, i) => rows.some((row) => typeof row[i] === "number"));
  const cell = (tag, value, i) => el(tag, numeric[i] ? { class: "n" } : null, tag === "td" ? number(value) : value);
  return el("table", null, el("thead", null, el("tr", null, columns.map((c, i) => cell("th", c, i)))),
    el("tbody", null, rows.map((row) => el("tr", null, row.map((v, i) => cell("td", v, i))))));
}
function save(name, rows) {
  // A spreadsheet must not take a name for a formula.
  const quoted = (v) => typeof v === "number" ? String(v) : `"${String(v ?? "").replace(/^[=+@-]/, "'$&").replaceAll('"', '""')}"`;
  const text = rows.map((row) => row.map(quoted).join(",")).join("\r\n");
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

/* One note beside the pointer, for whatever it is on. */
const hint = document.getElementById("hint");
function showHint(text, x, y) {
  hint.textContent = text;
  hint.hidden = false;
  const box = hint.getBoundingClientRect();
  hint.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  hint.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
}
const hideHint = () => { hint.hidden = true; };
function hinted(node, text) {
  node.addEventListener("pointermove", (event) => showHint(typeof text === "function" ? text() : text, event.clientX, event.clientY));
  node.addEventListener("pointerleave", hideHint);
  return node;
}
document.addEventListener("scroll", hideHint, { passive: true });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideHint(); });
