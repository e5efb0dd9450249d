"""The report says what its numbers allow, shows what is there and nothing else, and trusts no model's words."""

import copy
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from align.report.verdict import compared_pairs, reward_model_reading, verdict
from align.report.write import print_summary, write_report
from align.stats.bootstrap import Interval

sys.path.append(str(Path(__file__).parents[1] / "apps"))  # where the browser's helpers are

NAN = float("nan")


def gold(mean, half=0.04):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def model(mean, **more):
    shares = {"correct": 0.744, "polite": 0.871, "brief": 0.7, "refused_rightly": 0.81, "ended": 0.982}
    return {"gold": gold(mean), **shares, "n_tokens": 18.94, "kl_to_sft": 0.0, **more}


@pytest.fixture
def report():
    return {
        "git_commit": "3f2a9c1",
        "seed": 7,
        "n_prompts": 1500,
        "judge": "the gold judge",
        "perfect_gold": 1.5,
        "stages": {"ppo": {"seconds": 3840, "peak_memory_mb": 2100.4}, "sft": {"seconds": 88, "peak_memory_mb": 1390}},
        "models": {
            "ppo": model(1.31, kl_to_sft=6.3, reward=1.9),
            "base": model(0.3, kl_to_sft=22.8),
            "sft": model(0.98),
        },
        "win_rates": {"ppo_over_sft": gold(0.8), "sft_over_base": gold(0.9)},
        "reward_model": {"accuracy": gold(0.79, 0.02), "annotator_agreement": 0.731, "gold_agreement": 0.842},
    }


@pytest.fixture
def curves():
    losses = [{"step": step, "loss/train": 3 / step, "loss/validation": 4 / step} for step in range(1, 9)]
    ranking = [{"step": step, "loss/train": 0.6, "accuracy/train": 0.7, "accuracy/validation": 0.6} for step in (1, 2)]
    ppo = [
        {"step": step, "objective/scores": step, "objective/gold": 1.0, "objective/kl": step / 2}
        | {"val/response_length": 20, "policy/clipfrac_avg": 0.1}
        for step in range(1, 9)
    ]
    return {"pretrain": losses, "sft": losses, "rm": ranking, "ppo": ppo}


