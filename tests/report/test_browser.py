"""The page in a real browser, over the DevTools protocol; skipped where there is no Chromium."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from contextlib import ExitStack

import numpy as np
import pytest
from safetensors.numpy import save_file

from entity.report import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-port=0 --remote-allow-origins=* about:blank"
)
PATIENCE = 120
"""Seconds to wait for anything, on a machine that may be busy."""


class Browser:
    """One tab of a headless Chromium, and everything that went wrong in it."""

    def __init__(self, profile):
        client = pytest.importorskip("websockets.sync.client")
        if CHROMIUM is None:
            pytest.skip("chromium is not installed")
        self.process = subprocess.Popen(
            [CHROMIUM, f"--user-data-dir={profile}", *FLAGS.split()],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if found := re.search(r"ws://\S+", line):
                break
        self.open_files = ExitStack()
        self.open_files.enter_context(self.process.stderr)
        self.socket = self.open_files.enter_context(
            client.connect(found[0], max_size=None, proxy=None)
        )
        self.numbers = itertools.count(1)
        self.session = None
        self.errors = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE))
            self._note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(params["args"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"])

    def run(self, script):
        """Return the value of an expression of the page."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.05)

    def open(self, page, width=1200, height=900, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete' && !!window.Plotly")

    def centre(self, selector):
        """Scroll an element into view and return where its centre is."""
        box = self.run(
            f"""(() => {{
              const one = document.querySelector({json.dumps(selector)});
              one.scrollIntoView({{ block: "center", behavior: "instant" }});
              const box = one.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        return {"x": box[0], "y": box[1]}

    def click(self, selector):
        at = self.centre(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def hover(self, selector):
        at = self.centre(selector)
        for nudge in (-3, 0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=at["x"] + nudge, y=at["y"])

    def type(self, selector, text):
        self.click(selector)
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def picture(self, path, whole=True):
        """Save a screenshot, of the whole page with every figure drawn."""
        if whole:
            height = self.run("document.documentElement.scrollHeight")
            width = self.run("innerWidth")
            self.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=False,
            )
            time.sleep(2)
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.open_files.close()


@pytest.fixture
def browser(tmp_path):
    one = Browser(tmp_path / "profile")
    yield one
    one.close()


@pytest.fixture
def grid(make_recorded, monkeypatch):
    """Sixty recorded runs: 5 defenses, 2 data poisoning rates, 2 numbers of attackers, 3 seeds."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    return [
        make_recorded(f"{defense}-{dpr}-{bad}-{seed}", defense, dpr=dpr, malicious=bad, seed=seed)
        for defense, dpr, bad, seed in itertools.product(
            ("undefended", "flame", "krum", "droplet", "drop"), (0.1, 0.5), (2, 4), (1, 2, 3)
        )
    ]


ROWS = "[...document.querySelectorAll('.results tbody tr')].filter((row) => !row.hidden)"
COLUMN = (
    f"{ROWS}.map((row) => row.cells[[...document.querySelectorAll('.results thead th')]"
    ".findIndex((head) => head.dataset.key === 'asr')].dataset.value)"
)


@pytest.mark.slow
def test_sixty_runs_open_sort_filter_hover_and_change_colours(grid, browser, tmp_path, capsys):
    page = write_page(grid, tmp_path / "page.html")
    assert page.stat().st_size < 5_000_000
    began = time.monotonic()
    browser.open(page)
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n60 runs: {page.stat().st_size / 1e6:.2f} MB, open in {seconds:.2f} s")

    assert len(browser.run(COLUMN)) == 60
    browser.click(".results th[data-key=asr] button")
    rising = [float(value) for value in browser.run(COLUMN)]
    assert rising == sorted(rising)
    browser.click(".results th[data-key=asr] button")
    assert [float(value) for value in browser.run(COLUMN)] == rising[::-1]

    browser.type("#filter", "krum seed2")
    kept = browser.run(f"{ROWS}.map((row) => row.textContent)")
    assert len(kept) == 4  # two rates by two numbers of attackers
    assert all("krum" in text.lower() and "seed2" in text for text in kept)
    assert browser.run("document.querySelector('#filtered').textContent") == "4 of 60 runs"
    maps = "[...document.querySelectorAll('.map')].filter((one) => !one.hidden).length"
    assert browser.run(maps) == 4
    browser.type("#filter", "asr<10")
    assert [float(one) for one in browser.run(COLUMN)] == [v for v in rising[::-1] if v < 0.1]
    first = COLUMN.replace(".dataset.value)", ")[0]").replace(ROWS, f"{ROWS}.slice(0, 1)")
    browser.run(f"{first}.dataset.value = '0.07'")  # 100 times that is above 7 in binary
    browser.type("#filter", "asr<=7")
    assert "0.07" in browser.run(COLUMN)
    browser.type("#filter", "no such run")
    assert browser.run(f"{ROWS}.length") == 0
    browser.run("document.querySelector('#filter').select()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Delete", code="Delete",
                 windowsVirtualKeyCode=46)  # fmt: skip
    assert browser.run(f"{ROWS}.length") == 60

    browser.centre("#heat-0")
    browser.until("!!document.querySelector('#heat-0 .main-svg')")
    browser.hover("#heat-0 .nsewdrag")
    browser.until("!!document.querySelector('#heat-0 .hoverlayer .hovertext')")
    shown = browser.run("document.querySelector('#heat-0 .hoverlayer').textContent")
    assert re.search(r"ASR \d+\.\d.*MTA \d+\.\d.*n = 3", shown)

    colours = (
        "[getComputedStyle(document.body).backgroundColor, "
        "document.querySelector('#heat-0 .xtitle').style.fill]"
    )
    light = browser.run(colours)
    browser.click("#theme")
    browser.until(f"{colours}[1] !== {json.dumps(light[1])}")
    assert browser.run(colours)[0] != light[0]
    assert browser.errors == []


@pytest.mark.slow
def test_the_round_of_a_tree_can_be_chosen(make_recorded, browser, tmp_path):
    page = write_page([make_recorded("a", "droplet", rounds=5)], tmp_path / "page.html")
    browser.open(page)
    browser.centre("#tree-0")
    browser.until("!!document.querySelector('#tree-0 .main-svg')")
    label = "document.querySelector('#tree-0').getAttribute('aria-label')"
    branches = "document.querySelector('#tree-0').data[0].y"
    last, drawn = browser.run(label), browser.run(branches)
    assert "round 5" in last
    browser.run("document.querySelector('[data-tree]').focus()")
    for _ in range(2):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft",
                         windowsVirtualKeyCode=37)  # fmt: skip
    assert "round 3" in browser.run(label)
    assert browser.run("document.querySelector('.chooser output').textContent") == "round 3"
    assert browser.run(branches) != drawn
    assert browser.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(make_recorded, browser, tmp_path, dark):
    runs = [
        make_recorded(f"{defense}{seed}", defense, seed=seed, rounds=12, window=(2, 6))
        for defense in ("undefended", "drop")
        for seed in (1, 2)
    ]
    for shade, run in enumerate(runs[:2]):
        write_example(run, shade)
    browser.open(write_page(runs, tmp_path / "page.html"), width=390, height=844, dark=dark)
    for section in ("#curves", "#durability", "#roc", "#tree-2", "#phases"):
        browser.centre(section)
        browser.until(f"!!document.querySelector('{section} .main-svg')")
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.errors == []


