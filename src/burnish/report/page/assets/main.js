// Puts the page together, and, beside a run that goes on, asks for what is new.

let live = false;
const samples = new Samples();

function theme(name) {
  document.documentElement.dataset.theme = name;
  const button = document.getElementById("theme");
  button.setAttribute("aria-pressed", String(name === "dark"));
  for (const chart of charts) chart.draw();
}

function wanted() {
  try {
    const kept = localStorage.getItem("burnish-theme");
    if (kept === "dark" || kept === "light") return kept;
  } catch { /* a page from a folder may have no storage */ }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function themes(page) {
  const show = (name) => {
    theme(name);
    page.browser?.list.map.draw(page.browser.list.found);
  };
  show(wanted());
  document.getElementById("theme").addEventListener("click", () => {
    const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("burnish-theme", name);
    } catch { /* then it holds for this visit */ }
    show(name);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(wanted()));
}

function follow(page) {
  if (page.browser.follow(location.hash)) document.getElementById("samples").scrollIntoView();
}

async function begin() {
  const { names, live: asked } = await unpack("runs");
  live = asked;
  const runs = names.map((name, number) => new Run(number, name));
  const page = { runs };
  themes(page);
  const { faults } = live ? await newsOf(runs) : { faults: [] };
  if (!live) for (const run of runs) await run.load(samples);
  if (runs.some((run) => run.record === null)) throw new Error(faults[0]);
  page.overview = new Overview(runs);
  page.curves = new Curves(runs);
  page.browser = new Browser(runs);
  page.tables = new Tables(runs);
  follow(page);
  addEventListener("hashchange", () => follow(page));
  addEventListener("resize", later(() => { for (const chart of charts) chart.resize(); }, 150));
  document.documentElement.dataset.ready = "yes";
  if (live) watch(page, faults);
}

// Beside a run that goes on

/** Takes what is new of a run, and adds what has changed by then: "record", "series", "samples"; "anew" where it was begun anew. */
async function news(run, changed) {
  const record = await ask(`run/${run.number}/record`);
  const text = JSON.stringify({ ...record, seconds: 0 });
  if (text !== run.text) changed.add("record");
  Object.assign(run, { text, record });
  const lines = await ask(`run/${run.number}/metrics?after=${run.metrics || "0:0:0"}`);
  if (lines.anew) run.series = {};
  run.metrics = lines.place;
  run.extend(lines.series);
  if (lines.anew || Object.keys(lines.series).length) changed.add("series");
  for (;;) {
    const part = await ask(`run/${run.number}/index?after=${last(run.places)}`);
    if (part.anew) return void changed.add("anew");
    if (part.index === null) return;
    samples.add(run.number, run.parts++, part.index);
    run.places.push(part.place);
    changed.add("samples");
  }
}

/** Of all runs; one that cannot be asked keeps nothing from the others. */
async function newsOf(runs) {
  const changed = new Set(), faults = [];
  const fault = (run, error) => faults.push(runs.length > 1 ? `${run.name}: ${error.message}` : error.message);
  await Promise.all(runs.map((run) => news(run, changed).catch((error) => fault(run, error))));
  return { changed, faults };
}

function watch(page, before) {
  const pulse = document.getElementById("pulse");
  pulse.hidden = false;
  const tell = (faults) => {
    const text = faults[0] || (page.runs.some((run) => run.record.status.state === "running") ? "live" : "up to date");
    if (pulse.textContent === text) return; // what has not changed is not read out again
    Object.assign(pulse, { textContent: text, title: text, className: `pulse ${faults.length ? "off" : "on"}` });
  };
  const turn = async () => {
    const { changed, faults } = await newsOf(page.runs);
    if (changed.has("anew")) return location.reload();
    setTimeout(turn, 2000); // whatever becomes of what is drawn
    tell(faults);
    if (!changed.size) return;
    page.overview.update();
    page.tables.update();
    if (changed.has("series")) page.curves.update();
    if (changed.has("samples")) page.browser.update();
  };
  tell(before);
  setTimeout(turn, 2000);
}

begin().catch((error) => {
  document.getElementById("main").append(el("p", { class: "note bad", role: "alert" }, `This report cannot be shown: ${error.message.replace(/\.$/, "")}. It needs a browser of 2023 or later.`));
  throw error;
});
