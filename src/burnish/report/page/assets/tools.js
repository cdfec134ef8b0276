// Small things that all parts of the page use. Data reaches the page as text nodes and attributes only, never as markup.

/** An element. `attrs`: attributes, properties where they begin with a dot, listeners where they begin with "on". */
function el(tag, attrs = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith(".")) node[name.slice(1)] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function count(value) {
  return whole.format(value);
}

function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Four significant digits, and no more than are needed. */
function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  if (size >= 1000) return count(value).replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

/** A value with its standard error, to the digits that the error leaves; each by itself where those are many. */
function measured(value, error) {
  if (!(error > 0)) return number(value);
  const digits = Math.max(0, 1 - Math.floor(Math.log10(error)));
  if (digits > 6) return `${number(value)} ± ${number(error)}`;
  return `${value.toFixed(digits).replace("-", "−")} ± ${error.toFixed(digits)}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${number(Number(seconds.toPrecision(2)))} s`;
  const rounded = Math.round(seconds);
  if (rounded < 120) return `${rounded} s`;
  if (rounded < 600) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function bytes(size) {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(size, 1)) / 10));
  return `${number(Number((size / 1024 ** power).toPrecision(3)))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function percent(share) {
  return `${number(Number((100 * share).toPrecision(share < 0.1 ? 2 : 3)))}%`;
}

/** A value of a configuration or an event, as one reads it. */
function said(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

function last(list) {
  return list[list.length - 1];
}

function later(work, delay) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), delay);
  };
}

/** A section with its heading; its place in the navigation. */
function section(id, title, about) {
  const body = el("div", { class: "body" });
  const node = el("section", { id, "aria-labelledby": `${id}-title`, tabindex: "-1" }, el("h2", { id: `${id}-title` }, title), about ? el("p", { class: "about" }, about) : null, body);
  document.getElementById("nav").append(el("li", {}, el("a", { href: `#${id}` }, title)));
  document.getElementById("main").append(node);
  return body;
}

/**
 * Fills a section anew with what `fill(body)` appends, where that is something else now. What is open in it stays open, what was written
 * into a field stays there, and what has the focus keeps it.
 */
function renew(body, fill) {
  const kept = "summary, input, .scroll", key = (node) => node.id || node.getAttribute("aria-label") || node.textContent.replace(/\d+/g, ""); // counts change
  const fresh = body.cloneNode(false), before = new Map([...body.querySelectorAll(kept)].map((node) => [key(node), node]));
  fill(fresh);
  const places = [];
  for (const node of fresh.querySelectorAll(kept)) {
    const old = before.get(key(node));
    if (old === undefined) continue;
    if (node.tagName === "SUMMARY") node.parentElement.open = old.parentElement.open;
    if (node.tagName === "INPUT" && old.value !== "") {
      node.value = old.value;
      node.dispatchEvent(new Event("input"));
    }
    if (old === document.activeElement) places.push(() => node.focus({ preventScroll: true }));
    const across = old.scrollLeft;
    if (across > 0) places.push(() => { node.scrollLeft = across; });
  }
  if (fresh.isEqualNode(body)) return;
  body.replaceChildren(...fresh.childNodes);
  for (const place of places) place();
}

/** A table from rows of strings and elements. The first cell of a row is its heading. */
function table(caption, heads, rows, attrs = {}) {
  return el(
    "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table", attrs,
      el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => (i ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))),
    ),
  );
}

/** A run's name behind its colour. */
function runName(run) {
  return el("span", { class: "run" }, el("span", { class: `dot c${run.number % 8}`, "aria-hidden": "true" }), run.name);
}

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function labelled(text, control, attrs = {}) {
  return el("label", { class: "field", ...attrs }, el("span", {}, text), control);
}
