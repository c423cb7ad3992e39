"use strict";
// Charts and the slider of a report: draws what the element #data holds, and changes no figure of it.

const MOST_READ = 8; // lines that a read-out names
const data = JSON.parse(document.getElementById("data").textContent);
const colourOf = (line) => (line.colour === null ? "var(--muted)" : `var(--c${line.colour})`);
const number = (value, digits) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);

function make(tag, attributes, parent, text) {
  const svg = ["svg", "g", "path", "line", "text", "circle"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => +((first + i) * step).toPrecision(12));
}

// Lines with bands: points are [x, mean, low, high]; marks are vertical lines {at, dash}; here is where the slider stands.
function chart(box, spec) {
  let hidden = new Set();
  let here = null;
  const shown = () => spec.lines.filter((line) => !hidden.has(line.name));

  function draw() {
    const width = box.clientWidth, height = Math.max(210, Math.min(320, width * 0.62));
    if (!width) return;
    const edge = { left: 40, right: 10, top: 12, bottom: 38 };
    const lines = shown(), banded = lines.length <= 4;
    const all = (lines.length ? lines : spec.lines).flatMap((line) => line.points);
    const extent = (values) => [Math.min(...values), Math.max(...values)];
    let [left, right] = extent(all.map((point) => point[0]));
    if (left === right) [left, right] = [left - 1, right + 1];
    let [low, high] = spec.range || extent(all.flatMap((p) => (banded ? [p[1], p[2], p[3]] : [p[1]])).filter((v) => v !== null));
    if (!spec.range) {
      const room = Math.max(0.05 * (high - low), 0.1);
      [low, high] = [Math.max(0, low - room), Math.min(100, high + room)];
    }
    const clip = (v) => Math.max(low, Math.min(high, v));
    const x = (v) => edge.left + ((v - left) / (right - left)) * (width - edge.left - edge.right);
    const y = (v) => height - edge.bottom - ((clip(v) - low) / (high - low)) * (height - edge.top - edge.bottom);
    box.querySelector("svg")?.remove();
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": spec.label }, box);
    for (const v of ticks(low, high, 5)) {
      make("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(v), y2: y(v) }, svg);
      make("text", { x: edge.left - 6, y: y(v) + 4, "text-anchor": "end" }, svg, number(v, high - low < 1 ? 2 : high - low < 5 ? 1 : 0));
    }
    const most = Math.max(2, Math.min(8, width / 60));
    for (const v of ticks(left, right, most).filter((v) => !spec.whole || Number.isInteger(v))) {
      make("text", { x: x(v), y: height - edge.bottom + 16, "text-anchor": "middle" }, svg, number(v, Number.isInteger(v) ? 0 : 1));
    }
    make("text", { x: (edge.left + width - edge.right) / 2, y: height - 4, "text-anchor": "middle" }, svg, spec.x);
    (spec.marks || []).filter((mark) => mark.at >= left && mark.at <= right).forEach((mark) => {
      make("line", { class: "mark", x1: x(mark.at), x2: x(mark.at), y1: edge.top - 4, y2: height - edge.bottom, "stroke-dasharray": mark.dash }, svg);
    });
    for (const line of lines) {
      const points = line.points.filter((point) => point[1] !== null);
      const path = (list) => list.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
      const ends = points.filter((point) => point[2] !== null);
      if (banded && ends.length > 1) {
        const back = ends.slice().reverse().map((p) => [p[0], p[2]]);
        make("path", { class: "band", fill: colourOf(line), d: path([...ends.map((p) => [p[0], p[3]]), ...back]) + "Z" }, svg);
      }
      const faint = line.colour === null ? 1 : 2;
      make("path", { class: "line", stroke: colourOf(line), style: `stroke-width: ${faint}`, d: path(points) }, svg);
      if (points.length === 1) make("circle", { cx: x(points[0][0]), cy: y(points[0][1]), r: 4, fill: colourOf(line) }, svg);
    }
    if (here !== null) make("line", { class: "here", x1: x(here), x2: x(here), y1: edge.top - 4, y2: height - edge.bottom }, svg);
    listen(svg, { left, right, x, lines, edge, height, width });
  }

  function listen(svg, frame) {
    const places = [...new Set(frame.lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
    let cursor = null, tip = null;
    const leave = () => { cursor?.remove(); tip?.remove(); cursor = tip = null; };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", (event) => {
      leave();
      const at = event.clientX - svg.getBoundingClientRect().left;
      const near = places.reduce((best, v) => (Math.abs(frame.x(v) - at) < Math.abs(frame.x(best) - at) ? v : best), places[0]);
      if (near === undefined) return;
      cursor = make("line", { class: "cursor", x1: frame.x(near), x2: frame.x(near), y1: frame.edge.top, y2: frame.height - frame.edge.bottom }, svg);
      tip = make("div", { class: "tip" }, box);
      make("div", {}, tip, `${spec.x}: ${number(near, Number.isInteger(near) ? 0 : 2)}`);
      const found = frame.lines.map((line) => [line, line.points.find((point) => point[0] === near)]).filter(([, point]) => point && point[1] !== null);
      for (const [line, point] of found.sort((a, b) => b[1][1] - a[1][1]).slice(0, MOST_READ)) {
        const row = make("div", {}, tip);
        make("span", { class: "swatch", style: `background: ${colourOf(line)}` }, row);
        make("span", {}, row, line.name);
        const half = point[3] === null ? "" : ` ± ${Math.max(point[3] - point[1], point[1] - point[2]).toFixed(2)}`;
        make("b", {}, row, point[1].toFixed(2) + half);
      }
      if (found.length > MOST_READ) make("div", {}, tip, `and ${found.length - MOST_READ} lower ones`);
      const room = box.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(room, frame.x(near) < frame.width / 2 ? frame.x(near) + 12 : frame.x(near) - tip.offsetWidth - 12))}px`;
    });
  }

  draw();
  new ResizeObserver(draw).observe(box);
  return {
    hide: (names) => { hidden = names; draw(); },
    move: (value) => { here = value; draw(); },
    show: (changed) => { spec = changed; draw(); },
  };
}

function legend(box, lines, charts) {
  const hidden = new Set();
  const buttons = new Map();
  const update = () => {
    buttons.forEach((button, name) => button.setAttribute("aria-pressed", String(!hidden.has(name))));
    charts.forEach((one) => one.hide(hidden));
  };
  box.replaceChildren();
  for (const line of lines) {
    const button = make("button", { type: "button", "aria-pressed": "true" }, box);
    make("span", { class: "swatch", style: `background: ${colourOf(line)}` }, button);
    button.append(line.name);
    button.addEventListener("click", () => {
      hidden.has(line.name) ? hidden.delete(line.name) : hidden.add(line.name);
      update();
    });
    buttons.set(line.name, button);
  }
  if (lines.length > 4) {
    make("button", { type: "button" }, box, "all or none").addEventListener("click", () => {
      const all = hidden.size > 0;
      for (const line of lines) all ? hidden.delete(line.name) : hidden.add(line.name);
      update();
    });
  }
}

function learning(panels) {
  const charts = panels.map((panel, index) => {
    const values = panel.lines.flatMap((line) => line.points.map((point) => point[1]));
    const range = index > 0 && Math.max(...values) - Math.min(...values) > 20 ? [0, 100] : null;
    const box = document.querySelector(`[data-panel="${index}"]`);
    return chart(box, { lines: panel.lines, x: "epoch", whole: true, range, label: `${panel.title}, by epoch` });
  });
  const lines = new Map(panels.flatMap((panel) => panel.lines).map((line) => [line.name, line]));
  legend(document.getElementById("learning-legend"), [...lines.values()], charts);
}

function bias(settings) {
  const [slider, value, table, jumps, note] = ["slider", "value", "classes", "jumps", "note"].map((name) => document.getElementById(`bias-${name}`));
  let one = settings[0];
  const nearest = (target) => one.biases.reduce((best, v, i) => (Math.abs(v - target) < Math.abs(one.biases[best] - target) ? i : best), 0);
  const inside = (chosen) => chosen.mean >= one.biases[0] && chosen.mean <= one.biases[one.biases.length - 1];
  const spec = () => ({
    lines: one.lines, x: "bias (nats)", range: [0, 100], label: "test accuracy (%) by bias",
    marks: one.chosen.map((chosen) => ({ at: chosen.mean, dash: chosen.dash })),
  });
  const lines = chart(document.getElementById("bias-chart"), spec());

  function go(index) {
    slider.value = index;
    const at = one.biases[index];
    value.textContent = `${at > 0 ? "+" : ""}${number(at, 2)} nats`;
    slider.setAttribute("aria-valuetext", value.textContent);
    one.rows.forEach((row, i) => {
      const cells = table.rows[i].cells;
      cells[1].firstChild.style.width = `${row.means[index] ?? 0}%`;
      cells[2].textContent = row.texts[index];
    });
    lines.move(at);
  }

  function show(setting) {
    one = setting;
    slider.max = one.biases.length - 1;
    table.replaceChildren();
    for (const row of one.rows) {
      const line = make("tr", { "data-part": row.part, class: row.omitted ? "omitted" : "" }, table);
      make("th", { scope: "row", title: row.name }, line, row.omitted ? `${row.name} *` : row.name);
      make("div", { class: "bar", style: `background: ${colourOf(row)}` }, make("td", {}, line));
      make("td", { class: "value" }, line);
    }
    jumps.replaceChildren();
    const jump = (text, target, dash) => {
      const button = make("button", { type: "button" }, jumps);
      if (dash) {
        const svg = make("svg", { viewBox: "0 0 16 4", style: "width: 16px; height: 4px; display: inline; vertical-align: middle; margin-right: 6px" }, button);
        make("line", { class: "mark", x1: 0, x2: 16, y1: 2, y2: 2, "stroke-dasharray": dash, "stroke-width": 2 }, svg);
      }
      button.append(text);
      button.addEventListener("click", () => go(nearest(target)));
    };
    jump("0: as trained", 0);
    one.chosen.filter(inside).forEach((chosen) => jump(`${chosen.correction} ${number(chosen.mean, 2)}`, chosen.mean, chosen.dash));
    const apart = one.chosen.filter((chosen) => chosen.high > chosen.low);
    const beyond = one.chosen.filter((chosen) => !inside(chosen));
    const ranges = apart.map((chosen) => `${chosen.correction} ${number(chosen.low, 2)} to ${number(chosen.high, 2)}`).join(", ");
    const words = ["Bias 0 is the table's row none."];
    if (apart.length) {
      words.push(`Each correction chooses a bias for each student: over ${apart[0].seeds} seeds, ${ranges}. Its line stands at their mean.`);
      words.push("The slider gives all students the same bias, so there its figures are near the table's, not the same.");
    }
    if (beyond.length) words.push(`Beyond the curve: ${beyond.map((chosen) => `${chosen.correction} ${number(chosen.mean, 2)}`).join(", ")}.`);
    note.textContent = words.join(" ");
    lines.show(spec());
    legend(document.getElementById("bias-legend"), one.lines, [lines]);
    lines.hide(new Set());
    go(nearest(0));
  }

  slider.addEventListener("input", () => go(Number(slider.value)));
  document.getElementById("bias-setting")?.addEventListener("change", (event) => show(settings[event.target.value]));
  show(one);
}

if (data.curves?.length) learning(data.curves);
if (data.biases?.length) bias(data.biases);
