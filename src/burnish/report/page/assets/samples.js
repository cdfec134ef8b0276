// The browser of samples: the list beside the sample that is open, and beside that the same prompt at another step.

class Browser {
  constructor(runs) {
    this.runs = runs;
    this.body = section("samples", "Samples");
    this.none = el("p", { class: "note" });
    this.mode = "logp";
    this.list = new SampleList(runs, (i) => this.open(i));
    this.left = new Panel(runs, () => this.mode, (i) => {
      this.list.mark(i);
      this.open(i, this.right.i >= 0 ? this.right.i : undefined);
    });
    this.right = new Panel(runs, () => this.mode, (i) => this.open(this.left.i, i));
    this.legend = el("ul", { class: "key tokenkey" });
    this.modes = el("div", { class: "modes", role: "radiogroup", "aria-label": "Colour tokens by" }, Object.entries(MODES).map(([name, mode]) => el("label", {},
      el("input", { type: "radio", name: "mode", value: name, ".checked": name === this.mode, onchange: () => this.colour(name) }), el("span", {}, mode.label))));
    this.other = el("select", { onchange: (event) => this.against(event.target.value) });
    this.compare = labelled("Beside it, the same prompt at", this.other);
    this.empty = el("p", { class: "empty", role: "status" }, "Choose a sample.");
    this.sides = el("div", { class: "sides" }, this.left.node);
    this.detail = el("div", { class: "detail" }, el("div", { class: "controls" }, this.modes, this.compare), this.legend, this.sides);
    this.work = el("div", { class: "browser" }, this.list.node, el("div", { class: "detailside" }, this.empty, this.detail));
    this.detail.hidden = true;
    this.body.append(this.none, this.list.controls, this.work);
    this.colour(this.mode);
    this.update();
  }

  /** Samples were added. */
  update() {
    const any = samples.length > 0;
    this.none.hidden = any;
    this.none.textContent = "No sample is kept in the run's folder: its method does not sample, or has not sampled yet.";
    for (const part of [this.list.controls, this.work]) part.hidden = !any;
    if (!any) return;
    this.list.update();
  }

  colour(mode) {
    this.mode = mode;
    const gap = mode === "gap" ? el("li", { class: "about" }, "Known where the reward holds a KL, or the run noted the reference.") : null;
    this.legend.replaceChildren(el("li", { class: "about" }, MODES[mode].about), ...MODES[mode].legend.map(([kind, text]) => el("li", {}, el("span", { class: `t ${kind}`, "aria-hidden": "true" }, "abc"), text)), gap ?? "");
    this.left.recolour();
    this.right.recolour();
  }

  async open(i, other) {
    this.empty.hidden = true;
    this.detail.hidden = false;
    const shown = this.left.show(i);
    const against = other === undefined ? -1 : other;
    this.steps(i, against);
    this.right.i = against;
    this.sides.classList.toggle("two", against >= 0);
    if (against < 0) this.right.node.remove();
    else if (this.right.node.parentElement === null) this.sides.append(this.right.node);
    this.link(i, against);
    await Promise.all([shown, against >= 0 ? this.right.show(against) : null]);
  }

  /** The other steps at which this prompt was asked. */
  steps(i, against) {
    const of = samples.ofPrompt(i), steps = [...new Set(of.map((other) => samples.step[other]))].sort((a, b) => a - b);
    this.other.replaceChildren(el("option", { value: "" }, "no other step"), ...steps.filter((step) => step !== samples.step[i]).map((step) => el("option", { value: String(step) }, `step ${count(step)} (${plural(of.filter((other) => samples.step[other] === step).length, "sample")})`)));
    this.other.disabled = steps.length < 2;
    this.other.title = steps.length < 2 ? "This prompt was asked at one step only." : "";
    this.other.value = against >= 0 ? String(samples.step[against]) : "";
  }

  against(step) {
    const i = this.left.i;
    if (step === "") return this.open(i);
    const there = samples.ofPrompt(i).filter((other) => samples.step[other] === Number(step));
    return this.open(i, there.find((other) => samples.sample[other] === samples.sample[i]) ?? there[0]);
  }

  link(i, against) {
    const hash = `#sample=${samples.address(i, this.runs)}${against >= 0 ? `&with=${samples.address(against, this.runs)}` : ""}`;
    if (location.hash !== hash) history.replaceState(null, "", hash);
  }

  /** Follows a link to a sample. → whether it was one. */
  follow(hash) {
    const found = /^#sample=([^&]+)(?:&with=([^&]+))?$/.exec(hash);
    if (found === null) return false;
    const [i, other] = [1, 2].map((n) => (found[n] === undefined ? -1 : samples.find(found[n], this.runs)));
    if (i < 0) {
      this.empty.textContent = "The sample of this link is not in this report.";
      this.empty.hidden = false;
      return true;
    }
    if (i !== this.left.i || other !== this.right.i) {
      if (!this.list.found.includes(i)) this.list.reset();
      this.list.mark(i);
      this.open(i, other < 0 ? undefined : other);
    }
    return true;
  }
}
