"""The browser of samples in a real browser: filters, keys, colours, two steps side by side, links, and a run that goes on."""

import json
import random

import pytest

from burnish.report.page.live import Live
from tests.pages import event, jsonl, make_run, more_samples, only_samples, sample

DOWN, RIGHT, END, ENTER = "\ue015", "\ue014", "\ue010", "\ue007"


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


def test_keys_lead_from_the_list_to_the_tokens_and_along_them(report, run):
    """Three thousand tokens in a box that holds fewer: the last one is brought into view."""
    only_samples(run, [[sample(tokens=(1,) * 3000)]])
    page = report(run)
    page.one(".list").send_keys(DOWN)
    page.see(".panel .tokens", "aaa")
    page.one(".list").send_keys(ENTER)
    tokens = page.driver.switch_to.active_element
    assert "tokens" in tokens.get_attribute("class")
    tokens.send_keys(END)
    page.see(".info", "token 3,000 of 3,000")
    place = "const at = document.querySelector(arguments[0]).getBoundingClientRect(); return [at.top, at.bottom]"
    (top, bottom), (first, end) = page.run(place, ".panel .t.at"), page.run(place, ".panel .tokens")
    assert (first <= top, bottom <= end + 0.5) == (True, True), (top, bottom, first, end)


def test_a_sample_chosen_in_its_group_is_marked_and_keeps_the_focus(report, run):
    page = report(run)
    page.click(".item")
    page.see(".panel .place", "rows:0 #0")
    page.one(".panel .tokens").send_keys(RIGHT)
    page.see(".info", "token 1 of 3")
    page.click(".panel .group button:nth-child(2)")
    page.see(".panel .place", "rows:0 #1")
    assert page.driver.switch_to.active_element.text.split() == ["#1", "1"]
    assert page.text('.item[aria-selected="true"] .place') == "rows:0 #1"
    assert page.all(".t.at") == [], "no token of it was pointed at"
    page.choose(".detail select", "step 3 (2 samples)")
    page.see(".panel:nth-child(2) h3", "Step 3, train")
    page.click(".panel:nth-child(2) .group button:nth-child(1)")
    page.see(".panel:nth-child(2) .place", "rows:0 #0")
    assert page.driver.switch_to.active_element.text.split() == ["#0", "0"]
    assert page.text('.item[aria-selected="true"] .place') == "rows:0 #1"


def test_a_completion_that_ends_inside_a_character(report, run):
    """Token 3 is a space and the first byte of ä, of which nothing came after it."""
    only_samples(run, [[sample(tokens=(1, 3))]])
    page = report(run)
    page.click(".item")
    page.see(".panel .tokens", "a")
    assert [one.get_attribute("textContent") for one in page.all(".panel .tokens [data-k]")] == ["a", " \ufffd"]


def test_long_prompts_are_shown_in_two_parts(report, run):
    only_samples(run, [[sample() | {"prompt_tokens": [1] * 6002}]])
    page = report(run)
    page.click(".item")
    page.see(".panel", "Show 2 more tokens")
    assert page.run("return document.querySelectorAll('.prompt .t').length") == 6000
    page.click(".panel .prompt + button")
    assert page.run("return document.querySelectorAll('.prompt .t').length") == 6002


@pytest.mark.parametrize("dead", ["one,2,train,rows%3", "one,9,train,rows%3A1,1"])
def test_a_link_that_leads_nowhere(report, run, dead):
    page = report(run, fragment=f"#sample={dead}")
    page.see(".detailside", "The sample of this link is not in this report.")
    page.click(".item")
    page.see(".panel .place", "rows:0 #0")
    page.run(f"location.hash = '#sample={dead}'")
    page.see(".detailside", "The sample of this link is not in this report.")


