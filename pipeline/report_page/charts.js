// Charts: histograms, dots along a scale, bars.

const KIND_COLOURS = { negative: "var(--negative)", positive: "var(--positive)", other: "var(--other)" };

function histogram(column, gates, byKind, log) {
  const W = 760, H = 280, L = 58, R = 14, T = 26, B = 46;
  const bins = column.counts[0].length;
  const total = (row) => row.reduce((a, b) => a + b, 0);
  const kinds = byKind ? data.kinds.map((name, i) => ({ name, row: column.counts[i], sum: total(column.counts[i]) })).filter((k) => k.sum) : [];
  const all = column.counts[0].map((_, b) => total(column.counts.map((row) => row[b])));
  const series = kinds.length ? kinds.map((k) => ({ ...k, heights: k.row.map((v) => (100 * v) / k.sum) }))
    : [{ name: "all", heights: all }];
  const top = Math.max(...series.flatMap((s) => s.heights), 1e-9);
  const x = (v) => L + ((v - column.low) / (column.high - column.low)) * (W - L - R);
  const high = (v) => (log ? Math.log10(1 + v) / Math.log10(1 + top) : v / top);
  const y = (v) => H - B - high(v) * (H - T - B);
  const marks = log ? [0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((v) => v <= top) : ticks(0, top, 4);
  const at = (b) => column.low + (b * (column.high - column.low)) / bins;
  const nodes = marks.map((v) => [svg("line", { class: "grid", x1: L, x2: W - R, y1: y(v), y2: y(v) }),
    svg("text", { x: L - 8, y: y(v) + 4, "text-anchor": "end" }, number(v))]);
  for (const one of series) {
    if (one.name === "all") {
      one.heights.forEach((v, b) => {
        const bar = svg("rect", { x: x(at(b)) + 0.5, y: y(v), width: Math.max(x(at(b + 1)) - x(at(b)) - 1, 0.5), height: H - B - y(v), fill: "var(--bar)" });
        nodes.push(hinted(bar, `${number(at(b))} to ${number(at(b + 1))}\n${count(v, "cell")}`));
      });
    } else {
      const steps = one.heights.map((v, b) => `L${x(at(b)).toFixed(1)},${y(v).toFixed(1)}H${x(at(b + 1)).toFixed(1)}`).join("");
      const path = `M${L},${H - B}${steps}V${H - B}`;
      nodes.push(svg("path", { d: `${path}Z`, fill: KIND_COLOURS[one.name], "fill-opacity": 0.16 }),
        svg("path", { d: path, fill: "none", stroke: KIND_COLOURS[one.name], "stroke-width": 2 }));
    }
  }
  nodes.push(svg("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }),
    ticks(column.low, column.high, 7).map((v) => svg("text", { x: x(v), y: H - B + 16, "text-anchor": "middle" }, number(v))),
    svg("text", { class: "strong", x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, column.name),
    svg("text", { x: 4, y: 12 }, kinds.length ? "% of each" : "cells"));
  gates.forEach(([name, gate], i) => {
    const place = Math.min(Math.max(x(gate.threshold), L), W - R), right = place > W * 0.7;
    const inside = gate.threshold >= column.low && gate.threshold <= column.high;
    nodes.push(svg("line", { x1: place, x2: place, y1: T - 8, y2: H - B, stroke: "var(--gate)", "stroke-width": 2, "stroke-dasharray": inside ? null : "3 3" }),
      svg("text", { class: "gate", x: place + (right ? -6 : 6), y: T + 2 + 13 * i, "text-anchor": right ? "end" : "start", style: "fill:var(--gate)" },
        `${name} ${gate.comparison || ""} ${number(gate.threshold)}${inside ? "" : ", beyond"}`));
  });
  return [chart(W, H, `Distribution of ${column.name}`, nodes),
    kinds.length ? el("div", { class: "legend" }, kinds.map((k) => el("span", null,
      el("i", { class: "swatch", style: `background:${KIND_COLOURS[k.name]}` }), `${k.name === "other" ? "other wells" : `${k.name} controls`}, ${count(k.sum, "cell")}`))) : null];
}

function spark(column) {
  const heights = column.counts[0].map((_, b) => column.counts.reduce((sum, row) => sum + row[b], 0));
  const top = Math.max(...heights, 1), width = 120 / heights.length;
  return svg("svg", { viewBox: "0 0 120 30", width: 120, height: 30, "aria-hidden": "true" },
    svg("path", { fill: "var(--bar)", d: heights.map((v, b) => v ? `M${(b * width).toFixed(1)},30V${(30 - (28 * v) / top).toFixed(1)}h${(width * 0.85).toFixed(1)}V30` : "").join("") }));
}

/* Ratios of the seam audit about 1: a row for each kind, a dot for each image. */
function ratios(rows, imageName) {
  const W = 760, L = 130, R = 20, row = 46, T = 20, H = T + rows.length * row + 34;
  const reach = Math.max(0.3, ...rows.flatMap((r) => r.dots.map((d) => Math.min(Math.abs(Math.log(Math.max(d[1], 0.05))), Math.log(4)))));
  const x = (v) => L + ((Math.log(Math.min(Math.max(v, 0.05), 20)) / reach + 1) / 2) * (W - L - R);
  const inside = (v) => Math.min(Math.max(x(v), L), W - R);
  const marks = [0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4].filter((v) => Math.abs(Math.log(v)) <= reach * 1.001);
  const nodes = [svg("rect", { x: inside(0.9), y: T, width: inside(1.1) - inside(0.9), height: rows.length * row, fill: "var(--good-soft)" }),
    marks.map((v) => [svg("line", { class: v === 1 ? "axis" : "grid", x1: x(v), x2: x(v), y1: T, y2: T + rows.length * row }),
      svg("text", { x: x(v), y: H - 18, "text-anchor": "middle", class: v === 1 ? "strong" : null }, number(v))]),
    svg("text", { x: (L + W - R) / 2, y: H - 2, "text-anchor": "middle" }, "on seams over interior; 1 is right")];
  rows.forEach((r, i) => {
    const y = T + (i + 0.5) * row;
    nodes.push(svg("text", { class: "strong", x: L - 12, y: y + 4, "text-anchor": "end" }, r.title));
    r.dots.forEach((d, k) => {
      const off = d[5].startsWith("off:"), spread = r.dots.length > 1 ? (((k * 37) % 17) / 16 - 0.5) * 24 : 0;
      const size = r.dots.length > 20 ? 3.5 : 6;
      const dot = off ? svg("path", { d: `M${inside(d[1])},${y + spread - size}l${size},${2 * size}h${-2 * size}z`, fill: "var(--bad)" })
        : svg("circle", { cx: inside(d[1]), cy: y + spread, r: size, fill: "var(--bar)", "fill-opacity": r.dots.length > 20 ? 0.6 : 1 });
      nodes.push(hinted(dot, `${imageName(d[0])}\n${r.title}: ${number(d[1], 3)} (p ${number(d[2], 2)})\n${d[5]}`));
    });
  });
  return chart(W, H, "Seam audit: ratios on seams over interior", nodes);
}

/* A dot for each image in the order of the run. */
function dots(rows, label) {
  const W = 760, H = 220, L = 64, R = 14, T = 12, B = 32;
  const known = rows.filter((r) => r.value !== null && r.value !== undefined);
  if (!known.length) return absent("Not known for this channel.");
  let low = Math.min(...known.map((r) => r.value)), high = Math.max(...known.map((r) => r.value));
  if (low === high) { low -= 0.5; high += 0.5; }
  const pad = (high - low) * 0.06;
  low -= pad; high += pad;
  const last = Math.max(...known.map((r) => r.image), 1);
  const x = (v) => L + 8 + (v / last) * (W - L - R - 16), y = (v) => H - B - ((v - low) / (high - low)) * (H - T - B);
  const size = known.length > 200 ? 2.5 : 4.5;
  return chart(W, H, `${label} of each image`,
    ticks(low, high, 4).map((v) => [svg("line", { class: "grid", x1: L, x2: W - R, y1: y(v), y2: y(v) }), svg("text", { x: L - 8, y: y(v) + 4, "text-anchor": "end" }, number(v))]),
    svg("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, "images in the order of the run"),
    known.map((r) => {
      const [cx, cy] = [x(r.image), y(r.value)];
      const dot = r.flags ? svg("path", { d: `M${cx},${cy - size * 1.4}l${size * 1.4},${size * 2.5}h${-size * 2.8}z`, fill: "var(--bad)" })
        : svg("circle", { cx, cy, r: size, fill: "var(--bar)", "fill-opacity": 0.75 });
      dot.addEventListener("click", () => goToImage(r.image));
      return hinted(dot, `${data.names[r.image]}\n${label}: ${number(r.value)}${r.flags ? `\n${r.flags}` : ""}`);
    }));
}

/* Horizontal bars: time and memory of each stage side by side. */
function bars(stages) {
  const W = 760, L = 84, row = 26, T = 24, half = (W - L) / 2, H = T + stages.length * row + 6;
  const groups = [["seconds", "seconds, all images", "var(--bar)", (v) => number(v, 3)],
    ["memory_mb", "peak memory, MB", "var(--positive)", (v) => number(Math.round(v))]];
  return chart(W, H, "Time and memory of each stage", groups.map(([key, title, colour, text], g) => {
    const known = stages.map((s) => s[key]).filter((v) => v !== null);
    const left = L + g * half, room = half - 84;
    if (!known.length) return svg("text", { x: left, y: 14 }, `${title}: not recorded`);
    const top = Math.max(...known, 1e-9);
    return [svg("text", { class: "strong", x: left, y: 14 }, title), stages.map((s, i) => {
      const y = T + i * row;
      return [g === 0 ? svg("text", { class: "strong", x: L - 10, y: y + 15, "text-anchor": "end" }, s.name) : null,
        s[key] === null ? null : [svg("rect", { x: left, y: y + 3, width: Math.max((s[key] / top) * room, 1), height: row - 9, rx: 3, fill: colour }),
          svg("text", { x: left + (s[key] / top) * room + 6, y: y + 15 }, text(s[key]))]];
    })];
  }));
}
