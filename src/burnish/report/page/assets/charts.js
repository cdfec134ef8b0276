// One chart: a metric of all runs that have it, over steps, tokens or epochs, with bands and a table of the same numbers.

const look = { axis: "step", smoothing: 0, log: false };
const charts = new Set();
const sync = "report";

/** Where the points of a metric lie on the chosen axis. Other axes are known at the steps of log lines, and straight between them. */
function placed(run, steps) {
  if (look.axis === "step") return steps;
  const known = run.series[look.axis === "tokens" ? "num_tokens" : "epoch"];
  if (known === undefined || known.steps.length === 0) return steps.map(() => null);
  let at = 0;
  return steps.map((step) => {
    while (at < known.steps.length - 1 && known.steps[at] < step) at++;
    while (at > 0 && known.steps[at - 1] >= step) at--;
    const [right, y] = [known.steps[at], known.values[at]];
    if (right <= step) return y;
    const [left, x] = at ? [known.steps[at - 1], known.values[at - 1]] : [0, 0];
    return x + ((y - x) * (step - left)) / (right - left);
  });
}

/**
 * The exponential mean of the values so far, with weights that add up to 1, and its standard error:
 * sqrt(sum of (weight × error)²), errors of different steps being independent. It is known where values without an error have less than a
 * hundredth of the weight.
 */
function smoothed(values, errors, weight) {
  let sum = 0, weights = 0, squares = 0, lost = 0;
  const out = { values: [], errors: [] };
  values.forEach((value, i) => {
    if (value === null) {
      out.values.push(null);
      out.errors.push(null);
      return;
    }
    const error = errors[i];
    lost = weight * lost + (error === null ? 1 - weight : 0);
    sum = weight * sum + (1 - weight) * value;
    weights = weight * weights + (1 - weight);
    squares = weight * weight * squares + (1 - weight) ** 2 * (error || 0) ** 2;
    out.values.push(sum / weights);
    out.errors.push(lost / weights < 0.01 ? Math.sqrt(squares) / weights : null);
  });
  return out;
}

/** Of each value of a metric; null where there is none. */
function errorsOf(run, name) {
  const spread = run.series[`${name}_stderr`];
  const known = new Map(spread === undefined ? [] : spread.steps.map((step, i) => [step, spread.values[i]]));
  return run.series[name].steps.map((step) => known.get(step) ?? null);
}

/** What is drawn of one metric of one run. */
function line(run, name) {
  const mine = run.series[name];
  const flat = smoothed(mine.values, errorsOf(run, name), look.smoothing);
  const x = placed(run, mine.steps);
  const order = x.map((_, i) => i).filter((i) => x[i] !== null).sort((a, b) => x[a] - x[b]);
  const kept = order.filter((i, n) => n === order.length - 1 || x[order[n + 1]] !== x[i]); // of equal places the last
  const positive = (value) => (value === null || (look.log && !(value > 0)) ? null : value);
  const of = (list) => kept.map((i) => positive(list[i]));
  const edge = (sign) => kept.map((i) => (flat.errors[i] === null || flat.values[i] === null ? null : positive(flat.values[i] + sign * flat.errors[i])));
  return { run, x: kept.map((i) => x[i]), raw: of(mine.values), main: of(flat.values), low: edge(-1), high: edge(1), errors: kept.map((i) => flat.errors[i]), steps: kept.map((i) => mine.steps[i]) };
}

class Chart {
  constructor(name, title, runs) {
    Object.assign(this, { name, runs, plot: null, seen: false });
    this.readout = el("p", { class: "readout" });
    this.box = el("div", { class: "plot", role: "img", tabindex: "0", onkeydown: (event) => this.step(event) });
    this.rows = el("div", { class: "rows", hidden: true });
    const button = el("button", { type: "button", class: "quiet small", "aria-expanded": "false", onclick: () => this.toggle(button) }, "Table");
    const heading = el("h4", { title: name }, title, title === name ? null : el("code", {}, name));
    this.node = el("article", { class: "chart", "data-metric": name }, el("div", { class: "head" }, heading, button), this.readout, this.box, this.rows);
    charts.add(this);
    Chart.watcher.observe(this.node);
  }

  /** Those that are drawn. */
  get shown() {
    return this.runs().filter((run) => run.shown && run.series[this.name] !== undefined);
  }

  /** Draws, if it has been looked at. */
  draw() {
    if (!this.seen) return;
    const lines = this.shown.map((run) => line(run, this.name));
    this.drawn = lines;
    if (!this.rows.hidden) this.fill();
    const zoom = this.zoom;
    this.plot?.destroy();
    this.plot = null;
    this.box.setAttribute("aria-label", `${this.name}: ${summary(lines)} Arrow keys read single points.`);
    this.joined = lines.length ? uPlot.join(lines.map((one) => [one.x, one.raw, one.main, one.low, one.high])) : [[]];
    if (!this.joined[0].length || !lines.some((one) => one.main.some((value) => value !== null))) {
      this.box.replaceChildren(el("p", { class: "empty" }, nothing(lines)));
      this.read(null);
      return;
    }
    this.box.replaceChildren();
    this.plot = new uPlot(this.options(lines), this.joined, this.box);
    this.axis = look.axis;
    if (zoom !== null) this.plot.setScale("x", zoom);
    this.read(null);
  }

  /** The part that is seen, where it is not all of the same axis. */
  get zoom() {
    if (this.plot === null || this.axis !== look.axis) return null;
    const { min, max } = this.plot.scales.x, places = this.plot.data[0];
    return min > places[0] || max < last(places) ? { min, max } : null;
  }

