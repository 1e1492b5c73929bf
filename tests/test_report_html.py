"""The HTML report: what is on it, that nothing in it is code, its limits, and how it behaves in a browser."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Capture, answer, refusal
from report_pages import Browser, add_image, make_page, small_gallery
from tiny_data import fitted_package, labelled_folder

from onceover.images import read_image
from onceover.report import gallery as limits
from onceover.report.gallery import Gallery
from onceover.report.html import Rate, render_page
from onceover.report.plots import FPR_SHOWN, MAX_VERTICES, Threshold, latency_histogram, thinned

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

ORDER = [
    "missed 0",
    "missed 1",
    "false-alarm 0",
    "found 0",
    "found 1",
    "passed 0",
    "passed 1",
    "passed 2",
    "unlabeled 0",
]
# Appended to a page: puts what a person would see where --dump-dom shows it.
PROBE = """<script>addEventListener("load", () => {
  const states = [];
  const shown = (element) => element.getClientRects().length > 0;
  const names = () => performance.getEntriesByType("resource").map((entry) => entry.name);
  const look = () => states.push({
    cards: [...document.querySelectorAll(".card")].filter(shown).map((card) => card.querySelector(".name").textContent),
    current: [...document.querySelectorAll("[aria-current]")].map((link) => link.getAttribute("href")),
    rows: [...document.querySelectorAll("#defects tbody tr")].map((row) => row.cells[0].textContent),
    filters: [...document.querySelectorAll(".filters a")].filter(shown).length,
    broken: [...document.images].filter((image) => image.complete && !image.naturalWidth).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    open: document.getElementById("viewer").open,
    asked: names().filter((name) => !name.startsWith("data:")),
  });
  %s
  document.body.insertAdjacentHTML("beforeend", "<pre id=told></pre>");
  document.getElementById("told").textContent = JSON.stringify(states);
});</script>"""


class _Tags(HTMLParser):
    """Every tag with its attributes, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def card_names(text: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'<p class="name" title="[^"]*">(.*?)</p>', text, re.DOTALL)]


# ---------------------------------------------------------------- the page


def test_worst_misses_come_first_then_false_alarms_then_the_rest_the_hardest_first() -> None:
    assert card_names(render_page(make_page(), small_gallery())) == ORDER


def test_the_headline_says_counts_shares_intervals_and_the_target() -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", render_page(make_page(), small_gallery())))
    assert "Finds 2 of 4 anomalous images and flags 1 of 4 good ones." in text
    assert "25.0\u202f% 95\u202f% interval 0.6–80.6\u202f%".replace("\u202f", " ") in text.replace("\u202f", " ")
    assert "target: at most 5.0 % – above, chance can explain it" in text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("rate", "said"),
    [(Rate(1, 40, (0.001, 0.13)), "kept"), (Rate(30, 40, (0.6, 0.87)), "missed"), (Rate(3, 40, (0.01, 0.2)), "chance")],
)
def test_a_false_alarm_rate_is_judged_by_its_interval(rate: Rate, said: str) -> None:
    text = render_page(make_page(false_alarms=rate), small_gallery())
    assert said in text[text.index("target: at most") :].partition("</div>")[0]


def test_the_same_evaluation_gives_the_same_bytes_whatever_the_machine_calls_its_fonts() -> None:
    first, second = (render_page(make_page(), small_gallery()) for _ in range(2))
    assert first == second
    assert "DejaVu" not in first


def test_nothing_on_the_page_points_outside_it_and_no_id_is_given_twice() -> None:
    tags = _Tags(render_page(make_page(), small_gallery())).tags
    links = [value for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "action")]
    assert links
    assert all(link and link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs.get("alt") for tag, attrs in tags if tag == "img")


def test_names_are_shown_as_they_are_and_never_run() -> None:
    nasty = "<script>alert('1')</script>\"><img src=x onerror=alert(2)> & 零件 {{ 7*7 }}.png"
    gallery = Gallery()
    add_image(gallery, nasty, 1, 1.0, defect="</style><b>" + nasty)
    text = render_page(make_page(title=nasty, problems=[nasty], facts=[(nasty, nasty)]), gallery)
    assert card_names(text) == [nasty]
    tags = _Tags(text).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [attrs for _, attrs in tags if "onerror" in attrs]


@pytest.mark.parametrize("runs", [1, 4, 23, 400])
def test_counts_of_runs_are_written_as_numbers(runs: int) -> None:
    times = np.random.default_rng(0).normal(100, 20, runs)
    drawn = latency_histogram(times, [("p50", 100.0)], "runs")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert "1" in labels
    assert "\u00d7" not in drawn  # as in 2 × 10⁰


def test_plots_are_painted_in_the_colors_of_the_page() -> None:
    text = render_page(make_page(), small_gallery())
    assert "var(--limit)" in text
    assert "#a1b2c" not in text


