"use strict";
(() => {
  document.documentElement.classList.add("js");
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map();  // by name: what plotly was given, axis and selected network included

  // Colours are names of the page's own, so that plots follow its light and dark.
  const resolve = (value) => {
    if (typeof value === "string" && value.startsWith("var(--")) {
      return getComputedStyle(document.documentElement).getPropertyValue(value.slice(4, -1)).trim();
    }
    if (Array.isArray(value)) return value.map(resolve);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolve(each)]));
    }
    return value;
  };

  const tracesOf = (chart, state) => {
    const axes = Object.values(chart.axes);
    const traces = chart.traces.map((trace, position) =>
      axes.length ? { ...trace, x: axes[state.axis][position], ...unordered(trace, state) } : trace);
    if (state.selected === null) return traces;
    for (const trace of traces) {
      const at = (trace.customdata || []).lastIndexOf(state.selected);
      if (at >= 0 && trace.name.startsWith("front")) {
        traces.push({
          type: "scatter", mode: "markers", name: "selected", x: [trace.x[at]], y: [trace.y[at]], hoverinfo: "skip",
          marker: { color: "var(--ink)", size: 20, symbol: "circle-open", line: { width: 2.5 } },
        });
        break;
      }
    }
    return traces;
  };

  // What is in the order of one cost zigzags over another.
  const unordered = (trace, state) =>
    state.axis > 0 && trace.mode === "lines+markers" ? { mode: "markers" } : {};

  const layoutOf = (chart, state) => {
    const names = Object.keys(chart.axes);
    const own = { ...chart.layout };
    const axis = { gridcolor: "var(--rule)", zerolinecolor: "var(--rule)", linecolor: "var(--soft)", automargin: true };
    own.xaxis = { ...axis, ...own.xaxis };
    own.yaxis = { ...axis, ...own.yaxis };
    if (names.length) own.xaxis.title = { text: names[state.axis] };
    if (state.axis > 0) { own.shapes = []; own.annotations = []; }  // a budget is of latency
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: "var(--ink)", size: 13 },
      margin: { l: 50, r: 15, t: 25, b: 45 }, hovermode: "closest", autosize: true,
      uirevision: String(state.axis), legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
      hoverlabel: { bgcolor: "var(--panel)", font: { color: "var(--ink)" }, align: "left" }, ...own,
    };
  };

  const show = (chart) => {
    const place = document.getElementById(chart.name);
    if (!place || place.offsetParent === null) return;
    const state = drawn.get(chart.name) || { axis: 0, selected: null };
    const first = !drawn.has(chart.name);
    drawn.set(chart.name, state);
    Plotly.react(place, resolve(tracesOf(chart, state)), resolve(layoutOf(chart, state)),
      { responsive: true, displaylogo: false, displayModeBar: false });
    if (first) {
      place.on("plotly_click", (event) => {
        const id = event.points[0].customdata;
        const radio = [...document.querySelectorAll(`.choice[data-chart="${chart.name}"] input`)]
          .find((each) => each.value === id);
        if (radio) { radio.checked = true; select(radio); }
      });
    }
  };
  const byName = new Map(charts.map((chart) => [chart.name, chart]));

  const select = (radio) => {
    const choice = radio.closest(".choice");
    const device = radio.closest("[data-device]").dataset.device;
    for (const network of document.querySelectorAll(".network")) {
      if (network.closest("[data-device]").dataset.device === device) {
        network.classList.toggle("selected", network.dataset.network === radio.value);
      }
    }
    const chart = byName.get(choice.dataset.chart);
    if (!chart) return;
    drawn.set(chart.name, { ...(drawn.get(chart.name) || { axis: 0 }), selected: radio.value });
    show(chart);
  };

  const switchTo = (device) => {
    for (const part of document.querySelectorAll("[data-device]")) {
      part.classList.toggle("off", !JSON.parse(part.dataset.shownFor).includes(device));
    }
    charts.forEach(show);
  };

  charts.forEach(show);
  for (const radio of document.querySelectorAll(".choice input")) {
    radio.addEventListener("change", () => select(radio));
    if (radio.checked) select(radio);
  }
  for (const axis of document.querySelectorAll("select.axis")) {
    axis.addEventListener("change", () => {
      const chart = byName.get(axis.dataset.chart);
      drawn.set(chart.name, { ...drawn.get(chart.name), axis: Number(axis.value) });
      show(chart);
    });
  }
  for (const radio of document.querySelectorAll("#devices input")) {
    radio.addEventListener("change", () => switchTo(radio.value));
    if (radio.checked) switchTo(radio.value);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(show));
})();
