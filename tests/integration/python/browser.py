"""A Chromium that a test drives: one line of JSON in for each thing to do, one line out with what came of it.

Speaks the DevTools protocol over a pair of pipes (--remote-debugging-pipe): messages of JSON, each ended by a NUL.
Certificates are verified with the argument --strict only.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

PATIENCE = 30
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe""".split()

# Nothing else of the package is used (files.txt).
AXE = pathlib.Path(sysconfig.get_path("purelib"), "axe_playwright_python/axe.min.js")
# Every rule: also best practices, experiments, and those that are off by default.
CHECK = """axe.run(document, {
    rules: Object.fromEntries(axe.getRules().map(({ ruleId }) => [ruleId, { enabled: !OFF.includes(ruleId) }])),
})"""


class Browser:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="deltapush-browser-")
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        argv = ["sh", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "sh", "chromium", *FLAGS,
                f"--user-data-dir={self.folder}", "about:blank"]
        env = dict(os.environ, HOME=self.folder)
        self.process = subprocess.Popen(argv, pass_fds=(commands, answers), env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.buffer, self.number, self.session, self.complaints, self.loaded = b"", 0, None, [], False
        self.requests = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")
        # The pages of most tests have certificates of their own.
        self.call("Security.setIgnoreCertificateErrors", ignore="--strict" not in sys.argv)

    def receive(self, seconds):
        """The next message; None if none comes in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.answers], [], [], left)[0]:
                return None
            came = os.read(self.answers, 1 << 16)
            if not came:
                raise EOFError("the browser is gone")
            self.buffer += came
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            # Of a resource that is answered with an error the tests know themselves.
            if entry["level"] == "error" and entry["source"] != "network":
                self.complaints.append(entry["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif message.get("method") == "Page.loadEventFired":
            self.loaded = True
        elif message.get("method") == "Fetch.requestPaused":
            self.send("Fetch.continueRequest", requestId=message["params"]["requestId"])
        elif message.get("method") == "Fetch.authRequired":
            self.send("Fetch.continueWithAuth", requestId=message["params"]["requestId"],
                      authChallengeResponse={"response": "CancelAuth"})
        return message

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        return self.number

    def call(self, method, **params):
        number = self.send(method, **params)
        end = time.monotonic() + PATIENCE
        while True:
            answer = self.receive(end - time.monotonic())
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def html(self):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        return self.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]

    def open(self, url, width=1280, height=900, scheme="light", script=True):
        """Loads a page, as one that is so wide and is looked at by somebody who likes it light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.complaints, self.loaded = [], False
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            # The browser's own page about it comes later.
            return {"html": "", "error": error, "width": 0, "complaints": self.complaints}
        end = time.monotonic() + PATIENCE
        while not self.loaded and time.monotonic() < end:
            self.receive(end - time.monotonic())
        wide = self.call("Page.getLayoutMetrics")["cssContentSize"]["width"]
        return {"html": self.html(), "error": error, "width": wide, "complaints": self.complaints}

    def wait(self, text, seconds=PATIENCE):
        """Waits until the page as it is now has this text in it. It may be unreadable while another page is loaded."""
        end = time.monotonic() + seconds
        while True:
            try:
                html = self.html()
            except RuntimeError:
                if time.monotonic() >= end:
                    raise
                html = ""
            if text in html or time.monotonic() >= end:
                return {"html": html, "found": text in html, "complaints": self.complaints}
            self.receive(0.1)

    def shoot(self, path, height=0):
        """A picture of the whole page, or of its first so many lines of pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height or 4000), "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture))
        return {"bytes": os.path.getsize(path)}

    def run(self, script):
        """Returns a script's result, or that of its promise."""
        wanted = f"(() => {{ {script} }})()"
        came = self.call("Runtime.evaluate", expression=wanted, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in came:
            raise RuntimeError(f"{script}: {came['exceptionDetails']}")
        return {"returned": came["result"].get("value")}

    def until(self, script, seconds=PATIENCE):
        """Waits until a piece of script returns true. It may fail while another page is loaded."""
        end = time.monotonic() + seconds
        while True:
            try:
                came = self.run(script)["returned"]
            except RuntimeError:
                if time.monotonic() >= end:
                    raise
                came = False
            if came or time.monotonic() >= end:
                break
            self.receive(0.05)
        return {"came": came, "html": "" if came else self.html(), "complaints": self.complaints}

    def type(self, selector, text):
        """Types into a field, in place of what stands there."""
        self.run(f"const field = document.querySelector({json.dumps(selector)}); field.focus(); field.select()")
        self.call("Input.insertText", text=text)
        return {}

    def click(self, selector):
        """Clicks into the middle of an element, once the page is loaded and drawn, and the element no longer moves."""
        self.until("return document.readyState === 'complete'")
        place = self.run(f"""const element = document.querySelector({json.dumps(selector)}); element.scrollIntoView();
            const middle = () => {{
                const {{ x, y, width, height }} = element.getBoundingClientRect();
                return {{ x: x + width / 2, y: y + height / 2 }};
            }};
            const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)));
            const rest = async (before) => {{
                await drawn();
                const now = middle();
                return now.x === before.x && now.y === before.y ? now : rest(now);
            }};
            return rest(middle());""")["returned"]
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
        return {}

    def cancel_logins(self):
        """From now on cancels the browser's questions for a password, as a person does."""
        self.call("Fetch.enable", handleAuthRequests=True)
        return {}

    def axe(self, off=()):
        """The problems that axe-core finds in the page as it is now, and those that it cannot decide, by all rules but some."""
        frame = self.call("Page.getFrameTree")["frameTree"]["frame"]["id"]
        # The page's policy does not hold in a world of its own, and the page is not changed.
        world = self.call("Page.createIsolatedWorld", frameId=frame)["executionContextId"]

        def evaluate(script):
            came = self.call("Runtime.evaluate", expression=script, contextId=world, awaitPromise=True, returnByValue=True)
            if "exceptionDetails" in came:
                raise RuntimeError(f"axe: {came['exceptionDetails']}")
            return came["result"].get("value")

        if not AXE.exists():
            sys.exit(f"{AXE} is missing: run scripts/test once, it makes the Python environment")
        evaluate(AXE.read_text() + ";0")
        results = evaluate(CHECK.replace("OFF", json.dumps(off)))
        summary = {kind: [problem(rule, node) for rule in results[kind] for node in rule["nodes"]]
                   for kind in ("violations", "incomplete")}
        return {**summary, "passed": [rule["id"] for rule in results["passes"]]}

    def asked(self):
        """The addresses of all that went over the network, or was to, since this was last asked; and what was complained of."""
        self.run("return 0")
        asked, self.requests = [url for url in self.requests if not url.startswith(("data:", "about:", "chrome:"))], []
        return {"asked": asked, "complaints": self.complaints}

    def close(self):
        # Ended by the object, never by a name.
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def problem(rule, node):
    """A rule that an element breaks, in a line."""
    return f"{rule['id']} at {node['target']}: {' '.join(node['failureSummary'].split())} {node['html'][:200]}"


def main():
    browser = Browser()
    try:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            wanted = json.loads(line)
            done = getattr(browser, wanted.pop("do"))(**wanted)
            print(json.dumps(done), flush=True)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