@pytest.fixture
def samples():
    texts = {"base": "<script>alert('gold')</script>", "sft": "seven", "ppo": "seven, please"}
    answers = {name: {"text": text, "gold": place / 2} for place, (name, text) in enumerate(texts.items())}
    return [{"prompt": f"What is {n} & <b>four</b>?", "answers": answers} for n in range(12)]


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the words that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self._hidden = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._hidden += tag == "style"

    def handle_endtag(self, tag):
        self._hidden -= tag == "style"

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def tags(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def shown(samples):
    return [("Answers", "Some of them.", samples[:10])]


def page_of(report, curves, samples, folder):
    return Page(write_report(report, curves, shown(samples), folder).read_text(encoding="utf-8"))


def summary_of(report, width=120):
    console = Console(file=io.StringIO(), width=width)
    print_summary(report, console)
    return console.file.getvalue()


# -- report.json ------------------------------------------------------------------------------------------------------


def test_report_json_holds_the_report_in_reading_order(report, samples, tmp_path):
    before = copy.deepcopy(report)
    assert write_report(report, {}, shown(samples), tmp_path / "new" / "folder").name == "report.html"
    text = (tmp_path / "new" / "folder" / "report.json").read_text()
    written = json.loads(text)
    assert written == before == report
    assert list(written)[:4] == ["n_prompts", "judge", "perfect_gold", "models"]
    assert list(written["models"]) == ["base", "sft", "ppo"]
    assert list(written["models"]["ppo"])[:3] == ["gold", "reward", "correct"]
    assert list(written["win_rates"]) == ["sft_over_base", "ppo_over_sft"]
    assert list(written["stages"]) == ["sft", "ppo"]
    assert text.startswith('{\n  "n_prompts": 1500')


def test_report_json_is_json_whatever_numpy_left_in_it(tmp_path):
    loose = {
        "models": {
            "sft": {"gold": Interval(np.float32(1), np.float64(0.5), 1.5), "polite": NAN, "n_tokens": np.int64(3)}
        },
        "folder": tmp_path,
        "lengths": np.arange(2),
    }
    write_report(loose, {}, [], tmp_path)
    written = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    sft = {"gold": {"mean": 1.0, "low": 0.5, "high": 1.5}, "polite": None, "n_tokens": 3}
    assert written == {"models": {"sft": sft}, "folder": str(tmp_path), "lengths": [0, 1]}
    assert verdict(loose) == "SFT: gold score 1.00 [0.50, 1.50]."


# -- the verdict ------------------------------------------------------------------------------------------------------


def test_verdict_better(report):
    assert verdict(report) == (
        "PPO is better than SFT: gold score 1.31 [1.27, 1.35] against 0.98 [0.94, 1.02]; "
        "and SFT is better than base: gold score 0.98 [0.94, 1.02] against 0.30 [0.26, 0.34]."
    )


def test_verdict_worse_and_why(report):
    report["models"]["ppo"]["gold"] = gold(0.8)
    assert verdict(report).startswith(
        "PPO is worse than SFT: gold score 0.80 [0.76, 0.84] against 0.98 [0.94, 1.02]; and"
    )
    report["models"]["sft"]["reward"] = 0.02
    assert "although its reward rose from 0.02 to 1.90: it is over-optimised; and" in verdict(report)


@pytest.mark.parametrize("mean", [1.04, 0.98, 0.92])
def test_verdict_of_touching_intervals(report, mean):
    report["models"]["ppo"]["gold"] = gold(mean)
    report["win_rates"]["ppo_over_sft"] = gold(0.52)
    assert verdict(report).startswith(
        f"Between PPO and SFT no difference that these prompts can show: gold score {mean:.2f} "
    )
    assert "though" not in verdict(report)
    report["win_rates"]["ppo_over_sft"] = gold(0.6)  # paired by prompt, it sees what two means cannot
    assert ", though PPO wins 60.0% [56.0, 64.0] of the prompts; and" in verdict(report)
    report["models"]["sft"]["gold"] = report["models"]["base"]["gold"] = gold(mean)
    assert "; and between SFT and base no difference" in verdict(report)


def test_intervals_that_share_an_end_touch():
    ends = {"sft": {"mean": 0.5, "low": 0.0, "high": 1.0}, "ppo": {"mean": 1.5, "low": 1.0, "high": 2.0}}
    assert "no difference" in verdict({"models": {name: {"gold": interval} for name, interval in ends.items()}})


@pytest.mark.parametrize(("rate", "word"), [(0.6, "is better than"), (0.4, "is worse than"), (0.5, "no difference")])
def test_verdict_without_gold_rests_on_the_win_rate(rate, word):
    report = {"models": {"mine": {"polite": 1}, "yours": {"polite": 1}}, "win_rates": {"yours_over_mine": gold(rate)}}
    assert word in verdict(report)
    assert f"yours wins {100 * rate:.1f}%" in verdict(report)


def test_models_tuned_from_sft_are_compared_with_it(report):
    report["models"]["dpo"] = model(1.2)
    assert verdict(report).startswith("DPO is better than SFT: gold score 1.20 [1.16, 1.24] against 0.98")


def test_best_of_n_is_named_and_its_kl_is_a_bound(report, samples, tmp_path):
    report["models"]["best_of_16"] = model(1.2, kl_to_sft=1.835, best_of=16)
    report["win_rates"]["best_of_16_over_ppo"] = gold(0.4)
    page, summary = page_of(report, {}, samples, tmp_path), summary_of(report)
    assert json.loads((tmp_path / "report.json").read_text())["models"]["best_of_16"]["best_of"] == 16
    assert verdict(report).startswith("best of 16 is better than SFT: gold score 1.20 [1.16, 1.24] against 0.98")
    for text in (page.text, summary):
        assert "≤ 1.8" in text
        assert "best of 16 over PPO" in text
    assert page.text.count("≤") == 1
    assert "for best of n an upper bound, log n − (n−1)/n" in page.text
    del report["models"]["best_of_16"]
    assert "upper bound" not in page_of(report, {}, samples, tmp_path).text


def test_every_tuned_model_is_compared_with_sft_and_with_the_others():
    pairs = compared_pairs(["dpo", "ppo", "sft", "base"])
    assert pairs == [("sft", "base"), ("ppo", "sft"), ("dpo", "sft"), ("dpo", "ppo")]
    assert compared_pairs(["a", "b", "c"]) == [("b", "a"), ("c", "b")]
    assert compared_pairs(["base", "sft"]) == [("sft", "base")]


def test_verdict_of_nothing():
    assert verdict({}) == verdict({"models": {"sft": {"polite": 0.5}, "ppo": {"gold": {"mean": NAN}}}}) == ""


def test_an_interval_narrower_than_two_decimals_is_written_with_three():
    pair = {"base": {"gold": gold(0.62, 0.004)}, "sft": {"gold": gold(0.63, 0.004)}}
    assert "0.630 [0.626, 0.634] against 0.620 [0.616, 0.624]" in verdict({"models": pair})


@pytest.mark.parametrize(("mean", "how"), [(0.79, "better than"), (0.73, "about as well as"), (0.6, "worse than")])
def test_the_reward_model_is_read_against_its_annotators(report, mean, how):
    report["reward_model"]["accuracy"] = gold(mean, 0.02)
    reading = reward_model_reading(report)
    assert f"predicts a label {how} a second annotator would" in reading
    assert "annotators choose it 84.2% of the time: this is about the upper limit" in reading


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_every_section(report, curves, samples, tmp_path):
    page = page_of(report, curves, samples, tmp_path)
    for heading in (
        "Models",
        "Win rates",
        "Reward model",
        "Training",
        "PPO",
        "Answers",
        "What it cost",
        "Run it again",
    ):
        assert heading in page.text
    for told in ("1,500 prompts", "1.31 [1.27, 1.35]", "87.1%", "80.0% [76.0, 84.0]", "1 h 04 min", "2,100 MB"):
        assert told in page.text
    assert "git checkout 3f2a9c1 align evaluate evaluate.yaml" in page.text
    assert page.text.index("PPO is better than SFT") < page.text.index("refused rightly")
    assert verdict(report) in [tag.get("content") for tag in page.tags("meta")]
    assert len(page.tags("article")) == 10
    assert len(page.tags("svg")) == 4 + 6


def test_the_contents_lead_to_each_section(report, curves, samples, tmp_path):
    text = write_report(report, curves, shown(samples), tmp_path).read_text(encoding="utf-8")
    contents = re.findall(r'<li><a href="#(.+?)">(.+?)</a></li>', text)
    assert contents == re.findall(r'<h2 id="(.+?)">(.+?)</h2>', text)
    assert ("part-1", "Models") in contents
    assert "<nav" not in write_report({}, {}, [], tmp_path).read_text(encoding="utf-8")  # of one section


@pytest.mark.heavy
def test_the_page_fits_a_phone(report, curves, samples, tmp_path):
    from browser import chromium

    pair = {"win": 0.7, "tie": 0.1, "loss": 0.2, "rate": gold(0.75), "controlled": gold(0.7), "p": 0.002, "n": 1500}
    report["judges"] = {"the gold judge": {"kind": "reward", "pairs": {"ppo_over_sft": pair}}}
    path = write_report(report, curves, shown(samples), tmp_path)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 360, "height": 800})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        widths = page.locator(".card").evaluate_all("(all) => all.map((card) => card.getBoundingClientRect().width)")
        assert max(widths) <= 360
        page.get_by_role("link", name="Judges").click()
        assert page.get_by_role("heading", name="Judges").bounding_box()["y"] < 10


