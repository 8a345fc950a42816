"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const settings = { displayModeBar: false, responsive: true };
for (const [id, figure] of Object.entries(data.figures)) {
  Plotly.newPlot(id, figure.data, figure.layout, settings);
}

// One sample is chosen at a time: in the grids, among the curves of V and in the film strips.
const traces = document.querySelectorAll(".traces");
let chosen = 0;

// By attribute: restyling through Plotly would look anew for the nearest curve, and never rest.
function highlight() {
  for (const plot of traces) {
    plot.querySelectorAll(".scatterlayer .trace").forEach((line, i) => {
      line.toggleAttribute("data-curve", plot.data[i].meta !== undefined);
      line.toggleAttribute("data-chosen", plot.data[i].meta === chosen);
    });
  }
}

function choose(sample, point) {
  chosen = sample;
  highlight();
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.setAttribute("aria-pressed", Number(button.dataset.sample) === sample);
  }
  const ends = document.querySelectorAll(`[data-sample="${sample}"] img`);
  document.querySelectorAll(".strip").forEach((strip, model) => {
    strip.style.setProperty("--sprite", `url("${data.strips[model][sample]}")`);
    strip.querySelector(".end").src = ends[model].src;
    const frames = strip.querySelectorAll(".frame");
    const now = Math.min(point, frames.length - 1);
    frames.forEach((frame, k) => frame.classList.toggle("now", k === now));
  });
  const text = document.getElementById("chosen");
  if (text) text.textContent = `Sample ${sample}: the denoised image at each noise level σ`;
}

function follow(event) {
  const { data: curve, pointNumber } = event.points[0];
  choose(curve.meta, pointNumber);
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", () => choose(Number(button.dataset.sample), -1));
}
for (const plot of traces) {
  plot.on("plotly_hover", follow);
  plot.on("plotly_click", follow);
}
highlight();

// A critical point is chosen at a time: its image stands beside the graph.
for (const plot of document.querySelectorAll("[data-landscape]")) {
  const images = data.landscapes[plot.dataset.landscape];
  const point = plot.parentElement.querySelector(".critical");
  function show([number, words]) {
    point.querySelector("img").src = images[number];
    point.querySelector("p").textContent = words;
  }
  if (!point) continue;
  show(plot.data[1].customdata[0]);
  for (const event of ["plotly_hover", "plotly_click"]) {
    plot.on(event, ({ points }) => points[0].customdata && show(points[0].customdata));
  }
}

for (const input of document.querySelectorAll("input[name=cost]")) {
  input.addEventListener("change", () => {
    const plot = document.getElementById("cost-figure");
    const x = plot.data.map((curve) => curve.meta[input.value]);
    Plotly.update(plot, { x }, plot.layout.meta[input.value]);
  });
}
