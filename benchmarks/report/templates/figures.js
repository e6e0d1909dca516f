// Of pages whose figures are all drawn by one function `draw(figure)`.
const drawAll = () => Promise.all(data.figures.map(draw));
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
}
const preferred = matchMedia("(prefers-color-scheme: dark)");
setTheme(preferred.matches ? "dark" : "light");
const ready = unpackPlotly().then(drawAll);
preferred.addEventListener("change", () => { setTheme(preferred.matches ? "dark" : "light"); drawAll(); });
document.getElementById("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  drawAll();
});
for (const button of document.querySelectorAll("button[data-save]")) {
  button.addEventListener("click", () => Plotly.downloadImage(
    document.getElementById(`plot-${button.dataset.save}`), { format: "svg", filename: button.dataset.save }));
}
