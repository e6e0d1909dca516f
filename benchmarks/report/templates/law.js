// Ordered groups take their colors from a ramp that reads on light and on dark paper.
const RAMP = [[68, 119, 170], [42, 157, 119], [183, 154, 27], [224, 116, 44], [181, 86, 155]];
const LINE = "#e0742c";

function rampColor(share) {
  const place = share * (RAMP.length - 1), first = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[first].map((c, i) => Math.round(c + (RAMP[first + 1][i] - c) * (place - first)));
  return `rgb(${mixed.join(",")})`;
}
function colorOf(meta) {
  if (meta.part !== undefined) return PALETTE[meta.part % PALETTE.length];
  if (meta.ramp !== undefined) return rampColor(meta.ramp);
  return ["limit", "cloud", "path"].includes(meta.role) ? css("--soft") : LINE;
}
const faded = (color, alpha) => color.startsWith("#")
  ? `${color}${Math.round(255 * alpha).toString(16).padStart(2, "0")}` : color.replace("rgb(", "rgba(").replace(")", `,${alpha})`);
function lawTrace(trace, crowded) {
  const { role } = trace.meta, color = colorOf(trace.meta);
  if (role === "contour") {
    return { ...trace, showscale: false, opacity: 0.8, line: { width: 1, color: css("--paper") },
      colorscale: RAMP.map((_, i) => [i / (RAMP.length - 1), faded(rampColor(i / (RAMP.length - 1)), 0.75)]),
      contours: { ...trace.contours, coloring: "heatmap", showlabels: true, labelfont: { size: 12, color: css("--ink") } } };
  }
  if (role === "mark") {
    return { ...trace, marker: { color: trace.meta.part === undefined ? css("--accent") : color, size: 11, symbol: "diamond", line: { width: 1, color: css("--ink") } },
      ...(trace.error_y ? { error_y: { ...trace.error_y, color: css("--ink"), thickness: 1.2, width: 3 } } : {}) };
  }
  if (role === "edge") return { ...trace, line: { width: 0, color } };
  if (role === "band") return { ...trace, line: { width: 0, color }, fillcolor: faded(color, 0.2) };
  const dash = { limit: "dash", beyond: "dash", path: "dot" }[role] ?? "solid";
  const marker = { color, size: role === "star" ? 12 : role === "leverage" || role === "trend" ? 7 : crowded ? 4 : 6,
    symbol: role === "star" ? "star" : "circle", opacity: role === "cloud" ? (crowded ? 0.25 : 0.5) : role === "point" ? (crowded ? 0.5 : 0.85) : 1,
    line: { width: role === "star" ? 1 : 0, color: css("--panel") } };
  return { ...trace, marker, line: { color, width: role === "limit" ? 1.2 : 2, dash },
    ...(trace.error_y ? { error_y: { ...trace.error_y, color, thickness: 1.2, width: 3 } } : {}) };
}
// Few ticks at powers of ten, or at 1, 2 and 5 where there are few powers.
function logTicks(values, spec) {
  const known = values.filter((v) => v > 0);
  const low = Math.min(...known), high = Math.max(...known);
  const decades = Math.log10(high / low), room = innerWidth < 480 ? 4 : 7;
  const inside = (v) => v >= low / 1.1 && v <= high * 1.1;
  const steps = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 2, 3, 5];
  let found = [];
  if (spec.title === "Experts") for (let v = 1; v <= high * 1.1; v *= 2) found.push(v);
  else for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) for (const s of steps) found.push(Number(`${s}e${p}`));
  found = found.filter(inside);
  while (found.length > room) found = found.filter((_, i) => i % 2 === 0);
  return found.length < 2 ? {} : { tickvals: found, ticktext: found.map((v) => tickText(v, spec.si)) };
}
function tickText(value, si) {
  const power = Math.floor(Math.log10(value) + 1e-9);
  if (!si && power >= 6) {
    const lead = Math.round(value / 10 ** power);
    return `${lead === 1 ? "" : `${lead}·`}10<sup>${power}</sup>`;
  }
  if (!si || power < 3) return String(Number(value.toPrecision(2)));
  const group = Math.min(Math.floor(power / 3), 5);
  return `${Number((value / 1000 ** group).toPrecision(3))}${["", "k", "M", "B", "T", "P"][group]}`;
}
function lawAxis(spec, log, values) {
  return { title: { text: spec.title, font: { size: 13 } }, gridcolor: css("--line"), linecolor: css("--line"), zeroline: false,
    tickfont: { size: 12 }, tickangle: 0, automargin: true, nticks: innerWidth < 480 ? 5 : 7,
    ...(log ? { type: "log", ...logTicks(values, spec) } : {}) };
}
// On a page narrower than the window (print), `width` says how wide, px.
function drawLaw(figure, width) {
  const points = figure.traces.reduce((n, t) => n + (t.mode === "markers" ? t.x.length : 0), 0);
  const all = (key) => figure.traces.flatMap((t) => t[key]).filter((v) => v !== null);
  const logx = figure.loglog || figure.logx, logy = figure.logy ?? figure.loglog;
  const named = figure.traces.filter((t) => t.name && t.showlegend !== false);
  const look = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", ...(width ? { width } : { autosize: true }),
    font: { family: getComputedStyle(document.body).fontFamily, color: css("--ink"), size: 13 },
    margin: { l: 12, r: 16, t: 8, b: 8 }, showlegend: named.length > 1, hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 12 }, traceorder: "normal" },
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
    xaxis: lawAxis(figure.x, logx, all("x")), yaxis: lawAxis(figure.y, logy, all("y")) };
  return Plotly.react(document.getElementById(`plot-${figure.id}`), figure.traces.map((t) => lawTrace(t, points > 300)), look, CONFIG);
}
