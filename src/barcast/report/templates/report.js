"use strict";
// Draws figures when they scroll into view, and sorts tables. Makes no network requests.
(() => {
  const {config, specs} = JSON.parse(document.getElementById("specs").textContent);
  const blocks = new Map(); // block name → its figures' columns, parsed on first use
  const views = new Set(); // plots that are drawn or being drawn

  const columns = (block, figure) => {
    if (!blocks.has(block)) blocks.set(block, JSON.parse(document.getElementById(`block-${block}`).textContent));
    return blocks.get(block)[figure];
  };

  // Columns to rows. A grid has its cells in one list, separate from the names of rows and columns. Empty cells
  // are left out, except in the first row and column, which keep every name on the axes.
  const rows = (data) => {
    if (data.grid) {
      const width = data.lag.length;
      return data.grid
        .map((share, i) => ({feature: data.feature[Math.floor(i / width)], lag: data.lag[i % width], share}))
        .filter((cell, i) => cell.share > 0 || i < width || i % width === 0);
    }
    const keys = Object.keys(data);
    return data[keys[0]].map((_, i) => Object.fromEntries(keys.map((key) => [key, data[key][i]])));
  };

  const dated = (row) => {
    for (const key of ["time", "start", "end"]) if (key in row) row[key] *= 60000; // minutes to milliseconds
    return row;
  };

  const tip = document.getElementById("tip");
  const showTip = (_, event, __, value) => {
    tip.hidden = value === null || value === undefined || value === "";
    if (tip.hidden) return;
    tip.replaceChildren(
      ...Object.entries(value).map(([key, text]) => {
        const line = document.createElement("div");
        line.append(Object.assign(document.createElement("span"), {textContent: key}), ` ${text}`);
        return line;
      }),
    );
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4))}px`;
    tip.style.top = `${event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16}px`;
  };

  const draw = (plot) => {
    if (views.has(plot) || !plot.clientWidth) return;
    const values = rows(columns(plot.dataset.block, plot.dataset.figure)).map(dated);
    const spec = {...specs[plot.dataset.kind], datasets: {main: values}};
    if (spec.usermeta) spec.height *= new Set(values.map((row) => row[spec.usermeta.rows])).size;
    views.add(plot);
    const options = {mode: "vega-lite", renderer: "svg", config, actions: false, defaultStyle: false, tooltip: showTip};
    const inside = plot.appendChild(document.createElement("div")); // Vega overwrites the aria-label of its element
    vegaEmbed(inside, spec, options).then(() => plot.classList.add("drawn"));
  };

  const plots = [...document.querySelectorAll(".plot")];
  const observer = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && draw(entry.target)),
    {rootMargin: "300px"},
  );
  plots.forEach((plot) => observer.observe(plot));

  // For printing, all details are open and all figures drawn.
  const drawAll = () => {
    const closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => (details.open = true));
    plots.forEach(draw);
    return closed;
  };
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = drawAll();
  });
  addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
  window.barcast = {drawAll};

  // A link to a cell opens it.
  const openTarget = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? Infinity : -Infinity; // undefined values stay last
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? a.localeCompare(b) : difference;
  };
  const sort = (header) => {
    const table = header.closest("table");
    const falling = header.getAttribute("aria-sort") === "ascending";
    const at = [...header.parentNode.children].indexOf(header);
    const key = (row) => row.children[at].dataset.sort;
    const sorted = [...table.tBodies[0].rows].sort((a, b) => {
      const order = compare(key(a), key(b));
      return falling && Number.isFinite(order) ? -order : order;
    });
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    table.tBodies[0].append(...sorted);
    document.getElementById("status").textContent = `sorted by ${header.innerText.trim()}, ${falling ? "descending" : "ascending"}`;
  };
  document.querySelectorAll("th > button").forEach((button) => {
    button.addEventListener("click", () => sort(button.parentNode));
  });
  document.documentElement.classList.add("ready");
})();
