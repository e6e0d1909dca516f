const ROLES = { front: "#e0742c", best: "#2a9d77", forward: "#4477aa", backward: "#5ab4d6", strong: "#4477aa", weak: "#e0742c" };

function axis(spec) {
  return { title: { text: spec.title, font: { size: 13 } }, gridcolor: css("--line"), linecolor: css("--line"),
    zerolinecolor: css("--line"), tickfont: { size: 12 }, automargin: true, ...(spec.si ? { tickformat: ".3~s" } : {}) };
}
function styled(trace) {
  const role = trace.meta.role;
  const color = role === "part" ? PALETTE[trace.meta.part % PALETTE.length]
    : role === "other" || role === "limit" ? css("--soft") : ROLES[role];
  const bars = { color: css("--ink"), thickness: 1.2 };
  const errors = { ...(trace.error_x ? { error_x: { ...trace.error_x, ...bars } } : {}),
    ...(trace.error_y ? { error_y: { ...trace.error_y, ...bars, color } } : {}) };
  if (trace.type === "bar") {
    const passes = role === "forward" || role === "backward";
    return { ...trace, ...errors, textposition: passes ? "none" : trace.error_x ? "inside" : "auto", insidetextanchor: "start", textangle: 0,
      marker: { color, line: { color: css("--panel"), width: passes ? 0.5 : 0 } } };
  }
  const sizes = { best: 13, front: 8, other: 5 };
  return { ...trace, ...errors, line: { color, width: 2, dash: role === "limit" ? "dash" : "solid", ...(role === "front" ? { width: 1, dash: "dot" } : {}) },
    marker: { color, size: sizes[role] ?? 8, opacity: role === "other" ? 0.5 : 1, symbol: role === "best" ? "star" : "circle" } };
}
function draw(figure) {
  const horizontal = figure.bars;
  const names = new Set(figure.traces.map((t) => t.name).filter(Boolean));
  // A line of one point would be none: limits cross the whole plot, and their traces name them.
  const limits = figure.traces.filter((t) => t.meta.role === "limit");
  const shapes = limits.map((t) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: t.y[0], y1: t.y[0],
    line: { color: css("--soft"), width: 2, dash: "dash" } }));
  const look = { shapes, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
    font: { family: getComputedStyle(document.body).fontFamily, color: css("--ink"), size: 13 },
    margin: { l: 12, r: 16, t: 8, b: 8 }, showlegend: names.size > 1, hovermode: "closest",
    legend: { orientation: "h", y: figure.stacked ? -0.3 : -0.22, font: { size: 12 }, traceorder: "normal" },
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
    barmode: figure.stacked ? "stack" : "overlay", bargap: 0.25,
    xaxis: { ...axis(figure.x), ...(figure.logx ? { type: "log", dtick: Math.log10(4), tickformat: ",d" } : {}) , ...(figure.stacked ? { type: "category" } : {}) },
    yaxis: { ...axis(figure.y), ...(horizontal ? { autorange: "reversed", type: "category", showgrid: false } : { rangemode: "tozero" }) } };
  return Plotly.react(document.getElementById(`plot-${figure.id}`), figure.traces.map(styled), look, CONFIG);
}
