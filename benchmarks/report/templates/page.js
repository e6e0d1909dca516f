"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Plotly's library comes as gzip in base64, which browsers since 2023 unpack.
async function unpackPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
}
// Distinguishable with color-vision deficiencies, on light and on dark backgrounds.
const PALETTE = ["#4477aa", "#e0742c", "#2a9d77", "#b5569b", "#b79a1b", "#5ab4d6", "#cc4a5b",
  "#7d70d8", "#7a9a3b", "#9a6b4c"];
const CONFIG = { responsive: true, displayModeBar: false };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