  options(lines) {
    const [ink, grid] = [variable("--muted"), variable("--grid")];
    const series = [{}], bands = [];
    lines.forEach((one, i) => {
      const colour = variable(`--c${one.run.number % 8}`);
      const dash = one.run.number >= 8 ? [6, 4] : [];
      series.push(
        { show: look.smoothing > 0, stroke: `${colour}55`, width: 1, points: { show: false } },
        { stroke: colour, width: 2, dash, points: { size: 5, fill: colour } },
        { stroke: "transparent", width: 0, points: { show: false } },
        { stroke: "transparent", width: 0, points: { show: false } },
      );
      bands.push({ series: [4 * i + 4, 4 * i + 3], fill: `${colour}2b` });
    });
    const font = `11px ${variable("--sans")}`;
    const axis = { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    return {
      width: Math.max(200, this.box.clientWidth), height: 190, series, bands, legend: { show: false }, padding: [8, 14, 0, 0],
      cursor: { sync: { key: sync, setSeries: false, scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 7 } },
      scales: { x: { time: false }, y: look.log ? { distr: 3 } : { range: this.range } },
      axes: [
        { ...axis, size: 26, values: (_, ticks) => ticks.map(brief) },
        { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : brief(tick))) },
      ],
      hooks: { setCursor: [(plot) => this.read(plot.cursor.idx)] },
    };
  }

  /** Some room above and below; a constant is in the middle. */
  range(_, low, high) {
    if (low === null || high === null) return [0, 1];
    const room = high > low ? 0.06 * (high - low) : Math.max(Math.abs(high) * 0.1, 1e-6);
    return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
  }

  /** Writes the values at a place, or the last ones. */
  read(at) {
    const parts = (this.drawn || []).map((one) => {
      const x = at === null || at === undefined ? Infinity : this.joined[0][at];
      let i = one.x.findLastIndex((place, n) => place <= x && one.main[n] !== null);
      if (i < 0) i = one.main.findIndex((value) => value !== null);
      if (i < 0) return null;
      const where = at === null || at === undefined ? "" : ` at ${look.axis === "step" ? `step ${count(one.steps[i])}` : `${number(one.x[i])} ${look.axis}`}`;
      return el("span", { class: "run" }, el("span", { class: `dot c${one.run.number % 8}`, "aria-hidden": "true" }), el("span", {}, el("b", {}, measured(one.main[i], one.errors[i])), look.smoothing > 0 && one.raw[i] !== null ? `, unsmoothed ${number(one.raw[i])}` : "", where, this.drawn.length > 1 ? el("span", { class: "hidden" }, ` ${one.run.name}`) : null));
    });
    this.readout.replaceChildren(...parts.filter((part) => part !== null));
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (by === undefined || this.plot === null) return;
    event.preventDefault();
    this.readout.setAttribute("aria-live", "polite");
    const at = Math.min(this.joined[0].length - 1, Math.max(0, (this.plot.cursor.idx ?? this.joined[0].length) + by));
    this.plot.setCursor({ left: this.plot.valToPos(this.joined[0][at], "x"), top: 40 });
    this.read(at);
  }

  toggle(button) {
    this.rows.hidden = !this.rows.hidden;
    button.setAttribute("aria-expanded", String(!this.rows.hidden));
    if (!this.rows.hidden) this.fill();
  }

  /** Values and errors as they were logged, whatever is drawn of them. */
  fill() {
    const rows = this.shown.flatMap((run) => {
      const { steps, values } = run.series[this.name], errors = errorsOf(run, this.name);
      const kept = new Map(steps.map((step, i) => [step, i])); // of equal steps the last
      return [...kept].map(([step, i]) => [run.name, count(step), number(values[i]), errors[i] === null ? "" : number(errors[i])]);
    });
    const shown = rows.length > 400 ? rows.filter((_, i) => i % Math.ceil(rows.length / 400) === 0) : rows;
    const note = shown.length < rows.length ? el("p", { class: "about" }, `${count(shown.length)} of ${count(rows.length)} points.`) : "";
    this.rows.replaceChildren(note, table(this.name, ["run", "step", "value", "standard error"], shown));
  }

  resize() {
    if (this.plot !== null) this.plot.setSize({ width: Math.max(200, this.box.clientWidth), height: 190 });
  }
}

Chart.watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    const chart = [...charts].find((one) => one.node === entry.target);
    if (chart !== undefined && !chart.seen) {
      chart.seen = true;
      chart.draw();
    }
  }
}, { rootMargin: "300px" });

function brief(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace("e-", "e−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

/** Why there is nothing to draw. */
function nothing(lines) {
  if (!lines.length) return "None of the runs that are shown.";
  if (lines.every((one) => !one.x.length)) return look.axis === "tokens" ? "How many tokens were trained on was not logged." : "The epoch was not logged.";
  return look.log ? "No value above 0 to draw on a logarithmic scale." : "No value that is a number.";
}

/** A chart in words. */
function summary(lines) {
  return lines.map((one) => {
    const known = one.main.map((value, i) => ({ value, step: one.steps[i] })).filter((point) => point.value !== null);
    if (!known.length) return `${one.run.name}: no value.`;
    const [first, end] = [known[0], last(known)];
    const low = known.reduce((a, b) => (b.value < a.value ? b : a));
    const high = known.reduce((a, b) => (b.value > a.value ? b : a));
    return `${one.run.name}: ${number(first.value)} at step ${first.step}, ${number(end.value)} at step ${end.step}; lowest ${number(low.value)} at step ${low.step}, highest ${number(high.value)} at step ${high.step}.`;
  }).join(" ");
}

function redraw() {
  for (const chart of charts) chart.draw();
}
