// The section of curves: the first things to look at, then everything by the beginning of its name.

const TITLES = {
  reward: "Reward", loss: "Loss", kl: "KL to the reference", entropy: "Entropy", grad_norm: "Gradient norm", learning_rate: "Learning rate",
  nll: "Negative log-likelihood", mean_token_accuracy: "Token accuracy", accuracy: "Accuracy", margin: "Margin", perplexity: "Perplexity",
  "completions/mean_length": "Completion length", "completions/clipped_ratio": "Share cut off", frac_groups_with_signal: "Groups with signal",
  "completions/unique_ratio": "Distinct completions", "rewards/margins": "Reward margin", "rewards/accuracies": "Reward accuracy",
  tokens_per_second: "Tokens per second", runtime: "Seconds", "clip_ratio/region_mean": "Clipped ratios",
};
const FIRST = [
  "reward", "@accuracy", "@reward", "@rewards/accuracies", "@loss", "loss", "kl", "entropy", "completions/mean_length", "grad_norm",
  "rewards/margins", "rewards/accuracies", "accuracy", "margin", "mean_token_accuracy", "completions/clipped_ratio", "frac_groups_with_signal",
];
const MOST = 9;

/** Names of evaluation sets, as metrics are prefixed with them: those that have a runtime. */
function evalSets(runs) {
  const found = new Set();
  for (const run of runs) for (const name of Object.keys(run.series)) if (/^eval.*_runtime$/.test(name)) found.add(name.slice(0, -"_runtime".length));
  return [...found].sort((a, b) => b.length - a.length);
}

function splitName(name, sets) {
  const set = sets.find((one) => name.startsWith(`${one}_`));
  return set === undefined ? [null, name] : [set, name.slice(set.length + 1)];
}

function title(name, sets) {
  const [set, rest] = splitName(name, sets);
  const own = TITLES[rest] || rest;
  if (set === null) return own;
  return `${own}, ${set === "eval" ? "evaluation" : `evaluation on ${set.slice("eval_".length)}`}`;
}

function metricNames(runs) {
  const all = [...new Set(runs.flatMap((run) => Object.keys(run.series)))];
  const bands = new Set(all.filter((name) => name.endsWith("_stderr") && all.includes(name.slice(0, -"_stderr".length))));
  return all.filter((name) => !bands.has(name)).sort();
}

function firstMetrics(names, sets) {
  const found = [];
  for (const wanted of FIRST) {
    if (!wanted.startsWith("@")) {
      if (names.includes(wanted)) found.push(wanted);
      continue;
    }
    // of evaluations the one that says most: loss where there is nothing else
    const mine = [...sets].reverse().map((set) => `${set}_${wanted.slice(1)}`).filter((name) => names.includes(name));
    if (wanted === "@reward" && found.some((name) => /^eval.*_accuracy$/.test(name))) continue;
    if (wanted === "@loss" && found.some((name) => name.startsWith("eval"))) continue;
    found.push(...mine.slice(0, 2));
  }
  return found.slice(0, MOST);
}

function groupOf(name, sets) {
  const [set, rest] = splitName(name, sets);
  if (set !== null) return set === "eval" ? "Evaluation" : `Evaluation on ${set.slice("eval_".length)}`;
  return rest.includes("/") ? rest.split("/")[0] : "Training";
}

class Curves {
  constructor(runs) {
    this.runs = runs;
    this.body = section("curves", "Curves");
    this.grid = el("div", { class: "charts" });
    this.rest = el("div", { class: "groups" });
    this.made = new Map();
    this.none = el("p", { class: "note", hidden: true });
    this.body.append(this.controls(), this.none, this.grid, el("h3", { class: "more" }, "All metrics"), this.search(), this.rest);
    this.update();
  }

