// Data, time and memory, events, configuration: tables of what the run's folder says.

// Data

const COUNTED = {
  dropped_too_long: "dropped: too long", dropped_prompt_too_long: "dropped: prompt too long", dropped_empty: "dropped: empty",
  dropped_equal: "dropped: chosen equals rejected", dropped_tied: "dropped: equal scores", dropped_nothing_trained: "dropped: nothing trained",
  cut: "cut to max_length", tokens_cut: "tokens lost by cutting", swapped: "chosen and rejected swapped", missing_eos: "without end of sequence",
  departures: "turns that the template rewrites", duplicate_bos: "with two BOS tokens", straddled: "a token across prompt and completion",
};

function dataSection(body, runs) {
  for (const run of runs) {
    const sets = Object.entries(run.record.data).filter(([, one]) => one !== null && typeof one === "object");
    const parts = sets.map(([name, one]) => dataSet(name, one));
    const clipped = run.final("completions/clipped_ratio");
    if (clipped !== null) parts.push(el("p", {}, `Completions cut off by max_completion_length: ${percent(clipped.value)} at step ${count(clipped.step)}, ${percent(run.value("completions/clipped_ratio", "first").value)} at first.`));
    parts.push(...completionLengths(run));
    const share = run.final("trained_share");
    if (share !== null) parts.push(el("p", {}, `Of the tokens computed, ${percent(share.value)} are trained.`));
    body.append(el("div", { class: "block" }, runs.length > 1 ? el("h3", {}, runName(run)) : null, parts.length ? parts : el("p", { class: "note" }, "There is no data.json: what became of its rows is not known.")));
  }
}

function dataSet(name, set) {
  const parts = [];
  if (typeof set.prompts === "number") parts.push(el("p", {}, `${plural(set.prompts, "prompt")}.`));
  const counts = Array.isArray(set.counts) ? set.counts : [];
  if (counts.length) {
    const rows = counts.map((one, i) => [String(i + 1), count(one.rows), count(one.kept), count(one.tokens), percent(one.trained_tokens / Math.max(1, one.tokens)), `${count(one.shortest)} · ${count(one.median)} · ${count(one.longest)}`,
      Object.entries(COUNTED).filter(([key]) => one[key]).map(([key, words]) => `${count(one[key])} ${words}${one.first && one.first[key] ? ` (first: ${one.first[key]})` : ""}`).join("; ") || "nothing"]);
    parts.push(table(`Rows of ${name}`, ["source", "rows", "kept", "tokens", "trained", "shortest · median · longest", "cut or dropped"], rows));
  } else if (Array.isArray(set.reports)) parts.push(...set.reports.map((one) => el("p", {}, String(one))));
  if (Array.isArray(set.lengths)) parts.push(histogram(name, set.lengths));
  return el("div", { class: "set" }, el("h4", {}, name), parts);
}

/** Of what was sampled for training, at the first and at the last step. */
function completionLengths(run) {
  const set = samples.names.set.numbers.get("train"), steps = new Map();
  for (let i = 0; i < samples.length; i++) {
    if (samples.run[i] !== run.number || samples.set[i] !== set) continue;
    const mine = steps.get(samples.step[i]);
    if (mine === undefined) steps.set(samples.step[i], [samples.tokens[i]]);
    else mine.push(samples.tokens[i]);
  }
  const all = [...steps.keys()], ends = [...new Set([Math.min(...all), Math.max(...all)])].filter(Number.isFinite);
  return ends.map((step) => {
    const lengths = steps.get(step), most = Math.max(...lengths);
    const size = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((one) => most / one < 15) || most;
    const bins = Array.from({ length: Math.floor(most / size) + 1 }, (_, n) => [n * size, n * size + size - 1, 0]);
    for (const length of lengths) bins[Math.floor(length / size)][2]++;
    return histogram(`the completions sampled after step ${count(step)}`, bins.slice(bins.findIndex((bin) => bin[2] > 0)));
  });
}

/** Bars of [from, to, rows], which have their numbers beside them. */
function histogram(name, bins) {
  const most = Math.max(...bins.map((bin) => bin[2]), 1);
  return el("figure", { class: "histogram" }, el("figcaption", {}, `Lengths of ${name}, in tokens`),
    el("ol", {}, bins.map(([from, to, n]) => {
      const bar = el("span", { class: "barre", "aria-hidden": "true", hidden: n === 0 });
      bar.style.width = `${(100 * n) / most}%`;
      return el("li", {}, el("span", { class: "range" }, from === to ? count(from) : `${count(from)}–${count(to)}`), el("span", { class: "track" }, bar), el("span", { class: "n" }, count(n)));
    })));
}

