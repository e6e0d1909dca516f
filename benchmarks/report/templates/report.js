// With too many models for a color each, color distinguishes sparse from dense.
const colors = new Map(data.groups.map((g, i) =>
  [g.key, data.groups.length <= PALETTE.length ? PALETTE[i] : PALETTE[g.sparse ? 1 : 0]]));
const dashes = new Map(data.groups.map((g) => [g.key, g.sparse ? "solid" : "dash"]));
const isSparse = new Set(data.groups.filter((g) => g.sparse).map((g) => g.key));
const hidden = new Set();
const logs = new Map();
// Two columns on A4 with this page's print margins, px.
const PAPER_WIDTH = 296;

let onPaper = false;
const narrow = () => onPaper || innerWidth < 480;

function axis(spec, log) {
  return { title: { text: spec.title, font: { size: 13 } }, type: spec.category ? "category" : log ? "log" : "linear",
    gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--line"),
    tickfont: { size: 12 }, tickangle: 0, automargin: true, nticks: narrow() ? 4 : 6,
    ...(spec.si ? { tickformat: "~s" } : {}), ...(spec.percent ? { tickformat: ".0%", range: [0, 1] } : {}) };
}
function layout(figure, legend) {
  const bars = Boolean(figure.bars);
  const state = figure.loglog ? { x: true, y: true } : logs.get(figure.id) || {};
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: css("--ink"), size: 13 },
    ...(onPaper ? { width: PAPER_WIDTH } : { autosize: true }),
    margin: { l: 12, r: 16, t: 8, b: 8 }, showlegend: legend, hovermode: "closest",
    legend: { orientation: "h", y: -0.22, font: { size: 12 } },
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
    barmode: figure.stacked ? "stack" : "overlay", bargap: 0.35,
    xaxis: axis(figure.x, state.x),
    yaxis: { ...axis(bars ? { ...figure.y, category: true } : figure.y, state.y),
      ...(bars ? { autorange: "reversed", showgrid: false, tickmode: "linear", dtick: 1 } : {}) } };
}
// One part of every model's stacked bar, without the hidden models.
function stackedPart(trace) {
  const kept = trace.x.map((_, i) => i).filter((i) => !hidden.has(trace.meta.groups[i]));
  const pick = (list) => kept.map((i) => list[i]);
  return { ...trace, x: pick(trace.x), y: pick(trace.y), customdata: pick(trace.customdata),
    marker: { color: PALETTE[trace.meta.part % PALETTE.length] } };
}
function styled(trace, labelsInside) {
  if (trace.meta.part !== undefined) return stackedPart(trace);
  if (trace.meta.published) {
    return { ...trace, marker: { color: css("--soft"), size: 8, symbol: "diamond-open" } };
  }
  const color = colors.get(trace.meta.group);
  const common = { ...trace, visible: !hidden.has(trace.meta.group) };
  if (trace.mode === "markers") {
    const bars = { color, thickness: 1.2 };
    return { ...common, marker: { color, size: 11, symbol: isSparse.has(trace.meta.group) ? "circle" : "square" },
      error_x: { ...trace.error_x, ...bars }, error_y: { ...trace.error_y, ...bars } };
  }
  if (trace.type === "scatter") {
    return { ...common, line: { color, width: trace.mode === "lines" ? 1.5 : 2.5, dash: dashes.get(trace.meta.group) },
      marker: { color, size: 6 } };
  }
  const inside = trace.meta.faint !== undefined || labelsInside;
  return { ...common, text: inside ? trace.text : [""], textposition: "inside",
    insidetextanchor: "start", cliponaxis: false, constraintext: "none", textfont: { size: 12 },
    insidetextfont: { color: trace.meta.faint ? css("--ink") : "#ffffff" },
    marker: { color, opacity: trace.meta.faint ? 0.28 : 1 },
    error_x: { ...trace.error_x, color: css("--ink"), thickness: 1.5 } };
}
const half = (trace, side) => trace.error_x?.[side]?.[0] ?? 0;
// Labels are inside the bars where all fit there, before the error bars; else after both.
const LETTER = 7;
const plotWidth = (node) => Math.max(160, (onPaper ? PAPER_WIDTH : node.clientWidth) - 130);
const fits = (trace, widest, width) =>
  (trace.x[0] - half(trace, "arrayminus")) / widest * width > LETTER * trace.text[0].length;
