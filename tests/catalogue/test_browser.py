"""The site in a real browser: search, sorting, slider, copying, keyboard alone, colours, and what axe-core finds.

Skipped where no Chromium with its driver is; `apt install chromium chromium-driver` brings both.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from easyteacache.catalogue.site import Built, build, page_of
from easyteacache.registry.registry import Registry

from . import hostile

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER or not DRIVER, reason="no Chromium with its driver on this machine"),
]
# Of what axe-core finds, what keeps somebody from using a page.
SERIOUS = ("serious", "critical")
WIDE, NARROW = (1440, 1000), (390, 844)
Driver = Any


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield found
    found.quit()


@pytest.fixture
def visit(driver: Driver, bundled_site: Built) -> Iterator[Callable[..., Driver]]:
    """Open a page of the bundled site; afterwards nothing was logged and nothing asked for that lies outside the folder."""
    root = f"file://{bundled_site.folder}/"
    driver.get_log("performance")

    def open_page(path: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> Driver:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.get(root + path)
        return driver

    yield open_page
    assert [entry["message"] for entry in driver.get_log("browser")] == []
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    addresses = {one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"}
    assert {address for address in addresses if not address.startswith((root, "data:"))} == set()


def titles(driver: Driver) -> list[str]:
    return [cell.text for cell in driver.find_elements(By.CSS_SELECTOR, "table.all tbody th a")]


def column(driver: Driver, name: str) -> list[str]:
    return [cell.text for cell in driver.find_elements(By.CSS_SELECTOR, f'table.all td[data-name="{name}"]')]


def test_searching_finds_models_by_any_word(visit: Callable[..., Driver]) -> None:
    page = visit("index.html")
    box = page.find_element(By.ID, "search")
    box.send_keys("wan 14b")
    found = titles(page)
    assert "Wan2.1 T2V 14B, retention steps" in found
    assert all("wan" in title.lower() and "14b" in title.lower() for title in found)
    box.clear()
    box.send_keys("Qwen/Qwen-Image-2512")
    assert any("2512" in title for title in titles(page))
    box.clear()
    box.send_keys("no such model anywhere")
    assert titles(page) == []
    assert page.find_element(By.ID, "count").text.startswith("0 of ")


def test_filters_narrow_the_rows(visit: Callable[..., Driver]) -> None:
    page = visit("index.html")
    Select(page.find_element(By.ID, "by-method")).select_by_visible_text("magcache")
    assert all("magcache" in method for method in column(page, "Method"))
    Select(page.find_element(By.ID, "by-method")).select_by_visible_text("all")
    Select(page.find_element(By.ID, "by-evidence")).select_by_visible_text("submitted")
    assert titles(page) == ["Moving digits, the reference model"]


def test_sorting_says_which_way(visit: Callable[..., Driver]) -> None:
    page = visit("index.html")
    head = page.find_element(By.CSS_SELECTOR, 'thead button[value="speedup"]')
    head.click()
    factors = [float(text.rstrip("×")) for text in column(page, "Speed-up") if text != "–"]
    assert factors == sorted(factors, reverse=True)
    assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    head.click()
    assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    page.find_element(By.CSS_SELECTOR, '.switch button[value="records"]').click()
    assert page.find_element(By.ID, "count").text.endswith("records")


def test_the_slider_chooses_the_fastest_within_an_error(visit: Callable[..., Driver]) -> None:
    page = visit(page_of("reference/moving-digits"))
    slider = page.find_element(By.CSS_SELECTOR, ".slider input")
    said = page.find_element(By.CSS_SELECTOR, ".slider .found")
    dots = [
        (float(dot.get_attribute("data-speed")), float(dot.get_attribute("data-quality")))
        for dot in page.find_elements(By.CSS_SELECTOR, ".dot")
    ]
    limits = sorted({quality for _, quality in dots})
    for place in (0, len(limits) // 3, len(limits) - 1):
        page.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, place
        )
        fastest = max(speed for speed, quality in dots if quality <= limits[place])
        assert float(said.text.partition("×")[0]) == pytest.approx(fastest, rel=5e-3)
    slider.send_keys(Keys.HOME)
    assert slider.get_attribute("aria-valuetext")


def test_choosing_a_kind_of_runs_leaves_its_dots_alone(visit: Callable[..., Driver]) -> None:
    page = visit(page_of("reference/moving-digits"))
    choice = Select(page.find_element(By.CSS_SELECTOR, ".runs select"))
    run = choice.options[1].text
    choice.select_by_index(1)
    shown = [dot for dot in page.find_elements(By.CSS_SELECTOR, ".dot") if dot.get_attribute("hidden") is None]
    assert shown
    assert {dot.get_attribute("data-run") for dot in shown} == {run}
    assert run in page.find_element(By.CSS_SELECTOR, ".slider .found").text


@pytest.mark.parametrize("allowed", [True, False])
def test_code_is_copied_by_its_button(allowed: bool, visit: Callable[..., Driver]) -> None:
    """By the clipboard where the page may use it, else the old way."""
    page = visit(page_of("wan2.1/t2v-14b"))
    page.execute_script(
        """
        window.copied = [];
        const write = (text) => arguments[0] ? (window.copied.push(text), Promise.resolve()) : Promise.reject();
        Object.defineProperty(navigator, "clipboard", { value: { writeText: write } });
        document.execCommand = () => (window.copied.push(document.activeElement.value), true);
        """,
        allowed,
    )
    button = page.find_element(By.CSS_SELECTOR, ".code .copy")
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    page.execute_script("arguments[0].click()", button)
    deadline = time.monotonic() + 5
    while button.get_attribute("textContent") != "Copied" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert button.get_attribute("textContent") == "Copied"
    wanted = page.find_element(By.CSS_SELECTOR, ".code code").get_attribute("textContent")
    assert page.execute_script("return window.copied") == [wanted]


def test_the_keyboard_alone_goes_from_the_search_to_the_code(visit: Callable[..., Driver]) -> None:
    page = visit("index.html")

    def press(*keys: str) -> Any:
        page.switch_to.active_element.send_keys(*keys)
        return page.switch_to.active_element

    first = press(Keys.TAB)
    assert first.text == "Skip to content"
    for _ in range(20):
        if press(Keys.TAB).get_attribute("id") == "search":
            break
    press("moving digits")
    for _ in range(20):
        if press(Keys.TAB).text == "Moving digits, the reference model":
            break
    press(Keys.ENTER)
    assert page.find_element(By.TAG_NAME, "h1").text == "Moving digits, the reference model"
    for _ in range(30):
        if "dot" in (press(Keys.TAB).get_attribute("class") or ""):
            break
    dot = page.switch_to.active_element
    tip = page.find_element(By.CSS_SELECTOR, ".tip")
    assert tip.is_displayed()
    assert tip.find_elements(By.CSS_SELECTOR, ".strip") or "threshold" in tip.text
    assert press(Keys.ARROW_RIGHT) != dot
    target = (page.switch_to.active_element.get_dom_attribute("href") or "").removeprefix("#")
    press(Keys.ENTER)
    assert page.find_element(By.ID, target).get_attribute("open") is not None
    press(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_dots_of_a_chart_are_one_stop_of_the_tab_key(visit: Callable[..., Driver]) -> None:
    page = visit(page_of("reference/moving-digits"))
    stops = [dot for dot in page.find_elements(By.CSS_SELECTOR, ".dot") if dot.get_attribute("tabindex") == "0"]
    assert len(stops) == 1


def test_the_switch_overrides_the_systems_colours(visit: Callable[..., Driver]) -> None:
    page = visit("index.html", scheme="dark")
    paper = "return getComputedStyle(document.body).backgroundColor"
    dark = page.execute_script(paper)
    button = page.find_element(By.CSS_SELECTOR, ".theme")
    button.click()
    assert button.get_attribute("aria-label") == "Colours: light"
    light = page.execute_script(paper)
    assert light != dark
    button.click()
    assert page.execute_script(paper) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "phone"])
@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "wanted.html",
        "engines.html",
        "about.html",
        page_of("qwen-image"),
        page_of("qwen-image/2.1"),
    ],
)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    path: str, size: tuple[int, int], scheme: str, visit: Callable[..., Driver]
) -> None:
    axe = Path(pytest.importorskip("axe_core_python").__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page = visit(path, size, scheme)
    page.execute_script("for (const one of [...document.querySelectorAll('details')].slice(0, 12)) one.open = true")
    page.execute_script(axe)
    found = page.execute_async_script("const done = arguments[0]; axe.run().then(done, (e) => done({error: `${e}`}))")
    told = [
        (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]
    assert told == []
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.execute_script(overflow) <= 0


def test_hostile_text_runs_nothing_and_fits_a_phone(driver: Driver, tmp_path: Path) -> None:
    site = build(Registry.from_folder(hostile.folder(tmp_path / "registry")), tmp_path / "site").folder
    metrics = {"width": NARROW[0], "height": NARROW[1], "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in ("index.html", "wanted.html", page_of("hostile/model"), page_of("hostile/preset-engine")):
        driver.get(f"file://{site}/{path}")
        driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert driver.execute_script("return window.hacked === undefined")
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert driver.execute_script(overflow) <= 0, path
    driver.get(f"file://{site}/index.html")
    driver.find_element(By.ID, "search").send_keys("title <script>")
    assert hostile.MARKUP in driver.find_element(By.CSS_SELECTOR, "table.all tbody th a").text
    assert driver.get_log("browser") == []


def test_without_scripts_everything_is_there(driver: Driver, bundled_site: Built) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(f"file://{bundled_site.folder}/{page_of('reference/moving-digits')}")
        driver.find_element(By.CSS_SELECTOR, '.dot[href="#s1"]')
        assert not driver.find_element(By.CSS_SELECTOR, ".slider").is_displayed()
        driver.get(f"file://{bundled_site.folder}/index.html")
        assert len(titles(driver)) == min(bundled_site.models, 100)
        assert not driver.find_element(By.ID, "search").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
