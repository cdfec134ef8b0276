"""The report in a real browser: overview, curves, tables, themes, narrow windows."""

import json

import pytest

from tests.pages import HOSTILE, OPTIONS, event, jsonl, make_run, only_samples, sample


def test_it_opens_from_a_file(report, run):
    page = report(run)
    assert page.driver.title == "one · Burnish"
    headings = page.texts("h2")
    assert headings == ["Overview", "Curves", "Samples", "Data", "Time & memory", "Events", "Configuration"]
    assert page.texts("#nav a") == headings


def test_what_came_of_a_run(report, run):
    """Rewards 0.1 to 0.4 ± 0.05 in four steps, of four; from minute 0 to minute 2."""
    page = report(run)
    card = page.text(".card")
    for words in (
        "one",
        "finished",
        "GRPO",
        "0.400 ± 0.050",
        "from 0.1 at step 1",
        "0.75 ± 0.10",
        "2 min 0 s",
        "400",
    ):
        assert words in card
    assert "Nothing stands out." in page.text(".notes")


def test_smoothing_and_the_error_of_what_is_smoothed(report, run):
    """Weight 1/2 over 0.1, 0.2, 0.3, 0.4: (0.4/2 + 0.3/4 + 0.2/8 + 0.1/16) / (15/16) = 0.3267. The errors of 0.05 are independent:
    0.05 √(1/4 + 1/16 + 1/64 + 1/256) / (15/16) = 0.0307."""
    page = report(run)
    chart = '.charts [data-metric="reward"]'
    page.see(f"{chart} .readout", "0.400 ± 0.050")
    page.set("#smoothing", 0.5)
    page.see(f"{chart} .readout", "0.327 ± 0.031, unsmoothed 0.4")


def test_a_chart_is_drawn_and_can_be_read_by_keys(report, run):
    page = report(run)
    page.one('[data-metric="reward"] canvas')
    plot = page.one('[data-metric="reward"] .plot')
    words = plot.get_attribute("aria-label")
    assert "one: 0.1 at step 1, 0.4 at step 4; lowest 0.1 at step 1, highest 0.4 at step 4." in words
    plot.send_keys("\ue012")  # left
    page.see('[data-metric="reward"] .readout', "0.400 ± 0.050 at step 4")
    plot.send_keys("\ue012")
    page.see('[data-metric="reward"] .readout', "0.300 ± 0.050 at step 3")


