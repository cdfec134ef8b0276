// The list of samples: filters, order, and as many rows as are seen.

const ROW = 62;
const ORDERS = { "as sampled": null, reward: "reward", advantage: "advantage", length: "tokens", step: "step" };

class SampleList {
  /** `open(i)`: show sample i. */
  constructor(runs, open) {
    Object.assign(this, { runs, open, found: [], at: -1, opened: -1, matched: null, order: null, down: false, asked: 0, painted: new Map() });
    this.fields = {};
    this.count = el("p", { class: "count", role: "status", "aria-live": "polite" });
    this.space = el("div", { class: "space" });
    this.box = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Samples", onscroll: () => this.paint(), onkeydown: (event) => this.key(event), onclick: (event) => this.click(event) }, this.space);
    this.controls = el("form", { class: "controls filters", "aria-label": "Filters of samples", onsubmit: (event) => event.preventDefault() });
    this.map = new RewardMap((step) => this.only(step));
    this.node = el("div", { class: "listside" }, this.map.node, this.count, this.box);
    new ResizeObserver(() => this.paint()).observe(this.box);
    this.build();
  }

  build() {
    const option = ([value, text]) => el("option", { value: String(value) }, text);
    const choose = (name, label, values = []) => this.field(name, label, el("select", {}, [["", "any"], ...values].map(option)));
    const pair = (from, to, label) => el("fieldset", { class: "pair" }, el("legend", {}, label),
      ...[[from, "from"], [to, "to"]].map(([name, word]) => this.input(name, el("input", { type: "number", step: "any", placeholder: word, "aria-label": `${label} ${word}` }))));
    this.controls.replaceChildren(
      this.field("text", "Text", el("input", { type: "search", placeholder: "in prompts and completions", class: "wide" })),
      this.runs.length > 1 ? choose("run", "Run", this.runs.map((run) => [run.number, run.name])) : "",
      choose("set", "Set"),
      pair("stepFrom", "stepTo", "Step"), pair("low", "high", "Reward"), pair("short", "long", "Length"),
      choose("finish", "Finish"),
      choose("reason", "Failed", [["any", "a reward failed"]]),
      labelled("Order", el("select", { onchange: (event) => { this.order = ORDERS[event.target.value]; this.filter(); } }, Object.keys(ORDERS).map((name) => el("option", {}, name)))),
      el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: (event) => { this.down = !this.down; event.currentTarget.setAttribute("aria-pressed", String(this.down)); this.filter(); } }, "Reverse"),
      el("button", { type: "button", class: "quiet", onclick: () => this.reset() }, "Clear filters"),
    );
  }

  /** Samples were added: what they may be chosen by is offered, and nothing that was chosen is touched. */
  update() {
    for (const [name, own] of [["set", 1], ["finish", 1], ["reason", 2]]) {
      const control = this.fields[name], names = samples.names[name].all;
      for (let i = control.length - own; i < names.length; i++) control.append(el("option", { value: String(i) }, names[i]));
    }
    this.fields.reason.parentElement.hidden = samples.names.reason.all.length === 0;
    if (this.fields.text.value.trim() === "") this.filter();
    else this.search();
  }

  field(name, label, control) {
    return labelled(label, this.input(name, control));
  }

  input(name, control) {
    this.fields[name] = control;
    control.name = name;
    control.addEventListener(control.tagName === "SELECT" ? "change" : "input", name === "text" ? later(() => this.search(), 200) : () => this.filter());
    return control;
  }

  reset() {
    for (const control of Object.values(this.fields)) control.value = "";
    this.search();
  }

  only(step) {
    const same = this.fields.stepFrom.value === String(step) && this.fields.stepTo.value === String(step);
    for (const name of ["stepFrom", "stepTo"]) this.fields[name].value = same ? "" : step;
    this.filter();
  }

  /** Looks through prompts and completions, part by part, and shows what is found on the way. */
  async search() {
    const mine = ++this.asked, wanted = this.fields.text.value.trim().toLowerCase();
    if (wanted === "") {
      this.matched = null;
      return this.filter();
    }
    const matched = new Uint8Array(samples.length);
    const offsets = new Map();
    for (let i = 0; i < samples.length; i++) if (samples.at[i] === 0) offsets.set(`${samples.run[i]}-${samples.part[i]}`, i);
    let done = 0, unread = 0;
    for (const [key, first] of offsets) {
      const [run, part] = key.split("-").map(Number);
      const found = await this.runs[run].part("text", part).catch(() => null);
      if (mine !== this.asked) return;
      if (found === null) unread++;
      else {
        const asked = found.prompts.map((one) => one.toLowerCase().includes(wanted));
        found.text.forEach((one, at) => { matched[first + at] = asked[found.prompt[at]] || one.toLowerCase().includes(wanted) ? 1 : 0; });
      }
      done++;
      if (done % 20 === 0 || done === offsets.size) {
        this.matched = matched;
        const searched = done < offsets.size ? `, ${percent(done / offsets.size)} searched` : "";
        this.filter(unread ? `${searched}; ${plural(unread, "part")} of ${count(offsets.size)} cannot be read` : searched);
      }
    }
  }

  filter(note = "") {
    const value = (name) => this.fields[name]?.value ?? "";
    const bound = (name, none) => (value(name) === "" ? none : Number(value(name)));
    const tests = [];
    const among = (column, from, to) => {
      if (value(from) === "" && value(to) === "") return;
      const [low, high, of] = [bound(from, -Infinity), bound(to, Infinity), samples[column]];
      tests.push((i) => of[i] !== null && of[i] >= low && of[i] <= high);
    };
    for (const column of ["run", "set", "finish"]) if (value(column) !== "") { const wanted = Number(value(column)); tests.push((i) => samples[column][i] === wanted); }
    if (value("reason") === "any") tests.push((i) => samples.reason[i] >= 0);
    else if (value("reason") !== "") { const wanted = Number(value("reason")); tests.push((i) => samples.reason[i] === wanted); }
    among("step", "stepFrom", "stepTo");
    among("reward", "low", "high");
    among("tokens", "short", "long");
    if (this.matched !== null) tests.push((i) => this.matched[i] === 1);
    this.found = [];
    for (let i = 0; i < samples.length; i++) if (tests.every((test) => test(i))) this.found.push(i);
    if (this.order !== null) {
      const of = samples[this.order];
      this.found.sort((a, b) => (of[a] ?? -Infinity) - (of[b] ?? -Infinity) || a - b);
    }
    if (this.down) this.found.reverse();
    this.at = this.found.indexOf(this.opened);
    this.count.textContent = `${count(this.found.length)} of ${plural(samples.length, "sample")}${note}`;
    this.space.style.height = `${this.found.length * ROW}px`;
    this.map.draw(this.found);
    this.paint();
  }

  /** Makes the rows that are seen, and keeps those that were. */
  paint() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 6);
    const end = Math.min(this.found.length, first + Math.ceil(this.box.clientHeight / ROW) + 12);
    for (const [n, node] of this.painted) {
      if (n >= first && n < end && node.id === `sample-${this.found[n]}`) continue;
      node.remove();
      this.painted.delete(n);
    }
    for (let n = first; n < end; n++) {
      if (!this.painted.has(n)) this.painted.set(n, this.row(n));
      const node = this.painted.get(n);
      node.setAttribute("aria-selected", String(n === this.at));
      node.setAttribute("aria-setsize", this.found.length);
      if (node.parentElement === null) this.space.append(node);
    }
    if (this.at >= 0) this.box.setAttribute("aria-activedescendant", `sample-${this.found[this.at]}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(n) {
    const i = this.found[n];
    const node = el("div", { class: "item", role: "option", id: `sample-${i}`, "data-n": n, "aria-posinset": n + 1 },
      el("p", { class: "meta" }, this.runs.length > 1 ? el("span", { class: `dot c${samples.run[i] % 8}`, title: this.runs[samples.run[i]].name }) : null,
        el("span", {}, `step ${count(samples.step[i])}`), el("span", {}, samples.names.set.all[samples.set[i]]), el("span", { class: "place" }, `${samples.names.group.all[samples.group[i]]} #${samples.sample[i]}`),
        el("span", { class: "n" }, plural(samples.tokens[i], "token")), samples.names.finish.all[samples.finish[i]] === "stop" ? null : el("span", { class: "cutoff" }, samples.names.finish.all[samples.finish[i]]), worth(i)),
      el("p", { class: "texts" }, el("span", { class: "asked" }, el("bdi", { dir: "ltr" }, plainly(samples.names.prompt.all[samples.prompt[i]]))), el("span", { class: "answer" }, samples.shown[i] || "nothing")));
    node.style.transform = `translateY(${n * ROW}px)`;
    return node;
  }

  click(event) {
    const row = event.target.closest(".item");
    if (row === null) return;
    this.go(Number(row.dataset.n));
    if (matchMedia("(max-width: 62rem)").matches) document.querySelector(".detail").scrollIntoView(); // it is below
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter" && this.at >= 0) return void (document.querySelector(".panel .tokens") ?? document.querySelector(".panel"))?.focus();
    if (by === undefined || !this.found.length) return;
    event.preventDefault();
    this.go(Math.min(this.found.length - 1, Math.max(0, this.at + by)));
  }

  go(n) {
    this.mark(this.found[n]);
    this.open(this.found[n]);
  }

  reveal() {
    const [top, bottom] = [this.at * ROW, (this.at + 1) * ROW];
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = bottom - this.box.clientHeight;
    this.paint();
  }

  /** Marks the sample that is open, where no filter hides it. */
  mark(i) {
    this.opened = i;
    this.at = this.found.indexOf(i);
    if (this.at >= 0) this.reveal();
    else this.paint();
  }
}

