"""The browser of samples in a real browser: filters, keys, colours, two steps side by side, links, and a run that goes on."""

import json
import random

import pytest
from tests.pages import event, jsonl, make_run, more_samples, only_samples, sample

DOWN, RIGHT, END = "\ue015", "\ue014", "\ue010"


def shown(page):
    return page.text(".listside .count")


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("stepFrom", 2, 12),
        ("stepTo", 0, 6),
        ("low", 0.5, 12),
        ("high", 0.5, 12),
        ("short", 4, 12),
        ("long", 3, 12),
        ("text", "STEP 1 rows:2", 2),
        ("text", "asked rows:1", 8),
        ("text", "nowhere", 0),
    ],
)
def test_filters(report, run, field, value, left):
    page = report(run)
    page.fill(f'[name="{field}"]', value)
    page.see(".listside .count", f"{left} of 24 samples")
    page.click("form button:last-child")
    page.see(".listside .count", "24 of 24 samples")


def test_filters_that_are_chosen(report, run):
    failed = sample(
        4, "rows:0", name="eval", reward=None, finish_reason="length", rewards={"right": {"failure": "timeout", "detail": "60 s"}}
    )
    more_samples(run).append([failed])
    page = report(run)
    for field, text in (("set", "eval"), ("finish", "length"), ("reason", "timeout"), ("reason", "a reward failed")):
        page.choose(f'[name="{field}"]', text)
        page.see(".listside .count", "1 of 25 samples")
        page.choose(f'[name="{field}"]', "any")
    page.see(".notes", "1 sample has no reward because one failed: timeout.")
    page.see("#events", "timeout")
    page.choose('[name="set"]', "eval")
    page.click(".item")
    page.see(".panel", "failed: timeout")
    page.see(".panel", "60 s")


def test_the_order(report, run):
    page = report(run)
    page.choose("form label:has(option:nth-child(5)) select", "reward")
    page.click('form button[aria-pressed="false"]')
    assert page.text(".item .worth") == "1"
    page.click('form button[aria-pressed="true"]')
    assert page.text(".item .worth") == "0"


def test_a_sample_and_its_group(report, run):
    page = report(run)
    page.click(".item")
    page.see(".panel h3", "Step 0, train")
    page.see(".panel .prompt", "<s>a")
    assert page.texts(".panel .group button") == ["#0 0", "#1 1"]
    page.click(".panel .group button:nth-child(2)")
    page.see(".panel .place", "rows:0 #1")


def test_tokens_and_a_character_that_is_two_of_them(report, run):
    """Ids 1, 2, 3, 4: "a", " b", " " and the first byte of ä, its second."""
    page = report(run)
    page.click(".item:nth-child(2)")
    page.see(".panel .tokens", "a b ä")
    tokens = page.all(".panel .tokens [data-k]")
    assert [one.get_attribute("textContent") for one in tokens] == ["a", " b", " ", "ä"]
    tokens[3].click()
    page.see(".info", "token 4 of 4 · id 4 · trained · log-prob −0.5 (60.7%)")
    page.one(".panel .tokens").send_keys(RIGHT * 9 + "\ue012")
    page.see(".info", "token 3 of 4 · id 3")


def test_colours(report, tmp_path):
    """Log-probs of 0, -0.5 (61%) and -7 (0.1%), of which the second token was read only; the reference had -0.5, none and -1."""
    line = sample(tokens=(1, 2, 1), logp=[0.0, -0.5, -7.0], trained=[1, 0, 1], advantage=-0.4, sampled_logp=[-0.25, None, None])
    folder = make_run(tmp_path / "one")
    only_samples(folder, [[line | {"ref_logp": [-0.5, None, -1.0]}]])
    page = report(folder)
    page.click(".item")

    def kinds():
        return [one.get_attribute("class").split()[1] for one in page.all(".panel .tokens [data-k]")]

    page.see(".panel .tokens", "a b")
    assert kinds() == ["p0", "p3", "p7"]
    for mode, wanted in (
        ("trained", ["trained", "context", "trained"]),
        ("advantage", ["n2", "context", "n2"]),
        ("gap", ["g2", "context", "n3"]),
    ):
        page.run("arguments[0].click()", page.driver.find_element("css selector", f'input[value="{mode}"]'))
        assert kinds() == wanted
    page.all(".panel .tokens [data-k]")[0].click()
    page.see(".info", "log-prob 0 (100%) · drawn at −0.25 · reference −0.5 · gap 0.5")