// Time and memory

const PHASES = ["sampling", "scoring", "training", "evaluation", "saving", "other"];

/** Seconds by phase, as `burnish compare` has them, and the rest of the clock's. */
function phases(run) {
  const known = Object.values(run.record.phases).reduce((a, b) => a + b, 0);
  return { ...Object.fromEntries(PHASES.map((phase) => [phase, 0])), ...run.record.phases, other: Math.max(0, (run.record.seconds || 0) - known) };
}

function timeSection(body, runs) {
  const bars = el("div", { class: "phases" });
  const rows = runs.map((run) => {
    const found = phases(run), total = Object.values(found).reduce((a, b) => a + b, 0);
    const bar = el("div", { class: "stack", "aria-hidden": "true" }, PHASES.map((phase) => {
      const part = el("span", { class: `phase ${phase}`, title: `${phase}: ${duration(found[phase])}` });
      part.style.width = `${(100 * found[phase]) / Math.max(total, 1e-9)}%`;
      return part;
    }));
    bars.append(el("div", { class: "phaserow" }, runs.length > 1 ? runName(run) : null, bar));
    return [runName(run), ...PHASES.map((phase) => (found[phase] > 0 ? `${duration(found[phase])} (${percent(found[phase] / total)})` : "–")), duration(run.record.seconds)];
  });
  const key = el("ul", { class: "key", "aria-hidden": "true" }, PHASES.map((phase) => el("li", {}, el("span", { class: `swatch ${phase}` }), phase)));
  body.append(el("h3", {}, "By phase"), bars, key, table("Time by phase", ["run", ...PHASES, "in all"], rows),
    el("p", { class: "about" }, "Sampling and scoring are means of log lines times their steps; training is what else passed between log lines; other is the rest of the clock's time: loading, preparing, and what was taken back."));
  memory(body, runs);
}

function memory(body, runs) {
  const rows = runs.flatMap((run) => {
    return (run.record.memory || []).map((one) => [runName(run), said(one.phase), bytes(one.bytes), count(one.step)]);
  });
  const where = runs.map((run) => {
    const { memory_bytes: size, gpus, cpu } = run.record.environment;
    const cards = Array.isArray(gpus) && gpus.length ? gpus.map((one) => said(one.name || one)).join(", ") : "no GPU";
    return size ? el("li", {}, runs.length > 1 ? [runName(run), " "] : null, `${cpu && cpu.model ? `${cpu.model}, ${plural(cpu.threads || 1, "thread")}, ` : ""}${bytes(size)} of memory; ${cards}.`) : null;
  });
  body.append(el("h3", {}, "Memory"), ...[rows.length ? [table("Most memory by phase", ["run", "at the end of", "most", "step"], rows), el("p", { class: "about" }, "On a GPU the most that was allocated until then; else the process's resident set at that moment.")] : el("p", { class: "note" }, "The memory that was used is not noted in this run's folder.")].flat(), el("ul", { class: "plain" }, where));
}

// Events

function eventsSection(body, runs) {
  const reasons = runs.flatMap((run) => failures(run).map(([reason, n]) => [runName(run), reason, count(n), shareOf(run, reason)]));
  if (reasons.length) body.append(el("h3", {}, "Rewards that failed"), table("Rewards that failed, by reason", ["run", "reason", "samples", "in the last log line"], reasons));
  for (const run of runs) {
    const rows = run.record.events.map((event) => {
      const { number: n, time, event: kind, step, pid, ...facts } = event;
      return [said(n), when(time), el("span", { class: `event ${kind}` }, said(kind)), said(step), factsOf(facts)];
    });
    body.append(el("div", { class: "block" }, runs.length > 1 ? el("h3", {}, runName(run)) : null,
      rows.length ? table(`Events of ${run.name}`, ["number", "time (UTC)", "event", "step", "what"], rows, { class: "events" }) : el("p", { class: "note" }, "No event is noted.")));
  }
}