SHEET = 688
"""CSS pixels of an A4 sheet between the margins of the style."""
BESIDE_THE_SHEET = f"""
[...document.querySelectorAll("body *")].filter((one) => {{
  const box = one.getBoundingClientRect();
  return box.width && getComputedStyle(one).visibility === "visible" && box.right > {SHEET + 1}
    && !one.closest(".skip, .hoverlayer, .draglayer");
}}).map((one) => `${{one.tagName}} ${{one.className.baseVal ?? one.className}}`)
"""
SCROLLING = """
[...document.querySelectorAll("body *")].filter((one) => one.clientWidth && !one.closest("svg"))
  .filter((one) => /auto|scroll/.test(getComputedStyle(one).overflow))
  .map((one) => `${one.tagName} ${one.className}`)
"""
PALE = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const said = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    if (!said(one) || !one.getClientRects().length || one.closest(".cell, script")) continue;
    const style = getComputedStyle(one);
    const colour = one.closest("svg.main-svg") ? style.fill : style.color;
    if (1.05 / (light(colour) + 0.05) < 4) found.push(`${one.textContent} ${colour}`);
  }
  return found;
})()
"""
"""What is written in a colour that hardly stands out from white."""
NARROW = """
[...document.querySelectorAll("tbody th")].filter((one) => one.clientWidth)
  .filter((one) => one.clientHeight > 4 * parseFloat(getComputedStyle(one).lineHeight))
  .map((one) => one.textContent)
"""
"""Names that are broken into more than four lines."""


def write_example(run, shade):
    """Write an image, and the same one triggered, of classes with long names."""
    images = np.full((1, 1, 8, 8), 60 * shade, np.uint8)
    scores = np.full((1, 10), 0.1, np.float32)
    content = {"clean": images, "triggered": 255 - images, "labels": np.array([0])}
    content |= {"clean_scores": scores, "triggered_scores": scores}
    said = {"target": 7, "classes": [f"a class whose name is long {n}" for n in range(10)]}
    (run / "artifacts").mkdir(exist_ok=True)
    file = run / "artifacts" / "example.safetensors"
    save_file(content, file, {"example": json.dumps(said)})


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_on_paper_all_is_dark_on_white_and_inside_the_sheet(make_recorded, browser, tmp_path, dark):
    runs = [
        make_recorded(f"{defense}{seed}", defense, seed=seed, dpr=1.0, window=(2, 9))
        for defense in ("undefended", "krum", "droplet", "drop")
        for seed in (1, 2)
    ]
    for shade, run in enumerate(runs[:2]):  # two triggers, so two cards beside each other
        write_example(run, shade)
    browser.open(write_page(runs, tmp_path / "page.html"), dark=dark)
    state = (
        "[document.documentElement.dataset.theme, document.querySelector('#curves').style.height]"
    )
    screen = browser.run(state)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[scheme])
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=SHEET,
        height=970,
        deviceScaleFactor=1,
        mobile=False,
    )
    shown = "[...document.querySelectorAll('.plot')].filter((one) => one.clientWidth)"
    drawn = browser.run(f"{shown}.map((one) => one.querySelector('.main-svg') ? one.id : '')")
    assert {"curves", "durability", "ranks-worst_asr", "pareto-lost", "roc", "phases"} <= {*drawn}
    assert "" not in drawn
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("document.documentElement.scrollWidth") <= SHEET
    assert browser.run(BESIDE_THE_SHEET) == []
    assert browser.run(SCROLLING) == []
    assert browser.run(PALE) == []
    assert browser.run(NARROW) == []
    assert browser.run("document.querySelectorAll('.legend button').length") == 4
    assert browser.run("document.querySelector('.legend').clientHeight") > 0
    heads = "[...document.querySelectorAll('thead button')].map((one) => one.offsetWidth)"
    assert {*browser.run(heads)} == {0}  # Chromium repeats no heads that have boxes of buttons
    for screens_own in ("#theme", "nav", ".filter"):
        assert browser.run(f"document.querySelector('{screens_own}').clientHeight") == 0
    browser.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(state) == screen
    assert browser.errors == []
