// Heat maps of plates.

// Viridis (Smith and van der Walt, 2015), and about 0 the ends of PuOr (Brewer): both can be told
// apart by people who do not see red and green apart.
const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const ABOUT_ZERO = ["#5e3c99", "#8f7bbd", "#b2abd2", "#dcd8ea", "#f4f4f4", "#fbdcb6", "#fdb863", "#f09436", "#c65a00"];
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
function colour(scale, share) {
  const place = Math.min(Math.max(share, 0), 1) * (scale.length - 1), i = Math.min(Math.floor(place), scale.length - 2);
  const [a, b] = [rgb(scale[i]), rgb(scale[i + 1])];
  return `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * (place - i))).join(",")})`;
}
const rowName = (row) => (row >= 26 ? String.fromCharCode(64 + Math.floor(row / 26)) : "") + String.fromCharCode(65 + (row % 26));

const AGGREGATES = { "": "value", mean: "mean", q50: "median", std: "standard deviation", q05: "5th percentile", q25: "25th percentile", q75: "75th percentile", q95: "95th percentile" };
const SCORES = { "": "", _z: "z-score", _robust_z: "robust z-score" };
const BASES = { cells: "cells (count)", confluence: "confluence (share of area)", cells_per_mm2: "cells per mm²" };
const aggregateName = (c) => [AGGREGATES[c.aggregate], SCORES[c.score]].filter(Boolean).join(", ").replace(/^value, /, "");
const columnName = (c) => c.base + (c.aggregate ? `_${c.aggregate}` : "") + c.score;

