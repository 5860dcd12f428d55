"""Class names that mean something to HTML, YAML, SVG and terminals come out of the files as the text that they are.

Usage: escapes.py FOREBAY
"""

import html.parser
import pathlib
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import zlib

import yaml

FOLDERS = [
    "<script>alert(1)<", "a|b", "](x) `code`", "\x1b[2J", "a\u202eb", "a\u0085b", "\U0001f600", "two\nlines", "# x",
    '- "x"', "&amp;", "yes",
]
# What does not print is escaped in the name of the class itself.
NAMES = sorted(
    (
        name.replace("\x1b", r"\u{1b}").replace("\u202e", r"\u{202e}").replace("\u0085", r"\u{85}").replace("\n", r"\n")
        for name in FOLDERS
    ),
    key=lambda name: name.encode(),
)


def png(side, value):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((value + x + y) % 256 for x in range(3 * side)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Cells(html.parser.HTMLParser):
    """The text of every cell, and what scripts say."""

    def __init__(self):
        super().__init__()
        self.cells, self.scripts, self.is_cell, self.is_script = [], [], False, False

    def handle_starttag(self, tag, attributes):
        self.is_cell, self.is_script = tag in ("td", "th"), tag == "script"
        if self.is_cell:
            self.cells.append("")

    def handle_endtag(self, tag):
        self.is_cell = self.is_script = False

    def handle_data(self, data):
        if self.is_cell:
            self.cells[-1] += data
        if self.is_script:
            self.scripts.append(data)


def check(forebay):
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        for index, name in enumerate(FOLDERS):
            (place / "in" / name).mkdir(parents=True)
            for image in range(4):
                (place / "in" / name / f"{image}.png").write_bytes(png(16, 40 * index + image))
        run, shards = place / "run", place / "shards"
        subprocess.run([forebay, "prepare", place / "in", shards, "--size", "16"], stdout=subprocess.PIPE, check=True)
        subprocess.run(
            [forebay, "train", shards, "--out", run, "--batch-size", "8", "--epochs", "1"],
            stdout=subprocess.PIPE, check=True,
        )
        card = (shards / "README.md").read_text().split("---\n")[1]
        features = yaml.safe_load(card)["dataset_info"]["features"]
        label = next(feature for feature in features if feature["name"] == "label")
        names = [label["dtype"]["class_label"]["names"][str(index)] for index in range(len(NAMES))]
        assert names == NAMES, names
        assert (run / "labels.txt").read_text().split("\n") == NAMES + [""], "a class a line"
        page = Cells()
        page.feed((run / "report.html").read_text())
        assert len(page.scripts) == 1 and "alert" not in page.scripts[0], page.scripts
        assert set(NAMES) <= set(page.cells), set(NAMES) - set(page.cells)
        for name in ("loss", "accuracy", "learning_rate"):
            xml.etree.ElementTree.parse(run / f"{name}.svg")
        print(f"{len(NAMES)} class names: YAML, HTML, SVG and labels.txt give them back as text")


if __name__ == "__main__":
    check(sys.argv[1])
