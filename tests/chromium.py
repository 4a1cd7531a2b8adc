"""A headless Chromium, led through its debugging protocol: pages, mouse, touch and screenshots.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import shutil
import subprocess

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """A page in a browser of its own; a context manager.

    Args:
        path: The file to open.
        profile: A folder for the browser's own files.
        width, height: Of the screen, in pixels.
        touch: A telephone with a touch screen, instead of a mouse.
    """

    def __init__(self, path, profile, width=1000, height=900, touch=False):
        self.touch, self.number = touch, 0
        commands, self.to = os.pipe()
        self.answers, back = os.pipe()
        browser = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]
        browser += ["--disable-background-networking", f"--user-data-dir={profile}"]
        browser += ["--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{back}', "bash", *browser],
            pass_fds=[commands, back],
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(back)
        self.read = os.fdopen(self.answers, "rb")
        self.session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.send("Emulation.setDeviceMetricsOverride", **screen)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.send("Page.enable")
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.message("Page.loadEventFired")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.read.close()
        os.close(self.to)

    def send(self, method, **params):
        """Send a command; return its result."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.to, json.dumps(command).encode() + b"\0")
        found = self.message(self.number)
        assert "result" in found, found
        return found["result"]

    def message(self, wanted):
        """Read up to the answer of this number, or the event of this name."""
        while True:
            text = bytearray()
            while (letter := self.read.read(1)) != b"\0":
                assert letter, "the browser has ended"
                text += letter
            found = json.loads(text)
            if wanted in (found.get("id"), found.get("method")):
                return found

    def run(self, script):
        """The value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def draw(self, selector, points):
        """Draw a line through points, (x, y) from 0 to 1, of an element: by finger or mouse."""
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        left, top, width, height = self.run(f"(b => [b.left, b.top, b.width, b.height])({box})")
        places = [{"x": left + x * width, "y": top + y * height} for x, y in points]
        for i, place in enumerate(places):
            if self.touch:
                kind = "touchMove" if i else "touchStart"
                self.send("Input.dispatchTouchEvent", type=kind, touchPoints=[place])
            else:
                self._mouse("mouseMoved" if i else "mousePressed", place)
        if self.touch:
            self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        else:
            self._mouse("mouseReleased", places[-1])

    def _mouse(self, kind, place):
        event = {"type": kind, "button": "left", "buttons": 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", **event, **place)

    def screenshot(self, path):
        """Write what the screen shows to a PNG file."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