  controls() {
    const axis = el("select", { onchange: (event) => this.set("axis", event.target.value) },
      ["step", "tokens", "epoch"].map((one) => el("option", { value: one }, one)));
    const shown = el("output", { for: "smoothing" }, "0");
    const slide = el("input", { id: "smoothing", type: "range", min: "0", max: "0.98", step: "0.02", value: "0", oninput: (event) => {
      shown.value = event.target.value;
      this.set("smoothing", Number(event.target.value));
    } });
    const log = el("input", { type: "checkbox", id: "log", onchange: (event) => this.set("log", event.target.checked) });
    const legend = el("div", { class: "legend", role: "group", "aria-label": "Runs that are shown" }, this.runs.map((run) => el("button", {
      type: "button", class: "chip", "aria-pressed": "true", onclick: (event) => {
        run.shown = !run.shown;
        event.currentTarget.setAttribute("aria-pressed", String(run.shown));
        redraw();
      } }, runName(run))));
    return el("div", { class: "controls sticky" }, this.runs.length > 1 ? legend : null,
      labelled("Over", axis), labelled("Smoothing", el("span", { class: "slide" }, slide, shown)), labelled("Log scale", log, { class: "field check" }),
      el("p", { class: "hint" }, "Bands: ± one standard error. Drag to zoom, double-click to see all."));
  }

  search() {
    const said = el("p", { class: "count", role: "status", "aria-live": "polite" });
    const box = el("input", { type: "search", id: "metric", placeholder: "reward, time/, eval…", oninput: later(() => this.filter(box.value, said), 120) });
    return el("div", { class: "controls" }, labelled("Find a metric", box), said);
  }

  set(name, value) {
    look[name] = value;
    redraw();
  }

  /** Charts for names that are new; what was there is drawn anew. */
  update() {
    const names = metricNames(this.runs), sets = evalSets(this.runs);
    this.none.hidden = names.length > 0;
    this.none.textContent = "No metric was logged yet.";
    const make = (name, words) => new Chart(name, words, () => this.runs);
    const short = (name) => { const rest = splitName(name, sets)[1]; return TITLES[rest] || rest; };
    for (const name of firstMetrics(names, sets)) {
      if (this.made.has(`first ${name}`) || this.grid.children.length >= MOST) continue;
      const chart = make(name, title(name, sets));
      this.made.set(`first ${name}`, chart);
      this.grid.append(chart.node);
    }
    const order = firstMetrics(names, sets).map((name) => this.made.get(`first ${name}`)).filter(Boolean);
    if (order.some((chart, i) => this.grid.children[i] !== chart.node)) this.grid.append(...order.map((chart) => chart.node)); // what came later may belong before
    for (const name of names) {
      if (this.made.has(name)) continue;
      const chart = make(name, short(name)); // its group says the rest
      this.made.set(name, chart);
      this.group(groupOf(name, sets)).append(chart.node);
    }
    for (const group of this.rest.children) group.querySelector(".n").textContent = count(group.querySelectorAll(".chart").length);
    redraw();
  }

  group(name) {
    const found = [...this.rest.children].find((one) => one.dataset.group === name);
    if (found !== undefined) return found.lastChild;
    const made = el("details", { "data-group": name }, el("summary", {}, name, " ", el("span", { class: "n" })), el("div", { class: "charts" }));
    const rank = (group) => (group === "Training" ? "0" : group.startsWith("Evaluation") ? "1" : "2") + group;
    const after = [...this.rest.children].find((one) => rank(one.dataset.group) > rank(name));
    this.rest.insertBefore(made, after || null);
    return made.lastChild;
  }

  filter(text, status) {
    const wanted = text.trim().toLowerCase();
    let n = 0;
    for (const group of this.rest.children) {
      let mine = 0;
      for (const chart of group.querySelectorAll(".chart")) {
        const fits = `${chart.dataset.metric} ${chart.querySelector("h4").textContent}`.toLowerCase().includes(wanted);
        chart.hidden = !fits;
        mine += fits;
      }
      group.hidden = mine === 0;
      group.open = wanted !== "" && mine > 0;
      n += mine;
    }
    status.textContent = wanted === "" ? "" : `${plural(n, "metric")} found.`;
  }
}