def test_without_threshold_there_are_no_verdicts_on_the_page() -> None:
    gallery = Gallery()
    add_image(gallery, "a", 0, 1.0, calibrated=False)
    add_image(gallery, "b", 1, 3.0, calibrated=False)
    page = make_page(
        threshold=None, target=None, false_alarms=None, misses=None, realised=None, calibration=np.array([])
    )
    text = render_page(page, gallery)
    assert card_names(text) == ["b", "a"]
    assert "no threshold and so no verdicts" in text
    assert "× threshold" not in text
    assert "each picture on a scale of its own" in text


def test_a_threshold_of_unknown_interval_has_no_band() -> None:
    known, unknown = (
        render_page(make_page(threshold=Threshold(2.0, interval)), small_gallery()) for interval in ((1.5, 2.5), None)
    )
    assert "Band: where endlessly many" in known
    assert "Band:" not in unknown
    assert known.count("<path") > unknown.count("<path")


@pytest.mark.parametrize("labels", [(0,), (1,), (-1,), (0, 0), (0, 1)])
def test_a_class_that_is_missing_leaves_out_what_needs_it(labels: tuple[int, ...]) -> None:
    gallery = Gallery()
    for i, label in enumerate(labels):
        add_image(gallery, f"part {i}", label, 1.0 + i, masked=False)
    nan = float("nan")
    metrics = [type(metric)(metric.name, nan) for metric in make_page().metrics]
    text = render_page(make_page(curve=None, defects=[], metrics=metrics, false_alarms=None, misses=None), gallery)
    assert ('id="roc-' in text) == (set(labels) == {0, 1})
    assert len(card_names(text)) == len(labels)


# ---------------------------------------------------------------- limits


def test_pictures_beyond_the_limits_are_dropped_the_easiest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGE_COUNT", 3)
    monkeypatch.setattr(limits, "SMALL_COUNT", 6)
    gallery = Gallery()
    for score in np.random.default_rng(0).permutation(20):
        add_image(gallery, f"{score:02}", 0, float(score) / 100)
    shown = gallery.shown()
    assert [item.card.name for item in shown] == [f"{score:02}" for score in range(19, 13, -1)]
    assert [len(item.pictures) for item in shown] == [2, 2, 2, 1, 1, 1]
    text = render_page(make_page(), gallery)
    assert "the 6 hardest of 20 are shown" in text


def test_half_of_the_large_pictures_show_what_was_judged_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGE_COUNT", 8)
    gallery = Gallery()
    for i in range(40):
        add_image(gallery, f"{i}", i % 2, 1 + i / 20)  # half of each label on either side of the threshold
    large = [item.card.outcome for item in gallery.shown() if len(item.pictures) == 2]
    assert {outcome: large.count(outcome) for outcome in large} == {
        "missed": 2, "false-alarm": 2, "found": 2, "passed": 2,
    }  # fmt: skip


def test_a_page_keeps_its_limits_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes() -> list[list[int]]:
        return [[len(uri) for uri in item.pictures] for item in small_gallery().shown()]

    three_large = sum(sum(pair) for pair in sizes()[:3])
    monkeypatch.setattr(limits, "LARGE_BYTES", three_large)
    found = sizes()
    assert [len(each) for each in found] == [2, 2, 2, 1, 1, 1, 1, 1, 1]
    monkeypatch.setattr(limits, "ALL_BYTES", sum(map(sum, found)) - 1)
    assert len(sizes()) == len(found) - 1


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    x = np.sort(np.random.default_rng(1).random(100_000)) ** 4
    x[0], x[-1] = 0, 1
    y = x**0.2
    u, v = thinned(x, y)
    assert (u[0], v[0], u[-1], v[-1]) == (0, 0, 1, 1)
    assert len(u) <= MAX_VERTICES + 2
    assert np.abs(np.interp(x, u, v) - y).max() < 0.01
    assert (u < FPR_SHOWN).sum() > MAX_VERTICES // 4


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_package(tmp_path_factory.mktemp("report"))


def test_evaluate_writes_a_report_and_says_where(package: Path, tmp_path: Path, capsys: Capture) -> None:
    data, target = labelled_folder(tmp_path / "plate"), tmp_path / "out.html"
    status, plain = answer(capsys, "evaluate", str(package), str(data))
    status_report, printed = answer(capsys, "evaluate", str(package), str(data), "--report", str(target))
    assert (status, status_report) == (0, 0)
    assert printed.pop("report") == str(target)
    assert printed["scores"] == plain["scores"]
    assert printed.keys() == plain.keys()
    text = target.read_text(encoding="utf-8")
    assert set(card_names(text)) == set(plain["scores"])
    assert plain["package_id"] in text
    assert re.search(r"nearest normal: \d\d\.png", text)  # as fit called its images
    for name in ("histogram", "roc", "pixels"):
        assert f'id="{name}-' in text
    found = len(
        re.findall(
            '<article class="card"', text.partition('<section class="group found"')[2].partition("</section>")[0]
        )
    )
    assert found == sum(row["detected"] for row in plain["defects"])


