"""The page of a report as a browser shows it, and what it is made of, by hand."""

import base64
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.reporting import html, report
from experiments.reporting.content import read, report_sections
from experiments.reporting.sections import misclassified
from kd_jax import plots
from kd_jax.errors import InputError
from kd_jax.io import examples, tidy
from kd_jax.io.examples import Examples
from tests.experiments.reporting.toy_run import ALL, SOFT, rows_of, toy_history, toy_rows, write_run

HOSTILE = "<script>alert(1)</script>"
BIASES = (-1.0, 0.0, 2.5)
RIGHT = {0: [(10, 10, 1), (10, 10, 2), (9, 10, 8)], 1: [(10, 9, 3), (10, 10, 4), (8, 10, 10)]}
RIGHT[2] = [(10, 10, 5), (10, 10, 6), (7, 9, 10)]
"""Of ten examples of each class, the right ones by seed and bias; at bias 0 those of toy_rows."""
CLASSES = [HOSTILE, "</script><b>b</b>", "c&d"]
SETTINGS = [{"name": ALL, "omitted": []}, {"name": SOFT, "omitted": [2]}]


def curve():
    labels, biases = np.repeat(range(3), 10), np.array(BIASES)
    of_seeds = [tidy.bias_rows(SOFT, seed, biases, np.array(RIGHT[seed]), labels, [2]) for seed in RIGHT]
    return [row for of_seed in of_seeds for row in of_seed]


def some_examples(size=8):
    images = np.random.RandomState(0).randint(256, size=(3, size, size, 1)).astype(np.uint8)
    places = [np.array(values, np.int32) for values in ((2, 2, 2), (0, 1, 0), (2, 1, 2), (20, 23, 28))]
    return Examples(images, *places, SOFT, 0, "teacher_matched")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    data = {"name": "toy", "fingerprint": "ab12", "num_classes": 3, "class_names": CLASSES}
    data |= {"train": 60, "validation": 30, "test": 30}
    time = {"run_seconds": 200.0, "training_seconds": 50.0, "examples": 61_700}
    changes = {"data": data, "time": time, "command": "./launch.sh distill --out='</script><script>alert(2)'"}
    folder = tmp_path_factory.mktemp("page") / "a run"
    write_run(folder, SETTINGS, toy_rows(), toy_history(), curve(), **changes)
    examples.write(folder, some_examples())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "render", lambda figure, kind="png": b"")  # the page has charts of its own
        report.build(folder)
    return folder


# In a browser


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; without it tests are skipped, or fail if KD_JAX_EXPECT_CHROMIUM=1."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        what = "chromium and chromedriver are not both installed"
        (pytest.fail if os.environ.get("KD_JAX_EXPECT_CHROMIUM") == "1" else pytest.skip)(what)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


def look(browser, path, width=1200, scheme="light"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    return browser


def find(browser, selector):
    return browser.find_element("css selector", selector)


def slide(browser, bias):
    """Moves the slider to a bias; the accuracies that the page then shows, by part."""
    script = "const s = document.getElementById('bias-slider'); s.value = arguments[0];"
    browser.execute_script(script + "s.dispatchEvent(new Event('input'))", BIASES.index(bias))
    rows = browser.find_elements("css selector", "#bias-classes tr")
    return {row.get_attribute("data-part"): row.find_element("class name", "value").text for row in rows}


def test_it_opens_from_disk_without_an_error_or_a_request(folder, browser):
    look(browser, folder / "report.html")
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.startswith(("file:", "data:")) for url in urls), urls
    assert len(browser.find_elements("css selector", ".chart svg path.line")) == 3 + 2 + 1
    assert find(browser, "#answer").text.startswith("Having never seen class c&d, the student")


def test_the_slider_says_what_results_and_the_bias_curve_say(folder, browser):
    look(browser, folder / "report.html")
    at_zero = slide(browser, 0.0)
    assert find(browser, "#bias-value").text == "0.00 nats"
    text = (folder / "report.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {SOFT} | none | 6.0")]
    cells = [cell.strip().rstrip("\\* ") for cell in line.strip("|").split("|")][3:7]
    assert list(at_zero.values()) == cells and at_zero["2"] == "40.0 ± 49.7"
    row = find(browser, f"tr[data-setting='{SOFT}'][data-correction='none']").text.replace(" *", "")
    words = lambda text: text.replace("±", " ").replace(",", " ").split()  # noqa: E731
    assert words(" ".join(cells)) == words(row)[2:-1]
    # At 2.5, class 0: 9, 8 and 7 of ten, mean 80 %, sd 10 %, half width 4.302653 * 10 / sqrt(3) = 24.8; of
    # all 30: 27, 28 and 26, mean 90 %, sd 1 / 30: 8.28.
    at = slide(browser, 2.5)
    assert at["0"] == "80.0 ± 24.8" and at["all"] == "90.00 ± 8.28" and at["1"] == "96.7 ± 14.3"
    bars = browser.find_elements("css selector", "#bias-classes .bar")
    assert [bar.get_attribute("style").split("width: ")[1] for bar in bars][:2] == ["90%;", "80%;"]


