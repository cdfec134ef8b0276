// From the blocks in the page, or from the server beside a run that goes on, to runs with columns.

async function unpack(id) {
  const block = document.getElementById(id);
  if (block === null) return null;
  const text = atob(block.textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

class Names {
  constructor() {
    this.all = [];
    this.numbers = new Map();
  }

  number(name) {
    let found = this.numbers.get(name);
    if (found === undefined) {
      found = this.all.length;
      this.numbers.set(name, found);
      this.all.push(name);
    }
    return found;
  }
}

const COLUMNS = ["run", "step", "set", "group", "sample", "reward", "advantage", "tokens", "finish", "reason", "prompt", "shown", "part", "at"];

/** The samples of all runs, in columns. */
class Samples {
  constructor() {
    this.names = { set: new Names(), group: new Names(), finish: new Names(), reason: new Names(), prompt: new Names() };
    this.clear();
  }

  clear() {
    this.length = 0;
    for (const name of COLUMNS) this[name] = [];
    this.groups = new Map();
  }

  add(run, part, index) {
    const numbers = {};
    for (const [name, plural] of [["set", "sets"], ["group", "groups"], ["finish", "finishes"], ["reason", "reasons"], ["prompt", "prompts"]])
      numbers[name] = index[plural].map((one) => this.names[name].number(one));
    const n = index.step.length;
    for (let at = 0; at < n; at++) {
      this.run.push(run);
      this.part.push(part);
      this.at.push(at);
      for (const name of ["set", "group", "finish", "prompt"]) this[name].push(numbers[name][index[name][at]]);
      this.reason.push(index.reason[at] < 0 ? -1 : numbers.reason[index.reason[at]]);
      this.tokens.push(index.length[at]);
      for (const name of ["step", "sample", "reward", "advantage", "shown"]) this[name].push(index[name][at]);
      const key = this.key(this.length);
      const others = this.groups.get(key);
      if (others === undefined) this.groups.set(key, [this.length]);
      else others.push(this.length);
      this.length++;
    }
  }

  /** Of the prompt: its run, set and row. */
  key(i) {
    return `${this.run[i]}/${this.set[i]}/${this.group[i]}`;
  }

  /** All samples of the same prompt, in any step. */
  ofPrompt(i) {
    return this.groups.get(this.key(i));
  }

  /** Its own address, for a link. */
  address(i, runs) {
    return [runs[this.run[i]].name, this.step[i], this.names.set.all[this.set[i]], this.names.group.all[this.group[i]], this.sample[i]]
      .map(encodeURIComponent).join(",");
  }

  find(address, runs) {
    const [run, step, set, group, sample] = address.split(",").map(decoded);
    const r = runs.findIndex((one) => one.name === run);
    const key = `${r}/${this.names.set.numbers.get(set)}/${this.names.group.numbers.get(group)}`;
    const found = (this.groups.get(key) || []).find((i) => this.step[i] === Number(step) && this.sample[i] === Number(sample));
    return found === undefined ? -1 : found;
  }
}

/** Of a part of an address; null where it was cut off. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

/** One run: its record, its series, and the parts of its samples on demand. */
class Run {
  constructor(number, name) {
    Object.assign(this, { number, name, shown: true, record: null, series: {}, parts: 0, places: ["0:0:0"], opened: new Map(), vocabulary: null });
  }

  /** From the page itself. */
  async load(samples) {
    const [record, index] = await Promise.all([unpack(`run-${this.number}`), unpack(`index-${this.number}`)]);
    this.record = record;
    this.extend(record.series);
    for (const part of index) samples.add(this.number, this.parts++, part);
  }

  extend(series) {
    for (const [name, [steps, values]] of Object.entries(series)) {
      const mine = (this.series[name] ||= { steps: [], values: [], strange: [] });
      values.forEach((value, i) => {
        const finite = typeof value === "number";
        if (!finite) mine.strange.push(steps[i]);
        mine.steps.push(steps[i]);
        mine.values.push(finite ? value : null);
      });
    }
  }

  /** `kind`: "text" or "tokens". The last few are kept. */
  part(kind, number) {
    const key = `${kind}-${number}`;
    let found = this.opened.get(key);
    if (found === undefined) {
      found = live ? ask(`run/${this.number}/${kind}?after=${this.places[number]}`) : unpack(`${kind}-${this.number}-${number}`);
      this.opened.set(key, found);
      found.catch(() => this.opened.delete(key));
      if (kind === "tokens") {
        const old = [...this.opened.keys()].filter((one) => one.startsWith("tokens"));
        if (old.length > 6) this.opened.delete(old[0]);
      }
    }
    return found;
  }

  /** Null where there is no tokenizer: beside a run that goes on, not yet. */
  words() {
    if (this.vocabulary === null) {
      const forget = () => { this.vocabulary = null; };
      this.vocabulary = live ? ask(`run/${this.number}/vocabulary`) : unpack(`vocabulary-${this.number}`);
      this.vocabulary.then((words) => { if (live && words === null) forget(); }, forget);
    }
    return this.vocabulary;
  }

  /** The last value of a metric with its step and standard error; null where there is none. */
  final(name) {
    return this.value(name, "last");
  }

  value(name, which) {
    const mine = this.series[name];
    if (mine === undefined || !mine.values.some((value) => value !== null)) return null;
    const i = which === "last" ? mine.values.findLastIndex((value) => value !== null) : mine.values.findIndex((value) => value !== null);
    return { value: mine.values[i], step: mine.steps[i], error: errorOf(this, name, mine.steps[i]) };
  }

  /** Steps that were done, as far as is known. */
  get steps() {
    const logged = Object.values(this.series).map((one) => last(one.steps) || 0);
    const events = this.record.events.map((event) => (event.event === "refusal" ? 0 : event.step || 0));
    return Math.max(0, ...logged, ...(this.record.status.state === "finished" ? events.slice(-1) : []));
  }
}

function errorOf(run, name, step) {
  const errors = run.series[`${name}_stderr`];
  if (errors === undefined) return null;
  const at = errors.steps.lastIndexOf(step);
  return at < 0 ? null : errors.values[at];
}

/** What the server answers, or an error whose message is a sentence about it. */
async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(60000) });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (answer.ok) return answer.json();
  throw new Error((await answer.json().catch(() => ({}))).error || `The server answers ${answer.status}.`);
}