def test_the_page_stands_alone(report, curves, samples, tmp_path):
    text = write_report(report, curves, shown(samples), tmp_path).read_text(encoding="utf-8")
    assert "://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
    assert "@import" not in text


def test_the_page_can_be_read_aloud(report, curves, samples, tmp_path):
    page = page_of(report, curves, samples, tmp_path)
    assert all(heading.get("scope") in ("col", "row") for heading in page.tags("th"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.tags("svg"))
    assert page.tags("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20


def test_what_models_wrote_stays_text(report, samples, tmp_path):
    report["models"]["<i>evil</i>"] = model(0.5)
    report["judge"] = "<i>evil</i>"
    samples[0]["answers"]["ppo"]["text"] = "half a character: \ud800"
    page = page_of(report, {}, samples, tmp_path)
    assert "<script>alert('gold')</script>" in page.text
    assert "What is 3 & <b>four</b>?" in page.text
    assert "half a character: ?" in page.text
    assert not {"script", "b"} & {tag for tag, _ in page.elements}
    assert all("class" in mark for mark in page.tags("i"))  # the bars' own, none of evil's


@pytest.mark.parametrize(
    "missing", ["models", "win_rates", "reward_model", "stages", "seed", "git_commit", "n_prompts"]
)
@pytest.mark.parametrize("value", [None, {}, "absent"])
def test_absent_blocks_leave_nothing(report, curves, samples, tmp_path, missing, value):
    report[missing] = value
    if value == "absent":
        del report[missing]
    page, summary = page_of(report, {}, [], tmp_path), summary_of(report)
    headings = {
        "models": "KL to SFT",
        "win_rates": "Win rates",
        "reward_model": "Reward model",
        "stages": "What it cost",
    }
    assert headings.get(missing, "Training") not in page.text
    for text in (page.text, summary):
        assert not re.search(r"\b(none|nan|inf)\b|\{\}", text, re.IGNORECASE)


def test_an_empty_report_is_a_page_still(tmp_path):
    page = page_of({}, {}, [], tmp_path)
    assert "Run it again" in page.text
    assert not page.tags("table") + page.tags("svg")
    assert summary_of({}) == ""


def test_numbers_that_are_missing_leave_a_dash_or_no_column(report, curves, samples, tmp_path):
    for name in ("correct", "polite", "brief", "refused_rightly"):  # a judge that gives a score alone
        for values in report["models"].values():
            values.pop(name)
    report["models"]["base"] |= {"kl_to_sft": NAN, "n_tokens": None, "gold": {"mean": 0.3, "low": NAN, "high": None}}
    report["stages"]["sft"]["peak_memory_mb"] = None
    report["reward_model"]["accuracy"] = {"mean": NAN, "low": NAN, "high": NAN}
    report["win_rates"]["ppo_over_sft"] = None
    curves = {"ppo": curves["ppo"]}
    curves["ppo"][3] |= {"objective/kl": NAN, "objective/gold": None}
    samples[0]["answers"]["sft"] = {"text": "", "gold": None}
    page, summary = page_of(report, curves, samples, tmp_path), summary_of(report)
    for text in (page.text, summary):
        assert "polite" not in text
        assert "–" in text
        assert not re.search(r"\b(none|nan)\b", text, re.IGNORECASE)
    assert "empty answer" in page.text
    assert "PPO over SFT" not in page.text
    assert verdict(report).endswith("SFT is better than base: SFT wins 90.0% [86.0, 94.0] of the prompts.")


def test_the_best_answer_is_marked_unless_all_are_equal(report, samples, tmp_path):
    def best(page):
        return sum("best" in tag.get("class", "").split() for tag in page.tags("div"))

    assert best(page_of(report, {}, samples[:1], tmp_path)) == 1
    samples[0]["answers"] = {name: {"text": "same", "gold": 1.0} for name in ("base", "sft", "ppo")}
    assert best(page_of(report, {}, samples[:1], tmp_path)) == 0


def test_answers_of_models_that_the_report_does_not_know(samples, tmp_path):
    assert "seven, please" in page_of({}, {}, samples[:1], tmp_path).text


# -- the terminal -----------------------------------------------------------------------------------------------------


def test_the_summary_says_the_same(report):
    text = summary_of(report)
    flat = re.sub(r"\s+", " ", text)
    assert flat.startswith(verdict(report))
    assert re.search(r"SFT\s+0\.98 \[0\.94, 1\.02\]\s+–\s+74\.4%", text)  # no reward for SFT, one for PPO
    assert "Win rates: SFT over base 90.0% [86.0, 94.0], PPO over SFT 80.0% [76.0, 84.0]" in flat
    assert "Agreement: reward model with held-out labels 79.0% [77.0, 81.0], annotator with annotator 73.1%" in flat
    assert "Stages: SFT 1 min 28 s, PPO 1 h 04 min" in flat


def test_the_summary_fits_a_terminal(report):
    text = summary_of(report, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
