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
  theme(wanted());
  document.getElementById("theme").addEventListener("click", () => {
    const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("burnish-theme", name);
    } catch { /* then it holds for this visit */ }
    theme(name);
    page.browser?.list.map.draw(page.browser.list.found);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(wanted()));
}

/** Sections that are tables are made anew; those that one works in are brought up to date. */
function fixed(runs) {
  for (const id of ["data", "time", "events", "configuration"]) {
    document.getElementById(id)?.remove();
    document.querySelector(`#nav a[href="#${id}"]`)?.parentElement.remove();
  }
  dataSection(runs);
  timeSection(runs);
  eventsSection(runs);
  configSection(runs);
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
  if (live) await Promise.all(runs.map((run) => news(run)));
  else for (const run of runs) await run.load(samples);
  page.overview = new Overview(runs);
  page.curves = new Curves(runs);
  page.browser = new Browser(runs);
  fixed(runs);
  follow(page);
  addEventListener("hashchange", () => follow(page));
  addEventListener("resize", later(() => { for (const chart of charts) chart.resize(); }, 150));
  document.documentElement.dataset.ready = "yes";
  if (live) watch(page);
}

// Beside a run that goes on

/** What is new of a run. → what has changed: of "record", "series" and "samples". */
async function news(run) {
  const changed = new Set();
  const record = await ask(`run/${run.number}/record`);
  const text = JSON.stringify({ ...record, seconds: 0 });
  if (text !== run.text) changed.add("record");
  run.text = text;
  run.take({ ...record, advice: record.advice });
  const lines = await ask(`run/${run.number}/metrics?after=${run.metrics || "0:0:0"}`);
  if (lines.anew) run.series = {};
  run.metrics = lines.place;
  run.extend(lines.series);
  if (lines.anew || Object.keys(lines.series).length) changed.add("series");
  for (;;) {
    const part = await ask(`run/${run.number}/index?after=${last(run.places)}`);
    if (part.anew) return changed.add("anew");
    if (part.index === null) return changed;
    samples.add(run.number, run.parts++, part.index);
    run.places.push(part.place);
    changed.add("samples");
  }
}

function watch(page) {
  const pulse = document.getElementById("pulse");
  pulse.hidden = false;
  const tell = (text, kind) => { pulse.textContent = text; pulse.className = `pulse ${kind}`; };
  tell("live", "on");
  const turn = async () => {
    try {
      const all = new Set();
      for (const run of page.runs) for (const one of await news(run)) all.add(one);
      if (all.has("anew")) return location.reload();
      if (all.has("record")) fixed(page.runs);
      if (all.size) page.overview.update();
      if (all.has("series")) page.curves.update();
      if (all.has("samples")) page.browser.update();
      tell(page.runs.some((run) => run.record.status.state === "running") ? "live" : "up to date", "on");
    } catch {
      tell("the server does not answer", "off");
    }
    setTimeout(turn, 2000);
  };
  setTimeout(turn, 2000);
}

begin().catch((error) => {
  document.getElementById("main").append(el("p", { class: "note bad", role: "alert" }, `This report cannot be shown: ${error.message}. It needs a browser of 2023 or later.`));
  throw error;
});
