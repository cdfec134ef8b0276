// What a run was and what came of it, and what one should look at.

/** The numbers that say most of a run, each with what it was at first: [label, name]. */
function headlines(run, sets) {
  const found = [];
  const take = (name, label) => {
    const end = run.final(name);
    if (end !== null) found.push({ label, name, end, first: run.value(name, "first") });
  };
  take("reward", "Reward");
  for (const set of [...sets].reverse()) {
    const where = set === "eval" ? "evaluation" : set.slice("eval_".length);
    const best = ["accuracy", "reward", "rewards/accuracies", "loss"].find((name) => run.final(`${set}_${name}`) !== null);
    if (best !== undefined) take(`${set}_${best}`, `${TITLES[best] || best}, ${where}`);
  }
  for (const name of ["rewards/accuracies", "accuracy", "kl", "completions/mean_length", "entropy", "loss", "mean_token_accuracy"]) if (found.length < 4) take(name, TITLES[name]);
  return found.slice(0, 4);
}

class Overview {
  constructor(runs) {
    this.runs = runs;
    this.body = section("overview", runs.length > 1 ? `${runs.length} runs` : "Overview");
    this.update();
  }

  update() {
    const sets = evalSets(this.runs);
    this.body.replaceChildren(el("div", { class: "cards" }, this.runs.map((run) => this.card(run, sets))), this.notes());
  }

  card(run, sets) {
    const { record } = run;
    const planned = record.config.max_steps > 0 ? record.config.max_steps : null;
    const tokens = run.final("num_tokens");
    const facts = [
      ["Steps", planned !== null && planned !== run.steps ? `${count(run.steps)} of ${count(planned)}` : count(run.steps)],
      ["Time", duration(record.seconds)],
      ["Tokens", tokens === null ? "–" : count(tokens.value)],
    ];
    const big = headlines(run, sets).map(({ label, end, first }) => el("div", {}, el("dt", {}, label), el("dd", { class: "big" }, bigNumber(end)),
      el("dd", { class: "from" }, first.step === end.step ? `step ${count(end.step)}` : `from ${number(first.value)} at step ${count(first.step)}`)));
    return el("article", { class: "card", "data-run": run.name },
      el("header", {}, el("h3", {}, runName(run)), el("span", { class: `state ${record.status.state}` }, record.status.state)),
      el("p", { class: "what" }, el("b", {}, (record.method || "unknown method").toUpperCase()), " · ", el("span", { class: "path", title: record.model }, record.model || "model not known")),
      record.status.state === "finished" ? null : el("p", { class: ["failed", "killed", "refused"].includes(record.status.state) ? "why bad" : "why" }, record.status.said),
      big.length ? el("dl", { class: "numbers" }, big) : null,
      el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
  }

  /** Everything that calls for a look, in sentences. */
  notes() {
    const items = [];
    for (const run of this.runs) {
      const add = (kind, text, step) => items.push(el("li", { class: kind }, this.runs.length > 1 ? [runName(run), ": "] : null, text, step === undefined ? null : el("span", { class: "at" }, ` step ${count(step)}`)));
      for (const one of run.record.missing) add("missing", one);
      for (const [name, one] of Object.entries(run.series)) if (one.strange.length) add("bad", `${name} is not a finite number in ${plural(one.strange.length, "line")}, first after step ${count(one.strange[0])}.`);
      const damaged = run.record.events.filter((event) => event.event === "skip").length;
      if (damaged) add("bad", `${plural(damaged, "damaged checkpoint")} passed over; see Events.`);
      for (const [reason, n] of failures(run)) add("bad", `${plural(n, "sample has", "samples have")} no reward because one failed: ${reason}.`);
      for (const one of run.record.advice) add("advice", one.said, one.step);
    }
    return el("div", { class: "notes" }, el("h3", {}, "Worth a look"), items.length ? el("ul", {}, items) : el("p", { class: "about" }, "Nothing stands out."));
  }
}

/** The value large, what is around it small. */
function bigNumber({ value, error }) {
  const [main, spread] = measured(value, error).split(" ± ");
  return [main, spread === undefined ? null : el("small", {}, ` ± ${spread}`)];
}

/** Reasons for which rewards failed, with the number of samples. */
function failures(run) {
  const counts = new Map();
  for (let i = 0; i < samples.length; i++) {
    if (samples.run[i] !== run.number || samples.reason[i] < 0) continue;
    const reason = samples.names.reason.all[samples.reason[i]];
    counts.set(reason, (counts.get(reason) || 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]);
}