function plateSection() {
  const found = data.plates;
  if (!found || !found.columns.length) {
    section("plates", "Plates", null, absent("No heat maps: there is no wells.parquet here, as no image has a well or the table was not written."));
    return;
  }
  const bases = [...new Set(found.columns.map((c) => c.base))];
  const drawn = el("div", { class: "plates" }), legend = el("div", { class: "legend" }), table = el("div");
  const howto = el("p", { class: "small soft howto" }, "Hover or use the arrow keys for numbers; a click lists the images of a well.");
  const options = (base) => found.columns.filter((c) => c.base === base).map((c) => [columnName(c), aggregateName(c)]);
  const [whatLabel, what] = select("Measurement", bases.map((b) => [b, BASES[b] || b]), fillSecond);
  const [howLabel, how] = select("Over the cells of a well", [], draw);
  what.id = "plate-what"; how.id = "plate-how";

  function fillSecond() {
    const before = how.selectedOptions[0]?.textContent, list = options(what.value);
    how.replaceChildren(...list.map(([key, text]) => el("option", { value: key }, text)));
    const same = list.find(([, text]) => text === before);
    if (same) how.value = same[0];
    howLabel.hidden = list.length < 2;
    draw();
  }
  function draw() {
    const column = found.columns.find((c) => columnName(c) === how.value);
    const known = column.values.filter((v) => v !== null);
    let low = known.length ? Math.min(...known) : 0, high = known.length ? Math.max(...known) : 1;
    const scale = column.score ? ABOUT_ZERO : VIRIDIS;
    if (column.score) { high = Math.max(Math.abs(low), Math.abs(high), 1e-9); low = -high; }
    const share = (v) => (high > low ? (v - low) / (high - low) : 0.5);
    drawn.replaceChildren(...found.plates.map((plate, p) => drawPlate(plate, p, column, (v) => colour(scale, share(v)), (v) => share(v))));
    const label = columnName(column), kinds = new Set(found.wells.map((w) => w[5]));
    refill(legend, el("span", { class: "scale" }, el("span", { id: "plate-low" }, number(low)),
      el("span", { class: "ramp", style: `background:linear-gradient(to right,${scale.join(",")})` }), el("span", { id: "plate-high" }, number(high)),
      el("b", null, label), column.score ? null : unit(column.base)),
      kinds.has("negative") && el("span", null, el("span", { class: "marks" }, "−"), "negative control"),
      kinds.has("positive") && el("span", null, el("span", { class: "marks" }, "+"), "positive control"),
      el("span", null, el("i", { class: "swatch", style: "border:1px solid var(--line)" }), "no image"),
      known.length < column.values.length && el("span", null, el("i", { class: "swatch", style: "background:var(--line)" }), "not known"));
    table.replaceChildren(numbers(`wells_${label}`, ["plate", "well", "images", "control", label],
      () => found.wells.map((w, i) => [found.plates[w[0]].name, w[3], w[4], w[5] === "other" ? "" : w[5], column.values[i]])));
  }

  function drawPlate(plate, p, column, paint, share) {
    const S = 28, L = 24, T = 20, W = L + plate.columns * S + 6, H = T + plate.rows * S + 6, nodes = [];
    const every = plate.columns > 24 ? 2 : 1;
    nodes.push(svg("rect", { class: "plate-outline", x: L - 3, y: T - 3, width: plate.columns * S + 6, height: plate.rows * S + 6, rx: 8 }));
    for (let c = 0; c < plate.columns; c += every) nodes.push(svg("text", { x: L + (c + 0.5) * S, y: 13, "text-anchor": "middle" }, String(c + 1)));
    for (let r = 0; r < plate.rows; r += every) nodes.push(svg("text", { x: L - 8, y: T + (r + 0.5) * S + 4, "text-anchor": "end" }, rowName(r)));
    const byPlace = new Map();
    found.wells.forEach((w, i) => { if (w[0] === p) byPlace.set(`${w[1]},${w[2]}`, i); });
    for (let r = 0; r < plate.rows; r++) for (let c = 0; c < plate.columns; c++) {
      if (!byPlace.has(`${r},${c}`)) nodes.push(svg("circle", { class: "nothing", cx: L + (c + 0.5) * S, cy: T + (r + 0.5) * S, r: S * 0.32 }));
    }
    const say = (i) => {
      const w = found.wells[i];
      return `${w[3]}${w[5] === "other" ? "" : `, ${w[5]} control`}\n${columnName(column)}: ${number(column.values[i])}${w[4] ? `\n${count(w[4], "image")}` : ""}`;
    };
    const cellsOf = new Map();
    for (const [place, i] of byPlace) {
      const [r, c] = place.split(",").map(Number), value = column.values[i], w = found.wells[i];
      const x = L + c * S + 2, y = T + r * S + 2;
      const well = svg("rect", { class: value === null ? "well unknown" : "well", x, y, width: S - 4, height: S - 4, rx: 7, fill: value === null ? null : paint(value), "data-well": w[3], "data-value": value });
      hinted(well, () => say(i));
      well.addEventListener("click", () => filterImages(w[3], plate.name));
      nodes.push(well);
      cellsOf.set(place, [well, i]);
      if (w[5] !== "other") {
        const light = value !== null && share(value) > 0.6 && !column.score || column.score && value !== null && Math.abs(share(value) - 0.5) < 0.3;
        nodes.push(svg("text", { x: x + S / 2 - 2, y: y + S / 2 + 4, "text-anchor": "middle", style: `fill:${light ? "#000" : "#fff"};font-size:17px;font-weight:700;pointer-events:none` }, w[5] === "negative" ? "−" : "+"));
      }
    }
    const map = drawing(W, H, `Plate ${plate.name || ""}: ${columnName(column)} of each well; move with the arrow keys`, nodes);
    map.setAttribute("tabindex", "0");
    map.removeAttribute("width");
    map.removeAttribute("height");
    moveWithKeys(map, cellsOf, plate, say, (i) => filterImages(found.wells[i][3], plate.name));
    const name = plate.name || (found.plates.length > 1 ? `Plate ${p + 1}` : "");
    return el("figure", { class: found.plates.length > 3 ? "many" : null }, name && el("figcaption", null, name), el("div", { class: "chart" }, map));
  }

  section("plates", "Plates", found.plates.length > 1 ? "All plates share one scale." : null,
    el("div", { class: "bar" }, whatLabel, howLabel), drawn, legend, howto, table,
    found.left_out > 0 && el("p", { class: "small soft" }, `${count(found.left_out, "more column")} would make this page too large; see wells.parquet.`));
  fillSecond();
}

function moveWithKeys(map, wells, plate, say, open) {
  let at = null;
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const leave = () => { if (at) wells.get(at)[0].classList.remove("cursor"); hideHint(); };
  map.addEventListener("blur", leave);
  map.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && at) open(wells.get(at)[1]);
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    leave();
    let [r, c] = at ? at.split(",").map(Number) : [0, -1];
    if (!at) step.splice(0, 2, 0, 1);
    for (let n = 0; n < plate.rows * plate.columns; n++) {
      c += step[1]; r += step[0];
      if (c >= plate.columns) { c = 0; r++; }
      if (c < 0) { c = plate.columns - 1; r--; }
      if (r >= plate.rows) { r = 0; c = (c + Math.abs(step[0])) % plate.columns; }
      if (r < 0) { r = plate.rows - 1; c = (c - Math.abs(step[0]) + plate.columns) % plate.columns; }
      if (wells.has(`${r},${c}`)) break;
    }
    at = `${r},${c}`;
    const [well, i] = wells.get(at), box = well.getBoundingClientRect();
    well.classList.add("cursor");
    showHint(say(i), box.right, box.bottom);
  });
}
