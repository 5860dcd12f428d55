#!/usr/bin/env python3
"""Draws the README's pictures: the dataflow, and what a run leaves, from the files of a real run.

usage: draw.py RUN

Writes dataflow.svg and report.svg beside this file. Colors follow the reader's light or dark mode.
"""

import html
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
STYLE = """<style>
.paper { fill: #fff } .ink { fill: #1c2733 } .pale { fill: #5b6b7b } .box { fill: #eef3f8; stroke: #7b8fa3 }
.store { fill: #fdf3e1; stroke: #c8963e } .line { stroke: #7b8fa3; fill: none } .grid { stroke: #dfe5eb }
.one { stroke: #2563a8; fill: none; stroke-width: 2 } .two { stroke: #c2571a; fill: none; stroke-width: 2 }
.one-text { fill: #2563a8 } .two-text { fill: #c2571a } .bar { fill: #2563a8 }
@media (prefers-color-scheme: dark) {
.paper { fill: #11161c } .ink { fill: #e4eaf0 } .pale { fill: #9fb0c0 } .box { fill: #1d2731; stroke: #6d8296 }
.store { fill: #33290f; stroke: #c8963e } .line { stroke: #6d8296 } .grid { stroke: #2a3540 }
.one { stroke: #6fb0f0 } .two { stroke: #f0955a } .one-text { fill: #6fb0f0 } .two-text { fill: #f0955a } .bar { fill: #6fb0f0 }
}
</style>"""


def page(width, height, title, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="13">\n<title>{html.escape(title)}</title>\n{STYLE}\n'
            f'<rect class="paper" width="{width}" height="{height}" rx="6"/>\n' + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, kind="ink", anchor="start", size=13, weight=400):
    return (f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}">{html.escape(words)}</text>')


def dataflow():
    body = ['<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path class="pale" d="M0 0 8 4 0 8z"/></marker></defs>']

    def row(y, names, kinds, left, gap):
        x = left
        for index, (name, kind) in enumerate(zip(names, kinds)):
            width = 9 * len(name) + 22
            body.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="34" rx="{12 if kind == "store" else 4}"/>')
            body.append(text(x + width / 2, y + 22, name, anchor="middle"))
            if index + 1 < len(names):
                body.append(f'<path class="line" marker-end="url(#end)" d="M{x + width} {y + 17}h{gap - 2}"/>')
            x += width + gap
        return x - gap

    body.append(text(20, 30, "forebay prepare", weight=600))
    row(44, ["folder or bucket", "read", "decode", "resize", "augment", "encode", "pack", "write", "shards"],
        ["store"] + ["box"] * 7 + ["store"], 20, 16)
    body.append(text(20, 130, "forebay train", weight=600))
    end = row(144, ["shards or folder", "read", "decode", "resize", "augment", "collate", "batches", "train", "model"],
              ["store"] + ["box"] * 5 + ["store", "box", "store"], 20, 16)
    body.append(text(20, 100, "Every arrow is a bounded queue that keeps the order: what is slow holds up all before it.", "pale", size=12))
    body.append(text(20, 200, "One thread pool serves both rows, the training steps too. A file that cannot be read becomes a named reject.", "pale", size=12))
    return page(int(end) + 20, 216, "The dataflow of Forebay", body)


def curve(points, place, top):
    """The points (epoch, value) in the place (left, top, width, height), values from 0 to top."""
    left, up, width, height = place
    last = points[-1][0]
    scaled = (f"{left + width * (x - 1) / max(last - 1, 1):.1f},{up + height * (1 - min(y, top) / top):.1f}" for x, y in points)
    return " ".join(scaled)


def report(run):
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    done = json.loads((run / "summary.json").read_text())
    n_test = sum(row["support"] for row in done["classes"])
    body = [text(20, 38, f"{100 * done['accuracy']:.1f} %", size=26, weight=600),
            text(120, 38, f"of {n_test} {done['split']} images, macro F1 {done['macro_f1']:.2f}; best of {len(epochs)} epochs: {done['best_epoch']}", "pale")]
    charts = [("loss", 0.5, "train_loss", "validation_loss"), ("accuracy", 0.25, "train_accuracy", "validation_accuracy")]
    for index, (name, tick, one, two) in enumerate(charts):
        # One early outlier of the validation must not flatten the rest.
        top = 1.0 if name == "accuracy" else max(tick, sorted(e[two] for e in epochs)[-2] // tick * tick + tick)
        place = left, up, width, height = 50 + 370 * index, 82, 310, 130
        body.append(text(left, up - 12, name, weight=600))
        for step in range(int(top / tick) + 1):
            y = up + height * (1 - step * tick / top)
            if name == "accuracy" or step % max(1, int(top / tick) // 4) == 0:
                body.append(f'<path class="grid" d="M{left} {y:.1f}h{width}"/>')
                body.append(text(left - 8, y + 4, f"{step * tick * 100:.0f} %" if name == "accuracy" else f"{step * tick:g}", "pale", "end", 11))
        for kind, key in (("one", one), ("two", two)):
            body.append(f'<polyline class="{kind}" points="{curve([(e["epoch"], e[key]) for e in epochs], place, top)}"/>')
        body.append(text(left, up + height + 18, "epoch 1", "pale", size=11))
        body.append(text(left + width, up + height + 18, f"epoch {len(epochs)}", "pale", "end", 11))
    body += [text(400, 70, "train", "one-text", "end", 12), text(330, 70, "validation", "two-text", "end", 12)]
    body.append(text(20, 262, "class", "pale"))
    for x, name in ((190, "precision"), (260, "recall"), (320, "F1"), (390, "images")):
        body.append(text(x, 262, name, "pale", "end"))
    for index, row in enumerate(done["classes"]):
        y = 284 + 20 * index
        body.append(text(20, y, row["class"]))
        for x, value in ((190, f"{row['precision']:.2f}"), (260, f"{row['recall']:.2f}"), (320, f"{row['f1']:.2f}"), (390, str(row["support"]))):
            body.append(text(x, y, value, anchor="end"))
        body.append(f'<rect class="bar" x="420" y="{y - 10}" width="{300 * row["f1"]:.0f}" height="11" rx="2"/>')
    return page(760, 284 + 20 * len(done["classes"]) + 6, "What a training run reports", body)


if __name__ == "__main__":
    (HERE / "dataflow.svg").write_text(dataflow())
    (HERE / "report.svg").write_text(report(pathlib.Path(sys.argv[1])))
