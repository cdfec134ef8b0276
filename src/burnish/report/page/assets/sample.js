// One sample: what was asked, the tokens of the answer, and what each of them was.

const NATS = 10000;
const MODES = {
  trained: { label: "Trained", about: "What the loss sees, and what was only read.", legend: [["trained", "trained"], ["context", "context"]] },
  logp: { label: "Log-prob", about: "How likely each token was under the policy that sampled it.",
    legend: [["p0", "99% or more"], ["p1", "90%"], ["p2", "70%"], ["p3", "50%"], ["p4", "30%"], ["p5", "10%"], ["p6", "1%"], ["p7", "less"], ["context", "not sampled"]] },
  advantage: { label: "Advantage", about: "What the sample's tokens are weighted with: more likely (+), less likely (−).",
    legend: [["n3", "−1 or less"], ["n2", "−0.3"], ["n1", "below 0"], ["zero", "0"], ["g1", "above 0"], ["g2", "0.3"], ["g3", "1 or more"], ["context", "context"]] },
  gap: { label: "Reference gap", about: "Log-prob under the policy minus that under the reference, in nats.",
    legend: [["n3", "−1 or less"], ["n2", "−0.3"], ["n1", "−0.03"], ["zero", "about 0"], ["g1", "0.03"], ["g2", "0.3"], ["g3", "1 or more"], ["context", "not known"]] },
};
const LONGEST = 6000;
const LEVELS = [0.99, 0.9, 0.7, 0.5, 0.3, 0.1, 0.01];

function signed(value, small) {
  const size = Math.abs(value);
  if (size <= small) return "zero";
  return `${value > 0 ? "g" : "n"}${size >= 1 ? 3 : size >= 0.3 ? 2 : 1}`;
}

/** The text that each token adds; a token that ends inside a character adds none, and the next one all of it, or the last what there is. */
function pieces(ids, words) {
  const decoder = new TextDecoder("utf-8");
  const texts = ids.map((id) => {
    const bytes = words.tokens[id];
    if (bytes === undefined) return `⟨${id}⟩`;
    const packed = new Uint8Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) packed[i] = bytes.charCodeAt(i);
    return decoder.decode(packed, { stream: true });
  });
  if (texts.length) texts[texts.length - 1] += decoder.decode();
  return texts;
}

/** Puts the first of many tokens into `box`. → a button for the rest; null where there is none. */
function atFirst(box, texts, span) {
  const put = (from, to) => { for (let k = from; k < Math.min(to, texts.length); k++) box.append(span(texts[k], k)); };
  put(0, LONGEST);
  if (texts.length <= LONGEST) return null;
  const more = el("button", { type: "button", onclick: () => {
    more.remove();
    put(LONGEST, texts.length);
    box.focus();
  } }, `Show ${plural(texts.length - LONGEST, "more token")}`);
  return more;
}

function visible(text) {
  if (text === "") return "·";
  return text.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥\t").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g, (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`);
}

/** Which tokens are trained, from the lengths of runs, context first. */
function trainedOf(runs, n) {
  if (runs === undefined) return new Array(n).fill(true);
  return runs.flatMap((length, i) => new Array(length).fill(i % 2 === 1));
}

class Panel {
  /** `open(i)`: what happens when another sample of the group is chosen. */
  constructor(runs, mode, open) {
    Object.assign(this, { runs, mode, open, i: -1 });
    this.node = el("article", { class: "panel", tabindex: "-1", "aria-label": "Sample" });
  }

  async show(i) {
    this.i = i;
    const run = this.runs[samples.run[i]];
    try {
      const [tokens, text, words] = await Promise.all([run.part("tokens", samples.part[i]), run.part("text", samples.part[i]), run.words()]);
      if (this.i !== i) return;
      this.one = tokens.samples[samples.at[i]];
      this.asked = tokens.asked[this.one.p];
      this.trained = trainedOf(this.one.m, this.one.t.length);
      const said = { prompt: text.prompts[text.prompt[samples.at[i]]], answer: text.text[samples.at[i]] };
      Object.assign(this, { at: undefined, tokens: undefined });
      const chosen = this.node.querySelector(".group :focus") !== null;
      this.node.replaceChildren(this.head(i, run), this.worth(i), this.prompt(said, words), this.answer(i, said, words, run), this.extras());
      if (chosen) this.node.querySelector('.group [aria-pressed="true"]')?.focus({ preventScroll: true });
    } catch (error) {
      if (this.i === i) this.node.replaceChildren(el("p", { class: "note" }, `This sample cannot be opened: ${error.message}`));
    }
  }

  head(i, run) {
    const group = samples.ofPrompt(i).filter((other) => samples.step[other] === samples.step[i]).sort((a, b) => samples.sample[a] - samples.sample[b]);
    return el("header", {},
      el("h3", {}, `Step ${count(samples.step[i])}, ${samples.names.set.all[samples.set[i]]}`, this.runs.length > 1 ? [" ", runName(run)] : null),
      el("p", { class: "about" }, el("span", { class: "place" }, `${samples.names.group.all[samples.group[i]]} #${samples.sample[i]}`), " · ", el("a", { href: `#sample=${samples.address(i, this.runs)}` }, "link")),
      group.length > 1 ? el("div", { class: "group", role: "group", "aria-label": "Samples of the same prompt" }, group.map((other) => el("button", {
        type: "button", class: `chip small ${samples.reason[other] >= 0 ? "failed" : (samples.reward[other] ?? 0) > 0 ? "good" : "zero"}`, "aria-pressed": String(other === i), onclick: () => this.open(other),
        title: `sample ${samples.sample[other]}: ${samples.shown[other]}` }, `#${samples.sample[other]}`, " ", el("b", {}, samples.reason[other] >= 0 ? "failed" : number(samples.reward[other]))))) : null);
  }