function shareOf(run, reason) {
  const end = run.final(`rewards/failed/${reason}`);
  return end === null ? "–" : `${percent(end.value)} at step ${count(end.step)}`;
}

function when(time) {
  return typeof time === "string" ? time.replace("T", " ").replace(/\.\d+\+00:00$/, "") : said(time);
}

function factsOf(facts) {
  const text = Object.entries(facts).map(([name, value]) => {
    if (name === "why") return said(value);
    if (name === "command" && Array.isArray(value)) return value.map(said).join(" ");
    if (name === "bytes" && typeof value === "number") return bytes(value);
    if (name === "seconds") return duration(value);
    if (name === "versions" && value) return Object.entries(value).map(([one, version]) => `${one} ${said(version)}`).join(", ");
    return `${name} ${said(value)}`;
  });
  return el("ul", { class: "plain" }, text.map((one) => el("li", {}, one)));
}

// Configuration

function configSection(body, runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.record.config)))];
  if (!names.length) return void body.append(el("p", { class: "note" }, "There is no resolved.yaml: the options are not known."));
  const value = (run, name) => (name in run.record.config ? said(run.record.config[name]) : "–");
  const shared = (name) => runs.every((run) => name in run.record.config);
  const differs = names.filter((name) => new Set(runs.map((run) => value(run, name))).size > 1 && shared(name));
  const own = names.filter((name) => !shared(name));
  const changed = names.filter((name) => runs.some((run) => name in run.record.config && said(run.record.config[name]) !== said(run.record.defaults[name] ?? null)));
  const show = (caption, list, attrs) => table(caption, ["option", ...(runs.length > 1 ? runs.map(runName) : ["value"]), "default"],
    list.map((name) => [el("code", {}, name), ...runs.map((run) => el("span", { class: "value" }, value(run, name))), el("span", { class: "value muted" }, defaultOf(runs, name))]), attrs);
  if (runs.length > 1) body.append(el("h3", {}, "What differs"), differs.length ? show("Options that differ", differs, { class: "differs" }) : el("p", {}, "Nothing: all options are the same."));
  if (own.length) body.append(el("details", {}, el("summary", {}, `${plural(own.length, "option")} that some of the runs do not have`), show("Options that some runs do not have", own)));
  const same = changed.filter((name) => !differs.includes(name) && !own.includes(name));
  body.append(el("h3", {}, runs.length > 1 ? "The same, and not at its default" : "Not at its default"), same.length ? show("Options that are not at their default", same) : el("p", {}, "Nothing."));
  const box = el("input", { type: "search", id: "option", placeholder: "learning, batch…" });
  const all = show("All options", names, { class: "all" });
  box.addEventListener("input", () => {
    for (const row of all.querySelectorAll("tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(box.value.trim().toLowerCase());
  });
  body.append(el("details", { class: "allopts" }, el("summary", {}, `All ${count(names.length)} options`), labelled("Find an option", box), all));
  environment(body, runs);
}

function defaultOf(runs, name) {
  const run = runs.find((one) => name in one.record.defaults);
  return run === undefined ? "–" : said(run.record.defaults[name]);
}

function environment(body, runs) {
  const flat = (run) => {
    const { packages = {}, git, python, platform } = run.record.environment;
    return { python, platform, ...packages, commit: git ? `${said(git.commit)}${git.dirty ? ", with changes" : ""}` : undefined };
  };
  const rows = runs.map(flat), names = [...new Set(rows.flatMap(Object.keys))].filter((name) => rows.some((row) => row[name] !== undefined));
  if (names.length) body.append(el("details", {}, el("summary", {}, "Versions"), table("Versions", ["", ...runs.map(runName)], names.map((name) => [name, ...rows.map((row) => said(row[name] ?? "–"))]))));
}

const TABLES = [
  ["data", "Data", dataSection, "What became of the rows: how long they are, and what was cut or dropped."],
  ["time", "Time & memory", timeSection],
  ["events", "Events", eventsSection, "What happened, over all starts since it was begun anew."],
  ["configuration", "Configuration", configSection],
];

class Tables {
  constructor(runs) {
    this.runs = runs;
    this.made = TABLES.map(([id, title, fill, about]) => [section(id, title, about), fill]);
    this.update();
  }

  update() {
    for (const [body, fill] of this.made) renew(body, (fresh) => fill(fresh, this.runs));
  }
}
