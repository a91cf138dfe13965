"""A page in headless Chromium: what it writes to the console, asks the network for, and shows.

Debian's chromium and chromedriver are used; their paths are given, so that Selenium downloads nothing. Where one of
them is missing, the test is skipped with the reason.
"""

import base64
import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
)
PATIENCE = 120
"""Seconds for whatever a page does: machines are busy."""
KEYS = {
    "left": "\ue012",
    "up": "\ue013",
    "right": "\ue014",
    "down": "\ue015",
    "home": "\ue011",
    "end": "\ue010",
    "shift": "\ue008",
    "escape": "\ue00c",
    "tab": "\ue004",
    "enter": "\ue007",
    "space": " ",
}
_LOOK = """
const look = (figure) => {
  const canvases = [...figure.querySelectorAll("canvas")].filter((one) => one.width && one.height);
  const pixels = canvases.map((canvas) => {
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const numbers = new Uint32Array(context.getImageData(0, 0, copy.width, copy.height).data.buffer);
    const seen = new Set();
    let drawn = 0;
    let sum = 0;
    for (let i = 0; i < numbers.length; i++) {
      if (numbers[i] >>> 24) drawn++;
      if (seen.size < 1000 && (!i || numbers[i] !== numbers[i - 1])) seen.add(numbers[i]);
      sum = (Math.imul(sum, 31) + numbers[i]) | 0;
    }
    return [drawn, seen.size, sum];
  });
  const { kind, state, moves } = figure.dataset;
  const title = figure.querySelector("h3")?.textContent ?? kind;
  const text = figure.querySelector(".figure-body").innerText.trim();
  const marks = [...figure.querySelectorAll(".chart-marker")].map((one) => one.style.transform);
  return { kind, state, title, text, pixels, moves: moves === "yes", marks };
};
"""
_SURVEY = (
    _LOOK
    + """
const done = arguments[0];
const frame = () => new Promise(requestAnimationFrame);
(async () => {
  const looks = [];
  for (const figure of document.querySelectorAll("figure")) {
    figure.scrollIntoView({ block: "center", behavior: "instant" });
    await frame();
    for (let i = 0; i < 200 && figure.dataset.state === "waiting"; i++) await frame();
    await frame();
    await frame();
    looks.push(look(figure));
  }
  done(looks);
})();
"""
)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a figure on the page looks like."""

    title: str
    kind: str
    state: str
    """``drawn``, ``failed``, or ``waiting`` where it never came onto the screen."""
    moves: bool
    """Whether the slider moves it."""
    text: str
    pixels: list[list[int]]
    """Of each canvas: pixels that are not transparent, number of colours (to 1000), a checksum."""
    marks: list[str]
    """Where the marker of a chart stands."""

    @property
    def is_blank(self) -> bool:
        """Whether it shows nothing: no canvas with at least two colours, and no text where there is no canvas."""
        if self.pixels:
            return all(drawn == 0 or colours < 2 for drawn, colours, _ in self.pixels)
        return not self.text


class Browser:
    """A page that is open in Chromium."""

    def __init__(self, driver: Any) -> None:
        """Wraps Selenium's driver, which remains reachable as ``driver``."""
        self.driver = driver

    def open(self, path: Path | str, ready: str = "document.documentElement.dataset.state === 'ready'") -> None:
        """Opens a file, or an address, and waits until a JavaScript expression holds.

        Args:
            path: the file, or an address such as ``http://127.0.0.1:8000/``.
            ready: what is waited for.
        """
        self.driver.get(path if isinstance(path, str) else path.resolve().as_uri())
        self.wait(ready)

    def wait(self, condition: str) -> None:
        """Waits until a JavaScript expression holds."""
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05)
        waiting.until(lambda driver: driver.execute_script(f"return Boolean({condition})"), f"never came: {condition}")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def frame(self) -> None:
        """Waits until what was changed has been drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0)))"
        )

    def console(self) -> list[str]:
        """Messages of the console since it was asked last, errors of the page among them."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since it was asked last, but for ``data:``, ``blob:`` and the browser's own."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "chrome:"))]

    def resize(self, width: int, height: int = 900, scale: float = 1) -> None:
        """Gives the page a width and height in CSS pixels, those of a phone among them.

        Args:
            width: of the window.
            height: of the window.
            scale: pixels of the screen for each of them.
        """
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.frame()
        self.frame()

    def prefer(self, **features: str) -> None:
        """Sets what the reader prefers.

        Args:
            features: such as ``prefers_color_scheme="dark"`` and ``prefers_reduced_motion="reduce"``.
        """
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})
        self.frame()

    def press(self, *names: str) -> None:
        """Presses keys at the same time, such as ``"shift", "right"``: named as in ``KEYS``, or single characters."""
        from selenium.webdriver.common.action_chains import ActionChains

        keys = [KEYS.get(name, name) for name in names]
        chain = ActionChains(self.driver, duration=0)
        for key in keys:
            chain.key_down(key)
        for key in reversed(keys):
            chain.key_up(key)
        chain.perform()
        self.frame()

    def figures(self) -> list[Any]:
        """The elements of all figures, in order."""
        return self.driver.find_elements("css selector", "figure")

    def survey(self) -> list[Look]:
        """Scrolls to all figures in turn, waits until each is drawn, and tells what they look like."""
        return [Look(**seen) for seen in self.driver.execute_async_script(_SURVEY)]

    def look(self, figure: Any) -> Look:
        """What a figure looks like where it stands."""
        return Look(**self.run(f"{_LOOK} return look(arguments[0])", figure))

    def show(self, element: Any) -> None:
        """Scrolls to an element and waits until it has been drawn."""
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        self.frame()
        self.frame()

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window without its scroll bar."""
        return self.run(
            "const probe = document.body.appendChild(document.createElement('div'));"
            "Object.assign(probe.style, { position: 'fixed', left: 0, right: 0 });"
            "const width = probe.getBoundingClientRect().width;"
            "probe.remove();"
            "return document.documentElement.scrollWidth - Math.floor(width);"
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Saves what the window shows, or the whole page, as a PNG file."""
        options: dict[str, Any] = {"format": "png"}
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            options["captureBeyondViewport"] = True
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))


def _need_programs() -> tuple[str, str]:
    """The paths of Chromium and chromedriver; skips the test without them or Selenium."""
    pytest.importorskip("selenium", reason="selenium is not installed: pip install 'ctm-rl[test]'")
    chromium = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if chromium is None:
        pytest.skip("there is no chromium: apt install chromium chromium-driver")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("there is no chromedriver: apt install chromium-driver")
    return chromium, driver


@contextlib.contextmanager
def browser(flags: Sequence[str] = ()) -> Iterator[Browser]:
    """Chromium with a profile of its own.

    Args:
        flags: of its command line, beside ``FLAGS``.
    """
    chromium, chromedriver = _need_programs()
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
            options.add_argument(flag)
        driver = Chrome(options=options, service=ChromeService(executable_path=chromedriver))
        try:
            driver.set_script_timeout(PATIENCE)
            driver.set_page_load_timeout(PATIENCE)
            yield Browser(driver)
        finally:
            driver.quit()