def test_an_uncalibrated_package_has_a_report_too(tmp_path: Path, capsys: Capture) -> None:
    few = fitted_package(tmp_path / "few", 6)
    data, target = labelled_folder(tmp_path / "plate", 2, 2), tmp_path / "out.html"
    assert answer(capsys, "evaluate", str(few), str(data), "--report", str(target))[0] == 0
    assert "no threshold and so no verdicts" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "said"), [("out.pdf", "ends in .html"), ("missing/out.html", "does not exist")])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_inspected(
    package: Path, tmp_path: Path, capsys: Capture, name: str, said: str
) -> None:
    status, message = refusal(capsys, "evaluate", str(package), str(tmp_path), "--report", str(tmp_path / name))
    assert status == 2
    assert said in message


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_a_missing_module_is_named_with_the_extra_that_brings_it(
    package: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    status, message = refusal(capsys, "evaluate", str(package), str(tmp_path), "--report", str(tmp_path / "out.html"))
    assert status == 2
    assert f"'{module}'" in message
    assert "onceover[report]" in message


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def browser(require_tool: Callable[[str], str], tmp_path: Path) -> Browser:
    return Browser(require_tool("chromium"), tmp_path)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    target = tmp_path / "page.html"
    target.write_text(render_page(make_page(), small_gallery()), encoding="utf-8")
    return target


def seen(browser: Browser, page: Path, script: str = "look();", anchor: str = "", width: int = 1000) -> list[Any]:
    """What a person would see of the page at `anchor` whenever `script` looks."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE % script + "</body>"), encoding="utf-8")
    found = re.search(r'<pre id="told">(.*?)</pre>', browser.dom(probed, anchor, width), re.DOTALL)
    assert found
    states = json.loads(html.unescape(found[1]))
    assert isinstance(states, list)
    assert states
    assert all(state["broken"] == 0 and state["asked"] == [] and state["overflow"] == 0 for state in states)
    return states


@pytest.mark.parametrize(("anchor", "beginning"), [("", ""), ("#misses", "missed")])
def test_an_address_with_a_filter_opens_with_it(browser: Browser, page: Path, anchor: str, beginning: str) -> None:
    (state,) = seen(browser, page, anchor=anchor)
    assert state["cards"] == [name for name in ORDER if name.startswith(beginning)]
    assert state["current"] == [anchor or "#all"]


def test_a_filter_shows_its_images_and_nothing_else(browser: Browser, page: Path) -> None:
    filters = {"misses": "missed", "false-alarms": "false-alarm", "found": "found", "passed": "passed",
               "unlabeled": "unlabeled", "all": ""}  # fmt: skip
    script = "".join(f"document.querySelector('.filters a[href=\"#{anchor}\"]').click(); look();" for anchor in filters)
    states = seen(browser, page, script)
    for state, beginning in zip(states, filters.values(), strict=True):
        assert state["cards"] == [name for name in ORDER if name.startswith(beginning)]
        assert state["filters"] == len(filters)


def test_a_search_leaves_the_images_whose_name_holds_it(browser: Browser, page: Path) -> None:
    script = 'const box = document.getElementById("search"); box.value = "D 1"; box.dispatchEvent(new Event("input"));'
    (state,) = seen(browser, page, script + "look();")
    assert state["cards"] == ["missed 1", "found 1", "passed 1"]


def test_defects_sort_by_a_click_and_what_is_no_number_stays_last(browser: Browser, page: Path) -> None:
    columns = (0, 0, 1, 1, 6, 6)  # name, name, images, images, AUPRO, AUPRO
    clicks = (f'document.querySelectorAll("#defects th button")[{column}].click(); look();' for column in columns)
    first = [state["rows"][0] for state in seen(browser, page, "".join(clicks))]
    assert first == ["hole", "scratch", "scratch", "hole", "scratch", "scratch"]


def test_a_click_enlarges_a_picture(browser: Browser, page: Path) -> None:
    before, after = seen(browser, page, 'look(); document.querySelector("button.pictures").click(); look();')
    assert (before["open"], after["open"]) == (False, True)


def test_a_thousand_images_fit_a_page_that_opens(browser: Browser, tmp_path: Path) -> None:
    gallery = Gallery()
    for i in range(1000):
        add_image(gallery, f"line 3/part {i:04}.png", int(i % 20 == 0), 0.5 + (i * 7919 % 1000) / 600)
    target = tmp_path / "page.html"
    target.write_text(render_page(make_page(), gallery), encoding="utf-8")
    assert target.stat().st_size < 25_000_000
    (state,) = seen(browser, target)
    assert len(state["cards"]) == 1000


@pytest.mark.parametrize("width", [500, 1600])
def test_a_screenshot_shows_the_page_without_overflow(browser: Browser, page: Path, tmp_path: Path, width: int) -> None:
    seen(browser, page, width=width)
    picture = read_image(browser.picture(page, tmp_path / "page.png", width, 1200))
    assert picture.shape[:2] == (1200, width)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100  # more than an empty page


def test_a_console_error_does_not_go_unseen(browser: Browser, page: Path) -> None:
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", "<script>nothing()</script></body>"))
    with pytest.raises(AssertionError, match="nothing is not defined"):
        browser.dom(page)