/** What a sample's reward was, for a list. */
function worth(i) {
  if (samples.reason[i] >= 0) return el("span", { class: "worth failed" }, "failed");
  const reward = samples.reward[i];
  return el("span", { class: `worth ${reward === null ? "none" : reward > 0 ? "good" : "zero"}`, title: "reward" }, reward === null ? "no reward" : number(reward));
}

/** A prompt without the marks of its chat template. */
function plainly(text) {
  return text.replace(/<\|im_start\|>\s*\w+/g, " ").replace(/<\|[^|>]*\|>|<\/?s>|\[\/?INST\]/g, " ").replace(/\s+/g, " ").trim();
}

/** Rewards over steps: how many samples lie where. A click takes the step. */
class RewardMap {
  constructor(choose) {
    this.choose = choose;
    this.canvas = el("canvas", { height: "64", role: "img", "aria-label": "Rewards over steps", onclick: (event) => this.click(event), onmousemove: (event) => this.hover(event) });
    this.node = el("figure", { class: "map" }, this.canvas, this.caption = el("figcaption", {}, ""));
  }

  draw(found) {
    const rewarded = found.filter((i) => samples.reward[i] !== null);
    this.node.hidden = rewarded.length === 0;
    if (this.node.hidden) return;
    this.steps = [...new Set(rewarded.map((i) => samples.step[i]))].sort((a, b) => a - b);
    const place = new Map(this.steps.map((step, n) => [step, n]));
    let low = Infinity, high = -Infinity;
    for (const i of rewarded) { low = Math.min(low, samples.reward[i]); high = Math.max(high, samples.reward[i]); }
    const levels = new Map([...new Set(rewarded.map((i) => samples.reward[i]))].sort((a, b) => a - b).map((value, n) => [value, n]));
    const few = levels.size <= 8, bins = few ? levels.size : 8, cells = new Float64Array(this.steps.length * bins), sums = new Float64Array(this.steps.length);
    for (const i of rewarded) {
      const bin = few ? levels.get(samples.reward[i]) : Math.min(bins - 1, Math.floor((bins * (samples.reward[i] - low)) / (high - low)));
      cells[place.get(samples.step[i]) * bins + bin]++;
      sums[place.get(samples.step[i])]++;
    }
    const width = (this.canvas.width = Math.max(200, this.canvas.clientWidth || 400)), height = this.canvas.height;
    const pen = this.canvas.getContext("2d"), w = width / this.steps.length, h = height / bins;
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = variable("--accent");
    this.steps.forEach((_, n) => {
      for (let bin = 0; bin < bins; bin++) {
        const share = cells[n * bins + bin] / sums[n];
        if (share === 0) continue;
        pen.globalAlpha = 0.12 + 0.88 * share;
        pen.fillRect(n * w, height - (bin + 1) * h, Math.max(1, w - (w > 4 ? 1 : 0)), h - 1);
      }
    });
    this.means = this.steps.map((step, n) => ({ step, n: sums[n] }));
    this.words = `Rewards from ${number(low)} (below) to ${number(high)} (above), over ${plural(this.steps.length, "step")}: the stronger, the more samples. Click to see one step.`;
    this.caption.textContent = this.words;
    this.canvas.setAttribute("aria-label", this.words);
  }

  at(event) {
    const n = Math.floor((event.offsetX / this.canvas.clientWidth) * this.steps.length);
    return this.means[Math.min(this.means.length - 1, Math.max(0, n))];
  }

  hover(event) {
    const { step, n } = this.at(event);
    this.canvas.title = `step ${step}: ${plural(n, "sample")}`;
  }

  click(event) {
    this.choose(this.at(event).step);
  }
}
