"""The page of a report in a real browser: clicked through, by pointer and by keyboard alone."""

import http.server
import json
import shutil
import threading
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from fevertools import EMOTIONS, Analyzer
from fevertools.errors import UnreadableImageError
from fevertools.report import NEIGHBOURS, write_results
from fevertools.types import Expression, Face, FaceResult, ImageResult
from tests._tiny import DIMENSION, LANDMARKS

pytest.importorskip("sklearn", reason="needs the extra `report`")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine: apt-get install chromium chromium-driver", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains, ChromeOptions, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

COUNT = 40
HOSTILE = "x</script><script>alert(1)</script><img src=y onerror=alert(2)>.png"  # its slashes are folders
LABELS = ("neutral", "happiness", "anger", "fear")


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_weights):
    """A report on forty faces of four labels, one in a file of a hostile name; two files failed, one has no face."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(4)
    results = []
    for number in range(COUNT):
        path = folder / (HOSTILE if number == 0 else f"{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)).save(path)
        label = LABELS[number % len(LABELS)]
        probabilities = rng.dirichlet(np.where(np.array(EMOTIONS) == label, 30, 1))
        entropy = float(-(probabilities * np.log(probabilities)).sum())
        expression = Expression(label, dict(zip(EMOTIONS, probabilities.tolist(), strict=True)), entropy)
        embedding = 4 * np.eye(DIMENSION)[number % len(LABELS)] + rng.normal(size=DIMENSION)
        face = Face(np.array([0, 0, 48, 48], np.float32), 1.0, np.array(LANDMARKS, np.float32) * 48)
        results.append(ImageResult(path, (FaceResult(face, embedding.astype(np.float32), expression),)))
    failed = [ImageResult(name, (), UnreadableImageError(f"torn {HOSTILE}")) for name in (HOSTILE, "torn.png")]
    with Analyzer(tiny_weights) as analyzer:
        write_results(
            [*results, *failed, ImageResult("empty.png", ())], folder / "r.html", analyzer=analyzer, title=HOSTILE
        )
    return folder / "r.html"


@pytest.fixture(scope="module")
def chromium():
    driver = shutil.which("chromedriver")
    assert driver, "there is a Chromium but no chromedriver: apt-get install chromium-driver"
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium, page):
    """The page, opened anew, at 1280 x 900 in the light theme."""
    resize(chromium, 1280)
    prefer(chromium, "light")
    chromium.get_log("performance")
    chromium.get_log("browser")
    chromium.get(page.as_uri())
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    assert {url for url in requests(chromium) if not url.startswith("data:image/webp;base64,")} == {page.as_uri()}


def requests(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def resize(browser, width, height=900):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(browser, scheme):
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    # The page is told of it when it is drawn next, before the callbacks of that frame.
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def find_all(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def focus(browser):
    return browser.switch_to.active_element


def lines(browser, selector):
    return [element.text for element in find_all(browser, selector)]


def facts_of(browser):
    return json.loads(find(browser, "#data").get_attribute("textContent"))


def clear_point(browser):
    """A point of the map with no other near it, so that a pointer means this one."""
    places = np.array([face["place"] for face in facts_of(browser)["faces"]])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(len(places))
    return int(distances.min(axis=1).argmax())


def test_pointing_at_a_face_shows_it(browser):
    number = clear_point(browser)
    face = facts_of(browser)["faces"][number]
    assert not find(browser, "#tip").is_displayed()
    ActionChains(browser).move_to_element(find_all(browser, ".point")[number]).perform()
    assert find(browser, "#tip").is_displayed()
    assert find(browser, "#tip img").get_attribute("src") == face["picture"]
    assert browser.execute_script("return document.querySelector('#tip img').naturalWidth") == 64
    assert EMOTIONS[face["label"]] in find(browser, "#tip").text
    press(browser, Keys.ESCAPE)
    assert not find(browser, "#tip").is_displayed()


def test_a_click_chooses_a_face_and_shows_its_neighbours(browser):
    number = clear_point(browser)
    face = facts_of(browser)["faces"][number]
    ActionChains(browser).click(find_all(browser, ".point")[number]).perform()
    assert f"{EMOTIONS[face['label']]}\n{100 * face['probabilities'][face['label']]:.1f} %" in lines(
        browser, "#panel tr"
    )
    near = find_all(browser, "#near button")
    assert [int(button.get_attribute("data-face")) for button in near] == [other for other, _ in face["near"]]
    assert len(near) == NEIGHBOURS
    assert [button.text for button in near] == [f"{alike:.2f}" for _, alike in face["near"]]
    assert find_all(browser, ".point")[number].get_attribute("aria-current") == "true"
    assert len(find_all(browser, ".links line")) == NEIGHBOURS
    other = face["near"][3][0]
    near[3].click()
    chosen = facts_of(browser)["faces"][other]
    assert find(browser, "#panel img").get_attribute("src") == chosen["picture"]
    assert find_all(browser, '.point[aria-current="true"]') == [find_all(browser, ".point")[other]]
    find(browser, "#close").click()
    assert find_all(browser, "#near") == []
    assert find_all(browser, "[aria-current]") == []


def test_the_filter_leaves_the_labels_that_are_pressed(browser):
    def visible():
        shown = {point.get_attribute("aria-label").split()[0] for point in find_all(browser, ".point:not(.off)")}
        assert all(not point.is_displayed() for point in find_all(browser, ".point.off"))
        return shown

    buttons = {button.text.split()[0]: button for button in find_all(browser, "#filter [aria-pressed]")}
    assert set(buttons) == visible() == set(LABELS)
    assert buttons["anger"].text == "anger 10"
    buttons["anger"].click()
    assert visible() == {"anger"}
    assert buttons["anger"].get_attribute("aria-pressed") == "true"
    assert find(browser, "#map-status").text == "10 faces of 40 on the map, those of anger."
    buttons["fear"].click()
    assert visible() == {"anger", "fear"}
    buttons["anger"].click()
    assert visible() == {"fear"}
    assert find(browser, '.point[tabindex="0"]').get_attribute("aria-label").startswith("fear")
    find(browser, "#all").click()
    assert visible() == set(LABELS)


def test_every_face_of_the_map_is_reached_by_keyboard(browser):
    find(browser, "#all").click()
    press(browser, Keys.TAB)
    points = find_all(browser, ".point")
    assert focus(browser) == points[0]
    assert len(find_all(browser, '.point[tabindex="0"]')) == 1
    for point in points[1:]:
        press(browser, Keys.PAGE_DOWN)
        assert focus(browser) == point
    assert find(browser, "#tip").is_displayed()
    press(browser, Keys.HOME)
    assert focus(browser) == points[0]
    press(browser, Keys.END, Keys.PAGE_UP)
    assert focus(browser) == points[-2]
    places = [face["place"] for face in facts_of(browser)["faces"]]
    for key, axis, sign in (
        (Keys.ARROW_LEFT, 0, -1),
        (Keys.ARROW_RIGHT, 0, 1),
        (Keys.ARROW_UP, 1, -1),
        (Keys.ARROW_DOWN, 1, 1),
    ):
        before = int(focus(browser).get_attribute("data-face"))
        press(browser, key)
        after = int(focus(browser).get_attribute("data-face"))
        assert sign * (places[after][axis] - places[before][axis]) >= 0
        assert after != before or not any(
            sign * (place[axis] - places[before][axis]) > abs(place[1 - axis] - places[before][1 - axis])
            for place in places
        )


def test_choosing_by_keyboard_goes_to_the_neighbours_and_back(browser):
    find(browser, "#all").click()
    press(browser, Keys.TAB, Keys.PAGE_DOWN)
    point = focus(browser)
    press(browser, Keys.ENTER)
    assert focus(browser) == find(browser, "#panel-title")
    assert (
        find(browser, "#status").get_attribute("textContent").startswith(f"Chosen: {point.get_attribute('aria-label')}")
    )
    press(browser, Keys.TAB)
    assert focus(browser) == find(browser, "#close")
    press(browser, Keys.TAB)
    neighbour = focus(browser)
    assert neighbour == find(browser, "#near button")
    name = neighbour.get_attribute("aria-label").rsplit(", similarity", 1)[0]
    press(browser, Keys.ENTER)
    assert find(browser, "#status").get_attribute("textContent").startswith(f"Chosen: {name}")
    assert focus(browser) == find(browser, "#panel-title")
    press(browser, Keys.ESCAPE)
    assert focus(browser) == point
    assert find_all(browser, "#near") == []


def test_tab_reaches_every_control_and_shows_where_it_is(browser):
    find(browser, "#uncertain-list > button").click()
    wanted = browser.execute_script(
        "const all = document.querySelectorAll('button, a, summary, [tabindex=\"0\"]');"
        "return [...all].filter((element) => element.checkVisibility());"
    )
    browser.execute_script("document.querySelector('.skip').focus()")
    reached = [focus(browser)]
    for _ in wanted[1:]:
        press(browser, Keys.TAB)
        reached.append(focus(browser))
        if reached[-1].get_attribute("class").startswith("point"):
            assert find(browser, "circle.ring:last-child").get_attribute("visibility") == "visible"
        else:
            assert reached[-1].value_of_css_property("outline-style") == "solid"
    assert reached == wanted


def test_the_skip_link_skips(browser):
    press(browser, Keys.TAB)
    skip = focus(browser)
    assert skip.text == "Skip to the content"
    assert skip.rect["x"] >= 0
    press(browser, Keys.ENTER)
    assert focus(browser) == find(browser, "#content")


def test_lists(browser):
    facts = facts_of(browser)
    headings = [heading.text for heading in find_all(browser, "#typical-list h3")]
    assert headings == [f"{label} (10 faces)" for label in LABELS]
    first = [int(b.get_attribute("data-face")) for b in find_all(browser, "#typical-list .label:first-child button")]
    assert first == [*facts["most"][0], *facts["least"][0]]
    shown = [b for b in find_all(browser, "#uncertain-list li button") if b.is_displayed()]
    assert [int(button.get_attribute("data-face")) for button in shown] == facts["uncertain"][:12]
    find(browser, "#uncertain-list > button").click()
    assert len([b for b in find_all(browser, "#uncertain-list li button") if b.is_displayed()]) == COUNT
    bars = find_all(browser, "#bars rect")
    assert [bar.rect["width"] > 5 for bar in bars] == [label in LABELS for label in EMOTIONS]
    find(browser, "#distribution summary").click()
    rows = [row.text for row in find_all(browser, "#counts tbody tr")]
    assert rows[0].startswith("neutral 10 25.0 %")
    names = [cell.text for cell in find_all(browser, "#files-list th[scope=row]")]
    assert names == [HOSTILE, "torn.png", "empty.png"]
    assert "tiny, version 1" in find(browser, "#about-list").text


def test_hostile_names_are_only_text(browser):
    assert find(browser, "h1").text == browser.title == HOSTILE
    assert len(find_all(browser, "script")) == 2
    assert find_all(browser, "img[onerror]") == []
    assert HOSTILE in find_all(browser, ".point")[0].get_attribute("aria-label")
    # An alert that is open would make every command above fail.
    assert browser.execute_script("return document.querySelectorAll('bdi script, h1 *').length") == 0


def test_dark_theme_by_preference_and_by_button(browser):
    def lightness():
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(","))

    button = find(browser, "#theme")
    assert (lightness() > 600, button.get_attribute("aria-pressed")) == (True, "false")
    prefer(browser, "dark")
    assert (lightness() < 100, button.get_attribute("aria-pressed")) == (True, "true")
    button.click()
    assert (lightness() > 600, button.get_attribute("aria-pressed")) == (True, "false")
    prefer(browser, "light")
    button.click()
    assert (lightness() < 100, button.get_attribute("aria-pressed")) == (True, "true")


def test_narrow(browser):
    resize(browser, 360, 740)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    number = clear_point(browser)
    ActionChains(browser).click(find_all(browser, ".point")[number]).perform()
    panel = find(browser, "#panel").rect
    assert panel["width"] == browser.execute_script("return document.documentElement.clientWidth")
    assert panel["height"] <= 0.55 * 740
    assert len(find_all(browser, "#near button")) == NEIGHBOURS
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    find(browser, "#close").click()
    assert not find(browser, "#panel").is_displayed()


def test_nothing_moves_where_that_is_asked_for(browser):
    assert browser.execute_script("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert find(browser, "#theme").value_of_css_property("transition-duration") == "0s"


class Visits(http.server.BaseHTTPRequestHandler):
    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.path)
        self.send_response(204)
        self.end_headers()


def test_the_page_cannot_reach_the_network(chromium, page):
    """Even a script that ran in it could send nothing anywhere."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Visits) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        chromium.get("about:blank")
        attempts = """
            const [address, done] = arguments;
            const image = new Image(); image.src = address + '/image'; document.body.append(image);
            const frame = document.createElement('iframe'); frame.src = address + '/frame'; document.body.append(frame);
            navigator.sendBeacon(address + '/beacon', 'x');
            fetch(address + '/fetch', {mode: 'no-cors'}).catch(() => 0).finally(() => setTimeout(done, 300));
        """
        chromium.get(page.as_uri())
        chromium.execute_async_script(attempts, address)
        assert Visits.seen == []
        # The same on a page without the policy gets through, so that the above means something.
        bare = page.with_name("bare.html")
        bare.write_text("<!doctype html><body></body>", "utf-8")
        chromium.get(bare.as_uri())
        chromium.execute_async_script(attempts, address)
        assert {"/image", "/frame", "/fetch"} <= set(Visits.seen)
        server.shutdown()