def test_controls_stay_as_they_are_while_samples_come(live, run):
    """A text is being looked for, in a chosen and reversed order, when a sample comes that has it; and a reason that was not there."""
    files, failed = more_samples(run), {"right": {"failure": "timeout", "detail": "60 s"}}
    page = live(run)
    page.choose("form label:has(option:nth-child(5)) select", "step")
    page.click('form button[aria-pressed="false"]')
    page.fill('[name="text"]', "rows:2")
    page.see(".listside .count", "8 of 24 samples")
    assert not page.all('[name="reason"]')
    files.append([sample(9, "rows:2", reward=None, rewards=failed), sample(9, "rows:1")])
    page.see(".listside .count", "9 of 26 samples")
    assert page.driver.switch_to.active_element.get_attribute("name") == "text"
    assert page.text(".item .meta").startswith("step 9 train rows:2 #0")
    assert page.one("form label:has(option:nth-child(5)) select").get_attribute("value") == "step"
    assert page.texts("form button")[:1] == ["Reverse"]
    assert page.one("form button").get_attribute("aria-pressed") == "true"
    page.choose('[name="reason"]', "timeout")
    page.see(".listside .count", "1 of 26 samples")


def test_tables_follow_a_run_and_leave_what_is_open(live, run):
    """A fifth step of 100 tokens at 25 a second: sampling takes 10 s, scoring 2.5 and training 7.5 by then."""
    files = more_samples(run)
    page = live(run)
    page.see("#time tbody tr", "one 8 s")
    page.click("#configuration .allopts summary")
    page.fill("#option", "learning")
    line = {"step": 5, "time/sampling": 2.0, "time/scoring": 0.5, "num_tokens": 500, "tokens_per_second": 25.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    files.append([sample(7, tokens=(1,) * 9)])
    page.see("#time tbody tr", "10 s (8.3%) 2.5 s (2.1%) 7.5 s (6.3%)")
    page.see("#data .histogram figcaption", "the completions sampled after step 7")
    assert page.driver.switch_to.active_element.get_attribute("id") == "option"
    assert [one.split()[0] for one in page.texts("table.all tbody tr")] == ["learning_rate"]
    with (run / "resolved.yaml").open("a") as file:
        file.write("learning_starts: 1\n")
    page.until(lambda: len(page.texts("table.all tbody tr")) == 2, "an option that has come")
    assert page.driver.switch_to.active_element.get_attribute("id") == "option"


def test_a_run_that_cannot_be_asked_keeps_nothing_from_another(live, run, tmp_path, monkeypatch):
    """The first run's samples fail once while its record and its metrics have come: they are drawn all the same."""
    other = make_run(tmp_path / "two")
    page = live(run, other)
    page.see("#pulse", "up to date")
    kept, broken = Live.answer, [True]

    def answer(self, number, what, after):
        if number == 0 and what == "index" and broken[0]:
            raise PermissionError(13, "Permission denied")
        return kept(self, number, what, after)

    monkeypatch.setattr(Live, "answer", answer)
    for folder in (run, other):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 5, "reward": 0.7, "reward_stderr": 0.05}) + "\n")
    page.see("#pulse", "one: The run's folder cannot be read (Permission denied).")
    page.until(lambda: all("0.700 ± 0.050" in card for card in page.texts(".card")), "what has come of both")
    broken[0] = False
    page.see("#pulse", "up to date")
    page.driver.get_log("browser")  # that answers were 503


def test_a_tokenizer_that_comes_later_is_found(live, run):
    kept = (run / "tokenizer.json").read_text()
    (run / "tokenizer.json").unlink()
    page = live(run)
    page.click(".item")
    page.see(".panel", "Tokens cannot be shown one by one: ")
    (run / "tokenizer.json").write_text(kept)
    page.click(".item:nth-child(2)")
    page.see(".panel .info", "Point at a token")


def test_samples_that_cannot_be_searched_are_said(live, run, monkeypatch):
    kept = Live.answer

    def answer(self, number, what, after):
        if what == "text":
            raise PermissionError(13, "Permission denied")
        return kept(self, number, what, after)

    monkeypatch.setattr(Live, "answer", answer)
    page = live(run)
    page.fill('[name="text"]', "rows:2")
    page.see(".listside .count", "0 of 24 samples; 1 part of 1 cannot be read")
    page.driver.get_log("browser")