def test_without_a_tokenizer(report, run):
    (run / "tokenizer.json").unlink()
    page = report(run)
    page.click(".item")
    page.see(".panel", "there is no tokenizer.json in the run's folder nor in none/such")
    page.see(".panel .tokens", "step 0 rows:0 number 0")


def test_two_steps_side_by_side(report, run):
    page = report(run)
    page.click(".item:nth-child(2)")
    page.see(".panel .place", "rows:0 #1")
    page.choose(".detail select", "step 3 (2 samples)")
    page.until(lambda: len(page.all(".panel h3")) == 2, "two panels")
    page.see(".panel:nth-child(2) h3", "Step 3, train")
    assert page.texts(".panel header .place") == ["rows:0 #1", "rows:0 #1"]
    link = page.driver.current_url
    page.open(link)
    page.until(lambda: page.texts(".panel h3") == ["Step 0, train", "Step 3, train"], "both by their link")


def test_a_link_to_a_sample(report, run):
    page = report(run, fragment="#sample=one,2,train,rows%3A1,1")
    page.see(".panel h3", "Step 2, train")
    assert page.text(".panel .place") == "rows:1 #1"
    assert page.text('.item[aria-selected="true"] .place') == "rows:1 #1"
    page.run("location.hash = '#sample=one,9,train,rows%3A1,1'")
    page.run("location.hash = '#sample=one,1,train,rows%3A2,0'")
    page.see(".panel h3", "Step 1, train")


def test_keys_in_the_list(report, run):
    page = report(run)
    box = page.one(".list")
    box.send_keys(DOWN)
    page.see(".panel .place", "rows:0 #0")
    box.send_keys(DOWN * 3)
    page.see(".panel .place", "rows:1 #1")
    assert box.get_attribute("aria-activedescendant") == "sample-3"
    box.send_keys(END)
    page.see(".panel .place", "rows:2 #1")
    page.see(".panel h3", "Step 3, train")


def test_a_step_by_its_place_on_the_map(report, run):
    """Four steps in equal parts: the third begins after the middle."""
    page = report(run)
    page.run("""const map = document.querySelector(".map canvas"), box = map.getBoundingClientRect();
        map.dispatchEvent(new MouseEvent("click", {clientX: box.left + box.width * 0.6, clientY: box.top + 5}))""")
    page.see(".listside .count", "6 of 24 samples")
    assert page.one('[name="stepFrom"]').get_attribute("value") == "2"


def test_any_sample_in_three_clicks(report, tmp_path):
    """Of 9,600, ten chosen blindly: one click to the section, one into the field where its step and row are written, one on the sample."""
    folder = make_run(tmp_path / "one", prompts=3)
    only_samples(folder, [[sample(step, f"rows:{step * 7 + g}", n) for g in range(30) for n in range(8)] for step in range(40)])
    chosen = random.Random(0)
    for _ in range(10):
        step, g, n = chosen.randrange(40), chosen.randrange(30), chosen.randrange(8)
        page = report(folder)
        page.all("#nav a")[2].click()
        field = page.one('[name="text"]')
        field.click()
        field.send_keys(f"step {step} rows:{step * 7 + g} number {n}")
        page.see(".listside .count", "1 of 9,600 samples")
        page.click(".item")
        page.see(".panel h3", f"Step {step}, train")
        assert page.text(".panel .place") == f"rows:{step * 7 + g} #{n}"


def test_a_run_that_goes_on(live, run):
    files = more_samples(run)
    page = live(run)
    page.see(".card", "0.400 ± 0.050")
    page.click(".item:nth-child(2)")
    page.see(".panel .tokens", "a b ä")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "reward": 0.7, "reward_stderr": 0.05}) + "\n")
    files.append([sample(4, "rows:8")])
    jsonl(run / "events.jsonl", [event(1, 0, "start"), event(2, 3, "signal", 5, signal="SIGTERM")])
    page.see(".card", "0.700 ± 0.050")
    page.see('[data-metric="reward"] .readout', "0.700 ± 0.050")
    page.see(".card", "It was stopped by SIGTERM after step 5.")
    page.see(".listside .count", "25 of 25 samples")
    assert page.text('.item[aria-selected="true"] .place') == "rows:0 #1", "what was chosen stays so"
    page.fill('[name="stepFrom"]', 4)
    page.click(".item")
    page.see(".panel .place", "rows:8 #0")