  worth(i) {
    const facts = [["Reward", samples.reward[i] === null ? "none" : number(samples.reward[i])], ["Advantage", number(samples.advantage[i])], ["Tokens sampled", count(samples.tokens[i])], ["Finish", samples.names.finish.all[samples.finish[i]]]];
    if (this.one.version !== undefined && this.one.version !== samples.step[i]) facts.push(["Policy of step", count(this.one.version)]);
    const parts = Object.entries(this.one.rewards || {}).map(([name, value]) => {
      if (value !== null && typeof value === "object") return el("li", { class: "bad" }, el("code", {}, name), ` failed: ${said(value.failure)}`, value.detail ? el("pre", {}, said(value.detail)) : null);
      return el("li", {}, el("code", {}, name), ` ${value === null ? "has nothing to say" : number(value)}`);
    });
    return el("div", { class: "worths" }, el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))), parts.length ? el("ul", { class: "plain rewards" }, parts) : null);
  }

  prompt(said, words) {
    const box = el("div", { class: "text prompt", tabindex: "0", role: "region", "aria-label": "Prompt" }), known = words !== null && this.asked.length > 0;
    if (!known) box.append(visible(said.prompt));
    const special = new Set(known ? words.special : []);
    const span = (piece, k) => el("span", { class: special.has(this.asked[k]) ? "t context special" : "t context" }, visible(piece));
    return el("div", {}, el("h4", {}, "Prompt"), box, known ? atFirst(box, pieces(this.asked, words), span) : null);
  }

  answer(i, said, words, run) {
    const heading = el("h4", {}, "Completion");
    if (words === null) return el("div", {}, heading, el("p", { class: "note" }, run.record.tokenizer || "Tokens cannot be shown one by one."), el("div", { class: "text tokens", tabindex: "0" }, visible(said.answer)));
    this.texts = pieces(this.one.t, words);
    const special = new Set(words.special);
    const span = (piece, k) => el("span", { class: this.look(k), "data-k": k }, el("span", { class: special.has(this.one.t[k]) ? "special" : "" }, visible(piece)));
    this.info = el("p", { class: "info", role: "status", "aria-live": "polite" }, "Point at a token, or move with the arrow keys, to see its numbers.");
    this.tokens = el("div", { class: "text tokens", tabindex: "0", role: "group", "aria-label": `Completion, ${plural(this.one.t.length, "token")}; arrow keys move from one to the next`,
      onmouseover: (event) => this.point(event), onclick: (event) => this.point(event), onkeydown: (event) => this.key(event) });
    return el("div", {}, heading, this.tokens, atFirst(this.tokens, this.texts, span), this.info);
  }

  extras() {
    const all = Object.entries(this.one.extras || {});
    return all.length ? el("details", {}, el("summary", {}, "What rewards noted"), el("dl", { class: "facts wide" }, all.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, said(value)))))) : "";
  }

  /** The class of a token in the mode at hand. */
  look(k) {
    const at = this.at === k ? " at" : "";
    return `t ${this.kind(k)}${at}`;
  }

  kind(k) {
    if (!this.trained[k] && this.mode() !== "logp") return "context";
    if (this.mode() === "trained") return "trained";
    if (this.mode() === "advantage") return signed(samples.advantage[this.i] ?? 0, 0);
    const logp = this.one.l?.[k] ?? null;
    if (logp === null) return "context";
    if (this.mode() === "logp") {
      const level = LEVELS.findIndex((least) => Math.exp(logp / NATS) >= least);
      return `p${level < 0 ? 7 : level}`;
    }
    const reference = this.one.f?.[k] ?? null;
    return reference === null ? "context" : signed((logp - reference) / NATS, 0.03);
  }

  /** After the mode has changed. */
  recolour() {
    if (this.tokens === undefined || this.i < 0) return;
    for (const span of this.tokens.children) if (span.dataset.k !== undefined) span.className = this.look(Number(span.dataset.k));
  }

  point(event) {
    const span = event.target.closest("[data-k]");
    if (span !== null) this.tell(Number(span.dataset.k));
  }

  key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !this.texts.length) return;
    event.preventDefault();
    const k = Math.min(this.tokens.children.length - 1, Math.max(0, (this.at ?? -1) + by));
    this.tell(k);
    this.tokens.children[k].scrollIntoView({ block: "nearest" });
  }

  tell(k) {
    const [before, one] = [this.at, this.one];
    this.at = k;
    for (const n of [before, k]) if (n !== undefined && this.tokens.children[n]?.dataset.k !== undefined) this.tokens.children[n].className = this.look(n);
    const nats = (list) => (list?.[k] === undefined || list[k] === null ? null : list[k] / NATS);
    const [logp, sampled, reference] = [nats(one.l), nats(one.s), nats(one.f)];
    const parts = [`“${visible(this.texts[k]).replace(/\n/g, "")}”`, `token ${count(k + 1)} of ${count(one.t.length)}`, `id ${one.t[k]}`, this.trained[k] ? "trained" : "context"];
    if (logp !== null) parts.push(`log-prob ${number(logp)} (${percent(Math.exp(logp))})`);
    if (sampled !== null) parts.push(`drawn at ${number(sampled)}`);
    if (reference !== null) parts.push(`reference ${number(reference)}`, `gap ${number(logp - reference)}`);
    this.info.textContent = parts.join(" · ");
  }
}
