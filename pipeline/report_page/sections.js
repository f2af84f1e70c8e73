// The sections of the page, in order.

function head() {
  const tile = (value, text, kind) => el("div", { class: kind ? `tile ${kind}` : "tile" }, el("b", null, value), el("span", null, text));
  const plates = data.plates ? data.plates.plates.length : 0;
  fill(document.getElementById("head"), null, [
    el("div", { class: "brand" }, "cellseg report"), el("h1", null, data.title),
    el("div", { class: "when" }, [data.what, data.started].filter(Boolean).join(" \u00b7 ")),
    el("div", { class: "tiles" }, tile(number(data.cells), "cells"), tile(number(data.done), data.done === 1 ? "image done" : "images done"),
      data.failed ? tile(number(data.failed), data.failed === 1 ? "image failed" : "images failed", "alarm") : null,
      data.plates ? tile(number(data.plates.wells.length), plates > 1 ? `wells on ${plates} plates` : "wells") : null,
      data.done > 1 ? tile(number(data.cells / data.done, 3), "cells an image") : null, tile(data.took, "took"))]);
}

function imageLinks(images, total) {
  const link = (n) => el("a", { href: `#image-${n}`, onclick: (event) => { event.preventDefault(); goToImage(n); } }, data.names[n]);
  const few = images.slice(0, 6).map(link), more = images.slice(6).map(link), left = total - images.length;
  return el("div", { class: "where" }, few, more.length + left > 0 && el("details", null,
    el("summary", null, `and ${number(more.length + left)} more`), more, left > 0 && `and ${number(left)} more: filter the table of images`));
}

function issueSection() {
  const words = { failed: "failed", warning: "warning", note: "note" };
  const list = data.issues.map((issue) => el("li", { class: `issue ${issue.level}` },
    el("span", { class: `badge ${issue.level}` }, words[issue.level] + (issue.count > 1 ? `, ${count(issue.count, "image")}` : "")), " ", prose(issue.text),
    issue.advice && el("div", { class: "todo small" }, prose(issue.advice)), issue.images.length > 0 && imageLinks(issue.images, issue.count)));
  section("issues", "What to look at", null, list.length ? el("ul", { class: "issues" }, list)
    : el("p", { class: "fine" }, data.cells ? "Nothing is wrong as far as cellseg can tell: every image is done and none has a warning." : "No image has a warning."));
}