def test_each_correction_has_its_place_and_says_that_seeds_differ(folder, browser):
    look(browser, folder / "report.html")
    buttons = {one.text: one for one in browser.find_elements("css selector", "#bias-jumps button")}
    assert list(buttons) == ["0: as trained", "teacher_matched 2.50"]  # 4.0 lies beyond the curve
    buttons["teacher_matched 2.50"].click()
    assert find(browser, "#bias-value").text == "+2.50 nats"
    note = find(browser, "#bias-note").text
    assert "teacher_matched 2.00 to 3.00" in note and "test_tuned 4.00" in note and "over 3 seeds" in note


def test_the_legend_hides_and_shows_a_setting(folder, browser):
    look(browser, folder / "report.html")
    count = lambda: len(browser.find_elements("css selector", "#learning path.line"))  # noqa: E731
    button = find(browser, "#learning-legend button")
    browser.execute_script("arguments[0].click()", button)
    assert (button.text, button.get_attribute("aria-pressed"), count()) == (ALL, "false", 2)
    browser.execute_script("arguments[0].click()", button)
    assert count() == 3


def test_pointing_at_a_curve_reads_it_out(folder, browser):
    look(browser, folder / "report.html")
    script = """const svg = document.querySelector("#learning svg"), box = svg.getBoundingClientRect();
    svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 12, clientY: box.top + 50}));
    return document.querySelector("#learning .tip").innerText"""
    # After epoch 2: 40, 50 and 60 %, half width 24.84.
    assert browser.execute_script(script).split("\n") == [
        "epoch: 2", ALL, "50.00 ± 24.84", SOFT, "50.00 ± 24.84",
    ]  # fmt: skip


@pytest.mark.parametrize("scheme, bright", [("light", True), ("dark", False)])
def test_on_a_phone_only_tables_scroll(folder, browser, scheme, bright):
    look(browser, folder / "report.html", 375, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 375
    paint = "return getComputedStyle(document.querySelector('section')).backgroundColor"
    ground = [int(number) for number in re.findall(r"\d+", browser.execute_script(paint))[:3]]
    assert (min(ground) > 200) if bright else (max(ground) < 60)


def test_names_stay_text(folder, browser):
    look(browser, folder / "report.html")  # an alert would fail whatever comes next
    heads = [head.text for head in browser.find_elements("css selector", "#classes thead th")]
    assert heads[3:6] == CLASSES
    rows = browser.find_elements("css selector", "#bias-classes th")
    assert [row.text for row in rows] == ["all classes", *CLASSES[:2], f"{CLASSES[2]} *"]
    assert "</script><script>alert(2)" in find(browser, "#made pre").text
    assert len(browser.find_elements("css selector", "script")) == 2
    figures = browser.find_elements("css selector", "figure")
    assert [figure.text.split("\n")[0] for figure in figures] == [
        f"c&d, called {HOSTILE} → c&d", f"c&d, called {HOSTILE} → c&d", f"c&d, called {CLASSES[1]}",
    ]  # fmt: skip
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure img')].map((i) => [i.naturalWidth, i.loading])"
    )
    assert len(sizes) == 3


# Without one


def test_no_word_of_the_page_is_markup_that_it_was_given(folder):
    text = (folder / "report.html").read_text()
    assert HOSTILE not in text and "<b>b</b>" not in text and "alert(2)'<" not in text
    assert text.count("<script") == 2 and text.count("</script") == 2
    assert "200 s" not in text and "3:20, of which training 50 s: 1,234 examples a second" in text
    assert re.findall(r"(?:src|href)=\"(?!#|data:)", text) == [] and "url(" not in text


def test_the_same_run_gives_the_same_page_and_examples_are_not_needed(folder, tmp_path):
    shutil.copytree(folder, copy := tmp_path / folder.name)
    content = read(copy)
    sections = report_sections(copy, content, None)
    assert html.render(copy, content, sections) == (folder / "report.html").read_bytes()
    (copy / examples.NAME).unlink()
    assert b"<figure>" not in html.render(copy, content, sections)


def grid_content(omitted):
    settings = [{"name": "labels", "omitted": omitted, "temperature": None, "alpha": 0.0}]
    settings += [
        {"name": f"T={t} alpha={a}", "omitted": omitted, "temperature": t, "alpha": a}
        for t in (1.0, 4.0)
        for a in (0.5, 1.0)
    ]
    rows = []
    for number, setting in enumerate(settings):
        for correction, more in (("none", 0), ("prior_matched", 1))[: 1 + bool(omitted)]:
            rows += rows_of(setting["name"], 0, correction, [10, 10, number + more], omitted, 1.0 * more)
    return settings, rows


