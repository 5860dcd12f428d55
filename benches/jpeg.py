#!/usr/bin/env python3
"""What does the way from JPEG files to shards and to batches cost, beside Pillow's bare decode of the same files?

    benches/jpeg.py FOREBAY IMAGES [WORK] [--rounds 5] [--other FOREBAY]

IMAGES is a folder of JPEGs in folders of classes. Each round runs every task once, all in turn, so that a busy machine hits all of
them; a line is the median over rounds of CPU-seconds per 1000 images, with the least and the most, and of their ratio to Pillow.
`--other` measures a second build beside the first one. Needs Pillow.
"""

import argparse
import io
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import time

from PIL import Image, features

WINDOW = "[augment.random_resized_crop]\nscale = [0.08, 1.0]\n[augment.horizontal_flip]\nprobability = 0.5\n"


def cpu_of(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def pillow(files):
    start = time.process_time()
    for file in files:
        Image.open(io.BytesIO(file)).load()
    return (time.process_time() - start) / len(files) * 1000


def prepare(forebay, images, out, n, *more):
    shutil.rmtree(out, ignore_errors=True)
    options = ["--size", "256", "--fit", "crop", "--split", "none", "-q", *more]
    cpu, _ = cpu_of([forebay, "prepare", images, str(out), *options])
    return cpu / n * 1000


def bench(forebay, source, *more):
    options = ["--size", "224", "--batch-size", "64", "--split", "none", "--repetitions", "1", "--seconds", "2", "--json", *more]
    _, text = cpu_of([forebay, "bench", source, *options])
    return json.loads(text)["cpu_seconds_per_1000"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay")
    parser.add_argument("images")
    parser.add_argument("work", nargs="?", default="/tmp/forebay-jpeg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--other")
    asked = parser.parse_args()
    work = pathlib.Path(asked.work)
    work.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in pathlib.Path(asked.images).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    files, n = [path.read_bytes() for path in paths], len(paths)
    config = work / "window.toml"
    config.write_text(WINDOW)
    window = ["--config", str(config)]
    tasks = {}
    for name, forebay in [("", asked.forebay), ("other ", asked.other)]:
        if forebay is None:
            continue
        shards = [str(work / f"{name.strip()}{kind}") for kind in ("jpeg", "raw")]
        for out, kind in zip(shards, ("jpeg", "raw")):
            prepare(forebay, asked.images, out, n, "--encode", kind)
        again = str(work / "again")
        tasks[name + "prepare to 256 px, JPEG"] = lambda f=forebay: prepare(f, asked.images, again, n)
        tasks[name + "views of the files"] = lambda f=forebay: bench(f, asked.images, *window)
        tasks[name + "views of 256 px JPEG shards"] = lambda f=forebay, s=shards[0]: bench(f, s, *window)
        tasks[name + "views of 256 px raw shards"] = lambda f=forebay, s=shards[1]: bench(f, s, *window)
    bare, found = [], {name: [] for name in tasks}
    for _ in range(asked.rounds):
        bare.append(pillow(files))
        for name, task in tasks.items():
            found[name].append(task())
    print(f"{n} images, {os.cpu_count()} cores, Pillow {Image.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}")
    print(f"{'Pillow decodes':32} {statistics.median(bare):.3f} ({min(bare):.3f} to {max(bare):.3f})")
    for name, cpu in found.items():
        ratio = statistics.median(one / pillow for one, pillow in zip(cpu, bare))
        print(f"{name:32} {statistics.median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f}), {ratio:.2f} of Pillow")


if __name__ == "__main__":
    main()