def test_what_is_zoomed_stays_so_when_it_is_drawn_anew(report, run):
    """A drag from the first to the second third; the ticks of the axis say what is seen, which is a drawing: so by what keys can reach."""
    from selenium.webdriver.common.action_chains import ActionChains

    page = report(run)
    over = page.one('[data-metric="reward"] .u-over')
    page.run("arguments[0].scrollIntoView({block: 'center'})", over)
    third = over.size["width"] // 3
    drag = ActionChains(page.driver).move_to_element_with_offset(over, -third // 2, 0).click_and_hold()
    drag.move_by_offset(third, 0).release().perform()
    picture = "return document.querySelector('[data-metric=\"reward\"] canvas').toDataURL()"
    zoomed = page.run(picture)
    page.set("#smoothing", 0.5)
    page.set("#smoothing", 0)
    page.until(lambda: page.run(picture) == zoomed, "the same part of the curve")
    ActionChains(page.driver).double_click(page.one('[data-metric="reward"] .u-over')).perform()
    page.until(lambda: page.run(picture) != zoomed, "all of the curve")


def test_the_same_numbers_as_a_table(report, run):
    page = report(run)
    page.click('[data-metric="loss"] button')
    cells = page.texts('[data-metric="loss"] tbody td')
    assert cells[:6] == ["1", "1", "", "2", "0.5", ""]


def test_another_axis_and_a_logarithmic_scale(report, run):
    page = report(run)
    page.choose(".controls select", "tokens")
    plot = page.one('[data-metric="reward"] .plot')
    plot.send_keys("\ue012")
    page.see('[data-metric="reward"] .readout', "at 400 tokens")
    page.click("#log")
    page.see('[data-metric="completions/clipped_ratio"]', "No value above 0 to draw on a logarithmic scale.")
    page.click("#log")
    page.one('[data-metric="completions/clipped_ratio"] canvas')


def test_metrics_are_found_by_name(report, run):
    page = report(run)
    page.fill("#metric", "time/")
    page.see(".count", "3 metrics found.")
    assert [one.get_attribute("data-metric") for one in page.all(".groups .chart")] == ["time/sampling", "time/scoring", "time/training"]


def test_several_runs_over_one_another(report, run, tmp_path):
    other = make_run(tmp_path / "two", reward=0.5, options=OPTIONS.replace("1.0e-05", "3.0e-05"))
    page = report(run, other)
    page.see('[data-metric="reward"] .readout', "0.900 ± 0.050")
    page.click(".legend button:first-child")
    page.until(lambda: page.texts('[data-metric="reward"] .readout') == ["0.900 ± 0.050"], "the first run to be left out")
    rows = [one.split() for one in page.texts("table.differs tbody tr")]
    assert rows == [["learning_rate", "0.00001", "0.00003", "0.000001"]]


def test_time_by_phase(report, run):
    """Four steps of 2 and 0.5 seconds of sampling and scoring; 400 tokens at 25 a second are 16 s, so 6 of training; 3 of evaluation and
    1.5 of saving; of 120 there are 99.5 others."""
    page = report(run)
    row = page.text("#time tbody tr")
    assert row == "one 8 s (6.7%) 2 s (1.7%) 6 s (5%) 3 s (2.5%) 1.5 s (1.3%) 100 s (82.9%) 2 min 0 s"


def test_data_and_events(report, run):
    """The first and the last step have three completions of 3 and three of 4 tokens each."""
    counts = {"rows": 10, "kept": 9, "tokens": 100, "trained_tokens": 40, "shortest": 3, "median": 5, "longest": 30, "dropped_too_long": 1}
    data = {
        "train": {
            "examples": 9,
            "reports": ["…"],
            "counts": [counts | {"first": {"dropped_too_long": "rows:4"}}],
            "lengths": [[0, 9, 7], [10, 19, 2]],
        }
    }
    (run / "data.json").write_text(json.dumps(data))
    lines = [
        event(1, 0, "start", command=["x"]),
        event(2, 1, "skip", checkpoint="checkpoint-2", why="torn"),
        event(3, 2, "failure", 3, why="ValueError: no"),
    ]
    jsonl(run / "events.jsonl", lines)
    page = report(run)
    assert page.text("#data tbody tr") == "1 10 9 100 40% 3 · 5 · 30 1 dropped: too long (first: rows:4)"
    assert [one.split() for one in page.texts("#data .histogram li")] == [["0–9", "7"], ["10–19", "2"], *[["3", "3"], ["4", "3"]] * 2]
    assert "ValueError: no" in page.text(".card")
    assert "1 damaged checkpoint passed over" in page.text(".notes")
    assert page.texts("#events .event") == ["start", "skip", "failure"]


def test_nothing_that_a_run_says_is_obeyed(report, tmp_path):
    folder = make_run(tmp_path / "a<b>&c", options=f"model_name_or_path: {json.dumps(HOSTILE)}\n{json.dumps(HOSTILE)}: 1\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 9, HOSTILE: 1.0}) + "\n")
    failed = {HOSTILE: {"failure": HOSTILE, "detail": HOSTILE}}
    only_samples(folder, [[sample(9, HOSTILE, prompt=HOSTILE, completion=HOSTILE, rewards=failed, name=HOSTILE, finish_reason=HOSTILE)]])
    page = report(folder)
    page.click(".item")
    page.see(".panel", HOSTILE)
    assert page.driver.title == "a<b>&c · Burnish"
    assert page.all("img") == []
    assert HOSTILE in page.text(".notes")


def test_light_and_dark(report, page, run):
    page.prefer("dark")
    report(run)
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert page.run(colour) == "rgb(20, 23, 26)"
    page.click("#theme")
    assert page.run(colour) == "rgb(247, 247, 245)"


@pytest.mark.parametrize("width", [390, 768])
def test_narrow_windows_have_nothing_beside_them(report, page, run, width):
    page.size(width, 844)
    report(run)
    page.click(".item")
    page.see(".panel", "Completion")
    assert page.run("return document.documentElement.scrollWidth") <= width


def test_a_folder_with_almost_nothing(report, tmp_path):
    jsonl(tmp_path / "new" / "events.jsonl", [])
    page = report(tmp_path / "new")
    for words in ("nothing was logged yet", "There is no resolved.yaml"):
        page.see(".notes", words)
    page.see("#samples", "No sample is kept in the run's folder")
    page.see("#curves", "No metric was logged yet.")


def test_everything_has_a_name_and_headings_are_in_order(report, run):
    page = report(run)
    page.click(".item")
    page.see(".panel", "Completion")
    nameless = page.run("""
        const labels = (e) => [...(e.labels || [])].some((label) => label.textContent.trim());
        const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim() || labels(e);
        const all = document.querySelectorAll("button, input, select, a, [role]:not([role=status]), section, nav, form");
        return [...all].filter((e) => e.checkVisibility() && !named(e)).map((e) => e.outerHTML.slice(0, 120));
    """)
    assert nameless == []
    levels = page.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 or b == 4 for a, b in zip(levels, levels[1:], strict=False))
    assert page.run("return document.querySelectorAll('main').length") == 1
    ids = page.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


PALE = r"""
const parsed = (text) => {
  const n = (text.match(/[\d.]+(?:e-?\d+)?/g) || []).map(Number);
  return text.startsWith("color(") ? [255 * n[0], 255 * n[1], 255 * n[2], n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
};
const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
const behind = (e) => {
  const mine = parsed(getComputedStyle(e).backgroundColor);
  return mine[3] === 1 ? mine : over(mine, e.parentElement ? behind(e.parentElement) : [255, 255, 255, 1]);
};
const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const found = new Map();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const e = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !e.checkVisibility() || e.closest("script, style, :disabled, .hidden, .skiplink")) continue;
  const below = behind(e), ink = over(parsed(getComputedStyle(e).color), below);
  const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
  const contrast = (high + 0.05) / (low + 0.05);
  if (contrast < 4.5) found.set(`${e.tagName} ${e.className} in ${e.parentElement.className}`, contrast.toFixed(2));
}
return [...found].map((one) => one.join(": "));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_what_is_behind_it(report, page, run, scheme):
    """By 4.5 to 1 (WCAG 2.2, 1.4.3), tokens of every colour and all states of a run among it."""
    page.prefer(scheme)
    known = {"logp": [-0.001, -0.02, -0.2, -0.4, -0.8, -1.5, -3.0, -6.0, None], "trained": [1, 1, 1, 1, 1, 1, 1, 1, 0]}
    known |= {"ref_logp": [-0.001, -2.0, 2.0, -0.8, -0.85, -1.6, -2.9, -6.0, None], "tokens": [0, 1, 1, 1, 1, 1, 1, 1, 1]}
    advantages = (-2.0, -0.5, -0.1, 0.0, 0.1, 0.5, 2.0)
    lines = [sample(number=n, advantage=advantage) | known for n, advantage in enumerate(advantages)]
    lines.append(sample(number=7, reward=None, finish_reason="length", rewards={"right": {"failure": "timeout", "detail": "60 s"}}))
    only_samples(run, [lines])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": "nan"}\n')
    jsonl(run / "events.jsonl", [event(1, 0, "start"), event(2, 1, "resume"), event(3, 2, "failure", 3, why="ValueError: no")])
    report(run)
    pale = set()
    for n in range(8):
        page.click(f".item:nth-child({n + 1})")
        page.until(lambda n=n: page.texts(".panel .place")[:1] == [f"rows:0 #{n}"], "the sample")
        for mode in ("trained", "logp", "advantage", "gap"):
            page.run("document.querySelector(arguments[0]).click()", f'input[value="{mode}"]')
            pale |= set(page.run(PALE))
    assert pale == set()


def readings(page, chart):
    """What keys say of each point, from the last to the first."""
    plot, found = page.one(f"{chart} .plot"), []
    for _ in range(4):
        plot.send_keys("\ue012")
        found.append(page.text(f"{chart} .readout"))
    return found


def test_a_line_without_an_error_has_none_and_the_others_keep_theirs(report, run):
    """Rewards of 0.1 to 0.4 ± 0.1, of which the second has no error. With weight 1/2 it has 4/15 of the last mean's weight: not known."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[:4]:
        line["reward_stderr"] = 0.1
    del lines[1]["reward_stderr"]
    jsonl(run / "metrics.jsonl", lines)
    page, chart = report(run), '.charts [data-metric="reward"]'
    wanted = ["0.40 ± 0.10 at step 4", "0.30 ± 0.10 at step 3", "0.2 at step 2", "0.10 ± 0.10 at step 1"]
    assert readings(page, chart) == wanted
    page.set("#smoothing", 0.5)
    page.see(f"{chart} .readout", "0.3267, unsmoothed 0.4")


def test_the_table_has_what_was_logged(report, run, tmp_path):
    """Values below 0 among it, on a logarithmic scale, and each with its own error, however smooth the curve is."""
    jsonl(run / "metrics.jsonl", [{"step": n, "reward": value, "reward_stderr": n / 10} for n, value in ((1, -0.5), (2, 0.25))])
    other = make_run(tmp_path / "two")
    page, chart = report(run, other), '.charts [data-metric="reward"]'
    page.click(f"{chart} button")
    page.set("#smoothing", 0.5)
    page.click("#log")
    assert page.texts(f"{chart} tbody td")[:6] == ["1", "−0.5", "0.1", "2", "0.25", "0.2"]
    page.click(".legend button:first-child")
    page.until(lambda: set(page.texts(f"{chart} tbody th")) == {"two"}, "the rows of the run that is shown")
    page.click(".legend button:last-child")
    page.until(lambda: page.texts(f"{chart} tbody td") == [], "no rows where no run is shown")


def test_an_axis_that_was_not_logged(report, run):
    jsonl(run / "metrics.jsonl", [{"step": 1, "reward": 0.5}])
    page = report(run)
    page.choose(".controls select", "tokens")
    page.see('.charts [data-metric="reward"]', "How many tokens were trained on was not logged.")


def test_time_where_steps_share_a_sampling(report, run):
    """Two steps a sampling, a line for each: 4 s each in steps 1 and 3, so 8 in all. Steps of 4 s train for 0, 4 and 0 s; the last one's
    groups are all tied, so that no token is computed, which took 1 s: 5 in all."""
    lines = [{"step": n, "time/training": 1.0, "num_tokens": 100 * min(n, 3), "tokens_per_second": 25.0 * (n < 4)} for n in range(1, 5)]
    for line in lines[::2]:
        line["time/sampling"] = 4.0
    jsonl(run / "metrics.jsonl", lines)
    (run / "resolved.yaml").write_text(OPTIONS + "steps_per_generation: 2\n")
    page = report(run)
    assert page.text("#time tbody tr") == "one 8 s (6.7%) – 5 s (4.2%) – 1.5 s (1.3%) 106 s (87.9%) 2 min 0 s"


def test_durations_and_small_numbers(report, run):
    """179.6 s are three minutes; an error of 1e-9 leaves more digits than one reads."""
    jsonl(run / "events.jsonl", [event(1, 0, "start"), event(2, 179.6 / 60, "end", 4)])
    jsonl(run / "metrics.jsonl", [{"step": 4, "reward": 1e-8, "reward_stderr": 1e-9}])
    page = report(run)
    assert "3 min 0 s" in page.text(".card")
    page.see('.charts [data-metric="reward"] .readout', "1.00e−8 ± 1.00e−9")