@pytest.mark.parametrize("omitted", [[], [2]])
def test_the_heat_maps_by_hand(tmp_path, omitted):
    settings, rows = grid_content(omitted)
    folder = write_run(tmp_path, settings, rows, curve=(), seeds=1)
    maps = html.heat_maps(read(folder))
    assert maps[0]["alphas"] == ["0.5", "1"] and [name for name, _ in maps[0]["rows"]] == ["1", "4"]
    if omitted:
        assert [one["title"].split(",")[0] for one in maps] == ["omitted classes"] * 2 + ["all classes"]
        # 1, 2, 3 and 4 of ten as trained, and one more each after.
        assert [cell[0] for _, cells in maps[0]["rows"] for cell in cells] == [
            "10.00",
            "20.00",
            "30.00",
            "40.00",
        ]
        assert maps[1]["rows"][1][1][1] == ("50.00", "", 1.0) and maps[1]["plain"] == "labels: 10.00"
    else:
        # 21 to 24 of 30: a third of the way from the lowest to the highest each.
        assert [cell for _, cells in maps[0]["rows"] for cell in cells] == [
            ("70.00", "", 0.0), ("73.33", "", 0.333), ("76.67", "", 0.667), ("80.00", "", 1.0),
        ]  # fmt: skip
    assert len(maps) == (3 if omitted else 1)
    assert "Temperature × alpha" in html.render(folder, read(folder), []).decode()


def test_settings_that_make_no_grid_have_no_map(tmp_path):
    settings, rows = grid_content([])
    settings[1]["omitted"] = [1]
    folder = write_run(tmp_path, settings, rows, seeds=1)
    maps = html.heat_maps(read(folder))
    assert len(maps) == 1 and maps[0]["rows"][0][1][0][0] == "-"  # of the others, one corner is not there


def test_many_classes_show_the_confusions_that_come_most_often(tmp_path):
    right = [10] * 24 + [3]
    folder = write_run(
        tmp_path, [{"name": ALL, "omitted": []}], rows_of(ALL, 0, "none", right), seeds=1, classes=25
    )
    found = html.confusion(read(folder))
    assert found["matrices"] == [] and found["most"] == [("24", "0", ["70.0"])]
    assert "<td>24</td><td>0</td>" in html.render(folder, read(folder), []).decode()


def test_a_long_history_keeps_its_last_epoch():
    points = np.stack([np.arange(1, 2003.0)] * 4, axis=1)
    seen = html._thinned(points)
    assert len(seen) <= 502 and seen[-1, 0] == 2002 and len(html._thinned(points[:3])) == 3


# examples.npz


def test_examples_read_back_as_they_were(tmp_path):
    given = some_examples()
    examples.write(tmp_path, given)
    found = examples.read(tmp_path, 3)
    for name, value in given._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert examples.read(tmp_path / "nowhere", 3) is None


def test_pictures_are_the_images(tmp_path):
    (rescued, first), (lost, second) = misclassified.pictures(some_examples(), ["a", "b", "c"])
    assert (len(first), len(second), rescued, lost) == (2, 1, "rescued by the correction", "still wrong")
    content = base64.b64decode(first[1]["source"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(content))), some_examples().images[2, ..., 0]
    )


DAMAGE = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "no archive": lambda path: path.write_bytes(b"oops"),
    "empty": lambda path: path.write_bytes(b""),
    "pickled": lambda path: np.savez(path, **some_examples()._asdict() | {"number": np.array([{}] * 3)}),
    "a part missing": lambda path: np.savez(path, images=some_examples().images),
    "other images": lambda path: np.savez(
        path, **some_examples()._replace(images=np.zeros((3, 4)))._asdict()
    ),
    "a class too many": lambda path: np.savez(
        path, **some_examples()._replace(after=np.array([0, 1, 3], np.int32))._asdict()
    ),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_examples_are_one_line(tmp_path, damage):
    examples.write(tmp_path, some_examples())
    damage(tmp_path / examples.NAME)
    with pytest.raises(InputError, match=r"examples\.npz is damaged"):
        examples.read(tmp_path, 3)


def test_of_a_run_with_damaged_examples_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "render", lambda figure, kind="png": b"")
    folder = write_run(tmp_path, SETTINGS, toy_rows(), toy_history(), curve())
    (folder / examples.NAME).write_bytes(b"oops")
    with pytest.raises(InputError, match=r"examples\.npz is damaged"):
        report.build(folder)
    assert not (folder / "report.html").exists() and not (folder / "report.md").exists()