let shownDistribution = () => {};
function distributionSection() {
  const found = data.distributions;
  if (!found || !found.columns.length) {
    section("distributions", "Distributions", null, absent("No cells, so nothing to show."));
    return;
  }
  const drawn = el("div"), words = el("p", { class: "small soft" }), table = el("div");
  const kinds = found.columns[0].counts.filter((_, i) => found.columns.some((c) => c.counts[i].some((v) => v))).length > 1;
  const apart = el("input", { type: "checkbox", onchange: () => draw(what.value) });
  apart.checked = kinds;
  const log = el("input", { type: "checkbox", onchange: () => draw(what.value) });
  const [label, what] = select("Measurement", found.columns.map((c) => [c.name, c.name]), draw);
  what.id = "distribution-what";
  const sparks = el("div", { class: "sparks" }, found.columns.slice(0, 36).map((c) =>
    el("button", { "data-name": c.name, title: c.name, onclick: () => { what.value = c.name; draw(c.name); } }, el("span", null, c.name), spark(c))));
  function draw(name) {
    const column = found.columns.find((c) => c.name === name);
    const gates = Object.entries(data.gates || {}).filter(([, gate]) => gate.column === name && Number.isFinite(gate.threshold));
    refill(drawn, histogram(column, gates, apart.checked, log.checked));
    const beyond = [column.below && `${number(column.below)} below`, column.above && `${number(column.above)} above`].filter(Boolean).join(" and ");
    words.textContent = `${count(column.number, "cell")}; median ${number(column.median)}, mean ${number(column.mean)}, from ${number(column.least)} to ${number(column.most)} ${unit(name)}`
      + (beyond ? `; ${beyond} what is shown.` : ".");
    const width = (column.high - column.low) / column.counts[0].length;
    const named = data.kinds.map((kind, i) => [kind, i]).filter(([, i]) => kinds ? true : column.counts[i].some((v) => v));
    table.replaceChildren(numbers(`distribution_${name}`, ["from", "to", ...named.map(([kind]) => kinds ? kind : "cells")],
      () => column.counts[0].map((_, b) => [column.low + b * width, column.low + (b + 1) * width, ...named.map(([, i]) => column.counts[i][b])])));
    for (const button of sparks.children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
  }
  section("distributions", "Distributions", found.read < found.rows ? `Counted over ${number(found.read)} of ${number(found.rows)} cells, spread evenly over the table.` : "Over all cells of the run.",
    el("div", { class: "bar" }, label, kinds && el("label", { class: "tick" }, apart, "controls apart"), el("label", { class: "tick" }, log, "logarithmic height")), drawn, words, table, found.columns.length > 1 && sparks);
  shownDistribution = (name) => { what.value = name; draw(name); };
  const first = found.columns.find((c) => c.name === "area_um2") || found.columns[0];
  shownDistribution(first.name);
}

function pictureSection() {
  const found = data.pictures, kinds = found.kinds;
  const across = (cell) => {
    const um = data.pixel_um[cell.image];
    return `${cell.across} px${um ? `, ${number(cell.across * um, 2)} µm` : ""} across`;
  };
  section("cells", "Sample cells", kinds.length ? "The cell in question is outlined in yellow, its neighbours in blue." : null,
    kinds.map((kind) => [el("h3", null, kind.kind[0].toUpperCase() + kind.kind.slice(1)), el("p", { class: "small soft" }, kind.why),
      el("div", { class: "cells" }, kind.cells.map((cell) => el("figure", null,
        el("img", { src: cell.src, width: 168, height: 168, loading: "lazy", alt: `Cell ${cell.label} of ${data.names[cell.image]}, ${cell.value}` }),
        el("figcaption", null, el("b", null, cell.value), el("br"), imageLink(cell.image), " ", el("span", { class: "nowrap" }, `label ${cell.label}`), el("br"), across(cell)))))]),
    !kinds.length && absent(data.cells ? "No pictures: neither the images nor the overviews could be read." : "No cells were found."),
    found.of_overviews > 0 && absent(`${count(found.of_overviews, "picture")} cut from overviews, as the images are no longer there: other cells are outlined in yellow too.`),
    found.missing > 0 && kinds.length > 0 && absent(`${count(found.missing, "cell")} could not be shown: image and overview are gone.`));
}
const imageLink = (n) => el("a", { href: `#image-${n}`, onclick: (event) => { event.preventDefault(); goToImage(n); } }, data.names[n]);

let goToImage = () => {}, filterImages = () => {};
function imageSection() {
  const { columns, rows, left_out } = data.images, place = Object.fromEntries(columns.map((name, i) => [name, i]));
  const used = columns.filter((name) => !["picture", "source"].includes(name) && (!["plate", "well", "site", "notes", "seconds"].includes(name) || rows.some((row) => row[place[name]] !== null && row[place[name]] !== "")));
  const thumbs = new Set(data.overviews.shown.map((each) => each.image)), most = Math.max(...rows.map((row) => row[place.cells] || 0), 1);
  let sorted = ["state", -1], limit = 25, target = null;
  const filter = el("input", { type: "search", placeholder: "name, well, reason", oninput: () => { limit = 25; draw(); } });
  filter.id = "image-filter";
  const [stateLabel, state] = select("State", [["", "all"], ["failed", "failed"], ["warned", "with notes"], ["done", "done"]], () => draw());
  const body = el("tbody"), said = el("p", { class: "small soft", "aria-live": "polite" });
  const more = el("div", { class: "more" });
  const numeric = new Set(["cells", "seconds"]);
  const headers = used.map((name) => el("th", { scope: "col", class: numeric.has(name) ? "n" : null },
    el("button", { onclick: () => { sorted = [name, sorted[0] === name ? -sorted[1] : 1]; draw(); } }, name)));
  const compare = (a, b) => a === b ? 0 : a === null || a === "" ? 1 : b === null || b === "" ? -1 : typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  function chosen() {
    const words = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const mine = rows.filter((row) => (!state.value || row[0] === state.value || (state.value === "warned" && row[place.notes]))
      && words.every((word) => ["image", "plate", "well", "site", "notes", "source"].some((name) => String(row[place[name]] ?? "").toLowerCase().includes(word))));
    const [name, way] = sorted, k = place[name], id = columns.length;
    return mine.sort((a, b) => {
      const order = compare(a[k], b[k]), empty = a[k] === null || a[k] === "" || b[k] === null || b[k] === "";
      return (empty ? order : way * order) || a[id] - b[id];
    });
  }
  function draw() {
    const mine = chosen();
    const shown = mine.slice(0, limit);
    headers.forEach((header, i) => header.setAttribute("aria-sort", used[i] !== sorted[0] ? "none" : sorted[1] > 0 ? "ascending" : "descending"));
    body.replaceChildren(...shown.map(line));
    said.textContent = `${number(mine.length)} of ${count(rows.length, "image")}${left_out ? `; ${number(left_out)} more are in images.parquet and run.json` : ""}`;
    more.replaceChildren(...(mine.length > limit ? [el("button", { onclick: () => { limit += 100; draw(); } }, "Show 100 more"), " ",
      mine.length > limit + 100 && mine.length <= 5000 ? el("button", { onclick: () => { limit = mine.length; draw(); } }, "Show all") : ""] : []));
  }
  function line(row) {
    const n = row[columns.length], cell = {
      state: (v) => el("td", null, el("span", { class: `badge ${v === "done" && row[place.notes] ? "warning" : v}` }, v)),
      image: (v) => el("td", null, v, " ", thumbs.has(n) ? el("a", { href: `#overview-${n}`, class: "small" }, "picture") : row[place.picture] && el("a", { href: row[place.picture], class: "small" }, "picture")),
      cells: (v) => el("td", { class: "n" }, v === null ? "-" : [el("span", { class: "meter", "aria-hidden": "true" }, el("i", { style: `width:${(100 * v) / most}%` })), el("span", { class: "figure" }, number(v))]),
      seconds: (v) => el("td", { class: "n" }, number(v, 3)),
      notes: (v) => el("td", { class: "words" }, v),
    };
    return el("tr", { id: `image-${n}`, class: n === target ? "target" : null }, used.map((name) => (cell[name] || ((v) => el("td", null, v)))(row[place[name]])));
  }
  const columnsForCsv = columns.filter((name) => name !== "picture");
  section("images", "Images", null,
    el("div", { class: "bar" }, el("label", null, "Filter", filter), stateLabel),
    el("div", { class: "scroll" }, el("table", { id: "image-table" }, el("thead", null, el("tr", null, headers)), body)), said, more,
    numbers("images", columnsForCsv, () => rows.map((row) => columnsForCsv.map((name) => row[place[name]]))));
  draw();
  const show = () => document.getElementById("images").scrollIntoView();
  filterImages = (well, plate) => { filter.value = [well, data.plates && data.plates.plates.length > 1 ? plate : ""].filter(Boolean).join(" "); state.value = ""; limit = 25; draw(); show(); };
  goToImage = (n) => {
    target = n;
    filter.value = ""; state.value = "";
    const at = chosen().findIndex((row) => row[columns.length] === n);
    if (at < 0) return;
    limit = Math.max(limit, at + 5);
    draw();
    const row = document.getElementById(`image-${n}`);
    row.scrollIntoView({ block: "center" });
    history.replaceState(null, "", `#image-${n}`);
  };
}

function overviewSection() {
  const { shown, of } = data.overviews;
  if (!shown.length) {
    section("overviews", "Overviews", null, absent("No overviews: none was written ([output] overview), or no image is done."));
    return;
  }
  const wide = shown.length === 1 ? "min(100%, 800px)" : shown.length === 2 ? "420px" : shown.length <= 6 ? "300px" : "220px";
  section("overviews", "Overviews", `Cells outlined in yellow.${shown.length < of ? ` ${number(shown.length)} of ${number(of)}: those with warnings, and others spread over the run.` : ""}`,
    el("div", { class: shown.length === 1 ? "gallery single" : "gallery", style: `--wide:${wide}` }, shown.map((each) => el("figure", { id: `overview-${each.image}`, style: `max-width:${Math.max(4 * each.width, 200)}px` },
      el("a", { href: each.href }, el("img", { src: each.src, width: each.width, height: each.height, loading: "lazy", alt: `Overview of ${data.names[each.image]}` })),
      el("figcaption", null, imageLink(each.image))))));
}

function qualitySection() {
  const found = data.quality;
  if (!found) {
    section("quality", "Image quality", null, absent("Focus, saturation and background were not recorded by this run."));
    return;
  }
  const metrics = [["background", "background, grey levels"], ["saturated", "saturated pixels, share"], ["focus", "focus, slope of the power spectrum"]];
  const drawn = el("div"), draw = () => {
    const channel = found.channels[Number(which.value)], k = metrics.findIndex(([key]) => key === metric.value) + 1;
    drawn.replaceChildren(dots(channel.rows.map((row) => ({ image: row[0], value: row[k], flags: row[4] })), metrics[k - 1][1]));
  };
  const [whichLabel, which] = select("Channel", found.channels.map((c, i) => [i, c.name]), draw);
  const [metricLabel, metric] = select("What", metrics, draw);
  const flagged = found.channels.map((c) => `${c.name}: ${c.rows.filter((r) => r[4]).length || "none"}`).join(", ");
  section("quality", "Image quality", `Each image and channel as it was taken. Red triangles have a flag (${flagged}).`,
    el("div", { class: "bar" }, whichLabel, metricLabel), drawn,
    numbers("quality", ["image", "channel", "background", "saturated", "focus", "flags"], () => found.channels.flatMap((c) => c.rows.map((r) => [data.names[r[0]], c.name, ...r.slice(1)]))));
  draw();
}

function seamSection() {
  const found = data.seams;
  if (!found) {
    section("seams", "Seams", null, absent("No image has tile borders with cells near them, so there are no seams to judge."));
    return;
  }
  const judged = found.rows.filter((row) => row.judged);
  const verdict = (row) => row.judged === 1 ? `${row.title}: ${number(row.dots[0][1], 3)} (p ${number(row.dots[0][2], 2)}), ${row.dots[0][5]}.`
    : `${row.title}: median ${number(row.median, 3)} over ${count(row.judged, "image")}; ${row.off ? `${row.off} off` : "none off"}.`;
  section("seams", "Seams", `Images are worked on in tiles. Cells on the borders of tiles (${number(found.on_seam)}) must be as many, as large and as round as those beside them: a ratio of 1.00.`,
    judged.length ? [ratios(judged, (n) => data.names[n]), el("ul", { class: "small" }, judged.map((row) => el("li", null, verdict(row))))]
      : absent("Too few cells near tile borders to judge them."),
    judged.length > 0 && numbers("seams", ["image", "what", "ratio", "p", "cells on seams", "beside", "meaning"], () => judged.flatMap((row) => row.dots.map((d) => [data.names[d[0]], row.title, ...d.slice(1)]))));
}

function gateSection() {
  const gates = Object.entries(data.gates || {});
  if (!gates.length) return;
  const share = (gate) => gate.cells ? gate.positive / gate.cells : null;
  const known = new Set((data.distributions?.columns || []).map((c) => c.name));
  section("gates", "Gates", "Cells are positive where a measurement passes a threshold.", el("div", { class: "scroll" }, el("table", null,
    el("thead", null, el("tr", null, ["gate", "rule", "threshold", "method", "positive", "of cells"].map((name) => el("th", null, name)))),
    el("tbody", null, gates.map(([name, gate]) => el("tr", null, el("td", null, el("b", null, name)),
      el("td", null, known.has(gate.column) ? el("a", { href: "#distributions", onclick: () => shownDistribution(gate.column) }, gate.rule || gate.column) : gate.rule || gate.column),
      el("td", { class: "n" }, number(gate.threshold)), el("td", null, gate.method),
      el("td", null, share(gate) === null ? "-" : [el("span", { class: "meter" }, el("i", { style: `width:${100 * share(gate)}%` })), `${number(100 * share(gate), 3)} %`]),
      el("td", { class: "n" }, number(gate.cells))))))));
}

function controlSection() {
  const rows = data.controls;
  if (!rows || !rows.length) return;
  const words = (z) => z === null || z === undefined ? "not known" : z >= 0.5 ? "excellent" : z > 0 ? "usable" : "controls overlap";
  const shown = rows.filter((row) => Number.isFinite(row.z_prime)).slice(0, 12);
  const kind = { excellent: "done", usable: "warning", "controls overlap": "failed", "not known": "note" };
  const columns = ["plate", "measurement", "z_prime", "ssmd", "negative_mean", "negative_std", "negative_wells", "positive_mean", "positive_std", "positive_wells"];
  section("controls", "Controls", "How clearly each measurement separates positive from negative control wells. Z' of 0.5 or more is an excellent assay (Zhang et al. 1999); SSMD is the difference of the means in units of their spread. The clearest first.",
    !shown.length && absent("Not known: it takes two wells or more of each kind."), shown.length > 0 && el("div", { class: "scroll" }, el("table", null, el("thead", null, el("tr", null, ["plate", "measurement", "Z'", "", "SSMD", "negative", "positive"].map((name, i) => el("th", { class: [2, 4, 5, 6].includes(i) ? "n" : null }, name)))),
      el("tbody", null, shown.map((row) => el("tr", null, el("td", null, row.plate), el("td", null, row.measurement), el("td", { class: "n" }, number(row.z_prime, 3)),
        el("td", null, el("span", { class: `badge ${kind[words(row.z_prime)]}` }, words(row.z_prime))), el("td", { class: "n" }, number(row.ssmd, 3)),
        el("td", { class: "n" }, `${number(row.negative_mean)} ± ${number(row.negative_std, 2)}`), el("td", { class: "n" }, `${number(row.positive_mean)} ± ${number(row.positive_std, 2)}`)))))),
    numbers("controls", columns, () => rows.map((row) => columns.map((name) => row[name] ?? null))));
}

function stageSection() {
  const stages = data.stages;
  section("cost", "Time and memory", stages.length ? "Where the time went, summed over images and workers, and the most memory a process held in each stage." : null,
    stages.length ? [bars(stages), numbers("stages", ["stage", "seconds", "memory_mb"], () => stages.map((s) => [s.name, s.seconds, s.memory_mb]))]
      : absent("Nothing was computed in the last run: all images were done before."));
}

function runSection() {
  section("run", "How it was made", null, el("div", { class: "facts" }, data.facts.filter((f) => f.entries.length).map((f) => el("div", null, el("h3", null, f.title),
    el("dl", null, f.entries.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]))))),
    data.workflow && el("details", null, el("summary", null, "The workflow with every key (workflow.toml)"), el("pre", null, data.workflow)));
}

head();
issueSection();
plateSection();
controlSection();
gateSection();
distributionSection();
pictureSection();
imageSection();
overviewSection();
qualitySection();
seamSection();
stageSection();
runSection();
document.getElementById("foot").textContent = "Made by cellseg from the files of this folder; complete in itself, and nothing of it is fetched from elsewhere. Links to full pictures work where the page lies beside them.";
const followHash = () => { const n = /^#image-(\d+)$/.exec(location.hash); if (n) goToImage(Number(n[1])); };
addEventListener("hashchange", followHash);
followHash();
const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) for (const link of contents.querySelectorAll("a")) link.classList.toggle("here", link.hash === `#${entry.target.id}`);
}), { rootMargin: "-10% 0px -80% 0px" });
document.querySelectorAll("main section").forEach((each) => seen.observe(each));
