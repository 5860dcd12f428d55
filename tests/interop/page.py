"""Checks report.html as a browser would read it: well-formed, self-contained, within its budget, and without a script error.

    python tests/interop/page.py path/to/forebay

A run is trained on drawn images, and evaluated with --out. Both pages are parsed with html.parser; where Chromium is found,
they are loaded at 400 and 1400 px, in light and dark, and nothing may be wider than the window but what scrolls by itself.
"""

import html.parser
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

try:
    from PIL import Image
except ImportError as error:
    print(f"SKIPPED: page.py needs Pillow: {error}", file=sys.stderr)
    sys.exit(77)

VOID = {"meta", "input", "br", "img", "hr", "link"}


class Page(html.parser.HTMLParser):
    """Tags in order, ids, links, and what the page asks of the network."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.outside = [], set(), set(), []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            value = value or ""
            if name == "id":
                assert value not in self.ids, f"id {value} comes twice"
                self.ids.add(value)
            if name == "href" and value.startswith("#"):
                self.links.add(value[1:])
            elif name in {"href", "src", "srcset", "action", "data"} and not value.startswith("data:"):
                self.outside.append((tag, name, value))
            if name == "style" and re.search(r"url\((?!data:)", value):
                self.outside.append((tag, name, value))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]} at {self.getpos()}"
        self.open.pop()


def parsed(path, budget):
    text = path.read_text()
    assert len(text.encode()) <= budget, f"{path}: {len(text)} bytes"
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open, f"{path}: {page.open} stay open"
    assert not page.outside, f"{path}: {page.outside[:3]}"
    assert page.links <= page.ids, f"{path}: {page.links - page.ids} lead nowhere"
    rules = re.findall(r"url\((.{5})", text)
    assert all(rule == "data:" for rule in rules), f"{path}: a style asks the network"
    return text


# What is wider than the window, and does not scroll in a box of its own; errors that the script has met.
PROBE = """
<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter((item) => {
    const box = item.getBoundingClientRect();
    return box.width > 0 && box.right > innerWidth + 1 && !item.closest(".scroll, .wide, .tall, pre, svg");
  });
  const said = { width: innerWidth, page: document.documentElement.scrollWidth, errors: window.probed,
    wide: wide.slice(0, 5).map((item) => item.tagName + "." + item.className),
    scripted: document.documentElement.classList.contains("js") };
  document.title = "PROBE" + JSON.stringify(said);
  document.body.replaceChildren(document.title);
});
</script>
"""
CATCH = "<script>window.probed = []; addEventListener('error', (event) => probed.push(event.message));</script>"


def browsed(chromium, path, width, dark):
    with tempfile.TemporaryDirectory() as folder:
        probe = pathlib.Path(folder) / "probe.html"
        text = path.read_text().replace("<head>", "<head>" + CATCH, 1).replace("</body>", PROBE + "</body>", 1)
        # A window of Chromium is at least 500 px wide; a frame is as narrow as it is told.
        probe.write_text(text)
        frame = pathlib.Path(folder) / "frame.html"
        frame.write_text(
            f"<body><iframe id=f src=probe.html style='width:{width}px;height:2000px;border:0'></iframe><script>"
            "f.onload = () => setTimeout(() => document.body.append(f.contentDocument.title), 500)</script>"
        )
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--virtual-time-budget=5000",
            f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--window-size=1600,2000", "--dump-dom", f"file://{frame}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search(r"PROBE(\{.*?\})(?:<|$)", done.stdout)
        assert found, f"{path} at {width} px: no answer from the page: {done.stdout[-300:]} {done.stderr[-300:]}"
        said = json.loads(found.group(1).replace("&amp;", "&"))
        assert said["scripted"] and not said["errors"], f"{path} at {width} px: {said}"
        assert said["page"] <= said["width"] and not said["wide"], f"{path} at {width} px: {said}"


def main(forebay):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        draw = random.Random(3)
        for index in range(240):
            name = ["circle", "a very long name of a class <b>", "square", "ring & co"][index % 4]
            place = folder / "images" / name
            place.mkdir(parents=True, exist_ok=True)
            level = 60 * (index % 4) + draw.randrange(60)
            image = Image.effect_noise((40, 30), 60).convert("RGB")
            Image.blend(image, Image.new("RGB", (40, 30), (level, 255 - level, 90)), 0.4).save(place / f"{index:03}.png")
        run = lambda *words: subprocess.run([forebay, *words], cwd=folder, check=True, capture_output=True)
        run("train", "images", "--out", "run", "--size", "32", "--epochs", "3", "--batch-size", "16", "--augment", "light")
        run("eval", "run", "--split", "validation", "--out", "eval")
        run("eval", "run", "images", "--split", "train", "--out", "small", "--report-bytes", "300000")
        pages = [(folder / "run/report.html", 8 << 20), (folder / "eval/report.html", 8 << 20), (folder / "small/report.html", 300_000)]
        for path, budget in pages:
            text = parsed(path, budget)
            assert text.count("data:image/jpeg;base64,") > 10, f"{path} shows no images"
        assert (folder / "eval/fixes.csv").read_text().startswith("id,action,label,suggested,probability,margin\n")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        looks = 0
        for path, _ in pages if chromium else []:
            for width in (400, 1400):
                for dark in (False, True):
                    browsed(chromium, path, width, dark)
                    looks += 1
        seen = f", loaded {looks} times in a browser" if chromium else "; no Chromium here, so that no browser has loaded them"
        print(f"page.py: {len(pages)} pages are well-formed, self-contained and within their budget{seen}")


if __name__ == "__main__":
    main(str(pathlib.Path(sys.argv[1]).resolve()))