function labelAfter(trace) {
  return { type: "scatter", mode: "text", x: [trace.x[0] + half(trace, "array")], y: trace.y,
    text: trace.text.map((words) => ` ${words}`), textposition: "middle right", cliponaxis: false,
    textfont: { size: 12, color: css("--ink") }, hoverinfo: "skip", showlegend: false,
    visible: !hidden.has(trace.meta.group) };
}
// Where the axis ends, so that labels after the bars are not cut off.
function roomFor(labels, widest, node) {
  const ends = labels.map((t) => t.x[0] / (1 - Math.min(0.75, LETTER * t.text[0].length / plotWidth(node))));
  return 1.03 * Math.max(widest, ...ends);
}
function draw(figure) {
  const node = document.getElementById(`plot-${figure.id}`);
  const ends = figure.traces.map((t) => (figure.bars ? t.x[0] + half(t, "array") : 0));
  const widest = Math.max(...ends);
  const shownBars = figure.traces.filter((t) => figure.bars && !figure.stacked && !hidden.has(t.meta.group));
  const inside = shownBars.every((t) => fits(t, widest, plotWidth(node)));
  const traces = figure.traces.map((trace) => styled(trace, inside));
  const parts = figure.traces.some((t) => t.meta.part !== undefined);
  if (!inside) traces.push(...figure.traces.map(labelAfter));
  if (figure.bars) {
    const shown = new Set(traces.filter((t) => t.visible !== false).flatMap((t) => t.y)).size;
    const key = parts ? 40 + 24 * Math.ceil(traces.length / (narrow() ? 1 : 2)) : 0;
    node.style.setProperty("--bars-height", `${Math.max(150, 70 + key + (shown > 12 ? 26 : 46) * shown)}px`);
  }
  const look = layout(figure, parts || (!figure.bars && data.groups.length > 1 && data.groups.length <= 6));
  if (parts) look.legend = { ...look.legend, traceorder: "normal", yref: "container", y: 0, yanchor: "bottom", maxheight: 0.9 };
  const labels = traces.filter((t) => t.mode === "text" && t.visible);
  if (labels.length && look.xaxis.type !== "log") look.xaxis.range = [0, roomFor(labels, widest, node)];
  return Plotly.react(node, traces, look, CONFIG);
}
// The Pareto front of the visible models.
function drawPareto() {
  const choice = document.getElementById("pareto-cost");
  if (!choice) return [];
  const figure = data.pareto[choice.selectedIndex];
  document.getElementById("pareto-title").textContent = `Held-out loss against ${figure.title[0].toLowerCase()}${figure.title.slice(1)}`;
  const points = figure.traces.filter((t) => !hidden.has(t.meta.group)).map((t) => [t.x[0], t.y[0]])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const front = [];
  for (const point of points) if (!front.length || point[1] < front[front.length - 1][1]) front.push(point);
  const line = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
    x: front.map((p) => p[0]), y: front.map((p) => p[1]),
    line: { color: css("--soft"), width: 1.5, dash: "dot", shape: "hv" } };
  const few = data.groups.length <= 12;
  return [Plotly.react(document.getElementById("plot-pareto"),
    [line, ...figure.traces.map((t) => styled(t, true))], layout(figure, few), CONFIG)];
}
// The even share has the panel's color; underloaded experts are blue, overloaded ones orange.
function drawHeat(id, trace, xTitle, yTitle = "layer") {
  const node = document.getElementById(id);
  node.parentElement.hidden = !trace;
  if (!trace) return null;
  const top = Math.max(2, ...trace.z.flat());
  const gap = trace.x.length <= 64 ? 1 : 0;
  const heat = { ...trace, zmin: 0, zmax: top, xgap: gap, ygap: 1,
    colorscale: [[0, "#4477aa"], [1 / top, css("--panel")], [1, "#d1601a"]],
    colorbar: { thickness: 10, outlinewidth: 0, title: { text: id === "plot-load-coactivation" ? "× chance" : "× even", font: { size: 12 } }, tickfont: { size: 11 } } };
  const spec = { id, x: { title: xTitle }, y: { title: yTitle, category: typeof trace.y[0] === "string" } };
  const look = layout(spec, false);
  look.yaxis = { ...look.yaxis, showgrid: false, dtick: trace.y.length <= 16 ? 1 : undefined, autorange: "reversed" };
  look.xaxis.showgrid = false;
  return Plotly.react(document.getElementById(id), [heat], look, CONFIG);
}
function drawLoad() {
  const choice = document.getElementById("load-run");
  if (!choice) return [];
  const load = data.load[choice.selectedIndex];
  document.getElementById("load-summary").textContent = load.summary;
  for (const note of document.querySelectorAll(".load-note")) note.textContent = load.note;
  return [drawHeat("plot-load-experts", load.experts, "expert"),
    drawHeat("plot-load-time", load.time, "step"),
    drawHeat("plot-load-sources", load.sources, "expert", ""),
    drawHeat("plot-load-coactivation", load.coactivation, "expert", "expert")];
}
const drawLaws = () => data.law.map((figure) => drawLaw(figure, onPaper ? PAPER_WIDTH : 0));
const drawAll = () => Promise.all([...data.figures.map(draw), ...drawPareto(), ...drawLaws(), ...drawLoad()]);

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
}
function markGroups() {
  for (const node of document.querySelectorAll("[data-group]")) {
    if (node.classList.contains("dot")) node.style.setProperty("--dot", colors.get(node.dataset.group));
    else if (node.tagName !== "BUTTON") node.hidden = hidden.has(node.dataset.group);
  }
  for (const button of document.querySelectorAll(".filters .chip")) {
    button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.group)));
  }
}
function toggle(key) {
  if (!hidden.delete(key)) hidden.add(key);
  markGroups();
  return drawAll();
}
const preferred = matchMedia("(prefers-color-scheme: dark)");
setTheme(preferred.matches ? "dark" : "light");
markGroups();
const ready = unpackPlotly().then(drawAll);
preferred.addEventListener("change", () => { setTheme(preferred.matches ? "dark" : "light"); drawAll(); });
document.getElementById("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  drawAll();
});
for (const button of document.querySelectorAll(".filters .chip")) {
  button.addEventListener("click", () => toggle(button.dataset.group));
}
function show(wanted) {
  for (const group of data.groups) wanted(group) ? hidden.delete(group.key) : hidden.add(group.key);
  markGroups();
  return drawAll();
}
for (const button of document.querySelectorAll("button[data-kind]")) {
  const kind = button.dataset.kind;
  button.addEventListener("click", () => show((g) => kind === "all" || g.sparse === (kind === "sparse")));
}
let typing = 0;
document.getElementById("search")?.addEventListener("input", (event) => {
  const text = event.target.value.toLowerCase();
  clearTimeout(typing);
  typing = setTimeout(() => show((g) => g.label.toLowerCase().includes(text)), 250);
});
document.getElementById("pareto-cost")?.addEventListener("change", drawPareto);
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const column = head.cellIndex;
    const value = (row) => row.cells[column].dataset.value === "" ? Infinity : sign * Number(row.cells[column].dataset.value);
    for (const row of [...body.rows].sort((a, b) => value(a) - value(b))) body.append(row);
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  });
}
for (const button of document.querySelectorAll("button[data-log]")) {
  button.addEventListener("click", () => {
    const state = logs.get(button.dataset.figure) || {};
    state[button.dataset.log] = !state[button.dataset.log];
    logs.set(button.dataset.figure, state);
    button.setAttribute("aria-pressed", String(state[button.dataset.log]));
    draw(data.figures.find((f) => f.id === button.dataset.figure));
  });
}
for (const button of document.querySelectorAll("button[data-save]")) {
  button.addEventListener("click", () => Plotly.downloadImage(
    document.getElementById(`plot-${button.dataset.save}`), { format: "svg", filename: button.dataset.save }));
}
document.getElementById("load-run")?.addEventListener("change", drawLoad);
// Paper is light and narrower than the window.
let themeOnScreen = null;
addEventListener("beforeprint", () => {
  themeOnScreen = document.documentElement.dataset.theme;
  onPaper = true;
  setTheme("light");
  drawAll();
});
addEventListener("afterprint", () => {
  onPaper = false;
  setTheme(themeOnScreen);
  drawAll().then(() => document.querySelectorAll(".plot").forEach((node) => Plotly.Plots.resize(node)));
});
ready.then(() => { document.documentElement.dataset.drawn = "yes"; }, (error) => {
  for (const node of document.querySelectorAll(".plot")) node.textContent = `Plots need a browser of 2023 or later (${error}).`;
});
