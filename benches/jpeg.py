#!/usr/bin/env python3
"""What does the way from JPEG files to shards and to batches cost, beside Pillow's bare decode of the same files?

    benches/jpeg.py FOREBAY IMAGES [WORK] [--rounds 5] [--other FOREBAY] [--small FOLDER] [--large FOLDER] [--levels]

IMAGES is a folder of JPEGs in folders of classes, and so is `--small` with images of 32 pixels, as CIFAR's. Batches are of normalised
f32, 64 images of 224 pixels, of small ones 512. Each round runs every task once, all in turn, so that a busy machine hits all of
them; a line is the median over rounds of CPU-seconds per 1000 images, with the least and the most, and of their ratio to Pillow.
`--other` measures a second build beside the first one. `--large` adds photographs of many megapixels that become batches of 256
pixels, beside Pillow (or Pillow-SIMD, whichever this Python has), which decodes them at a half, a quarter or an eighth of their size
by `draft`. `--levels` compares scaled decoding with exact decoding instead, at several sizes, with each filter and each way to fit.
Needs Pillow, and for `--levels` pyarrow and numpy.
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

FLIP = "[augment.horizontal_flip]\nprobability = 0.5\n"
WINDOW = "[augment.random_resized_crop]\nscale = [0.08, 1.0]\n" + FLIP
CROP = "[augment.random_crop]\nside = 224\n" + FLIP
PADDED = "[augment.random_crop]\nside = 32\npad = 4\n" + FLIP


def cpu_of(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def jpegs(folder):
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return [path.read_bytes() for path in paths]


def pillow(files):
    start = time.process_time()
    for file in files:
        Image.open(io.BytesIO(file)).load()
    return (time.process_time() - start) / len(files) * 1000


def drafts(files, gap, size=256):
    """Pillow at `gap` times the pixels that are wanted, to the middle of the image."""
    start = time.process_time()
    for file in files:
        image = Image.open(io.BytesIO(file))
        shorter = min(image.size)
        wanted = tuple(size * side // shorter for side in image.size)
        image.draft("RGB", tuple(gap * side for side in wanted))
        image = image.resize(wanted, Image.BILINEAR)
        left, top = (round((side - size) / 2) for side in wanted)
        image.crop((left, top, left + size, top + size)).load()
    return (time.process_time() - start) / len(files) * 1000


def levels(forebay, images, work):
    """How far scaled decoding is from exact decoding, of the images that it changes."""
    import numpy
    from pyarrow import parquet

    def decoded(scale, size, fit, by):
        out = work / scale
        shutil.rmtree(out, ignore_errors=True)
        options = ["--size", str(size), "--fit", fit, "--filter", by, "--decode", scale, "--encode", "raw"]
        cpu_of([forebay, "prepare", images, str(out), *options, "--split", "none", "-q"])
        rows = [row for path in (out / "data").iterdir() for row in parquet.read_table(path).to_pylist()]
        return {row["id"]: Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows}

    for size in (32, 48, 56, 63, 64, 72, 80, 96, 112, 128):
        counts, means, worst_means, worst = [], [], [], []
        for fit in ("shortest", "crop", "pad", "squash"):
            for by in ("bilinear", "bicubic", "lanczos3"):
                exact, scaled = (decoded(scale, size, fit, by) for scale in ("exact", "scaled"))
                apart = [numpy.abs(numpy.int16(exact[id]) - numpy.int16(scaled[id])) for id in exact]
                apart = [one for one in apart if one.any()] or [numpy.zeros(1)]
                counts.append(len(apart))
                means.append(statistics.mean(one.mean() for one in apart))
                worst_means.append(max(one.mean() for one in apart))
                worst.append(max(one.max() for one in apart))
        print(
            f"{size:4} px: {min(counts)} to {max(counts)} images, mean {min(means):.2f} to {max(means):.2f}, "
            f"worst mean {max(worst_means):.2f}, worst level {max(worst)}",
            flush=True,
        )


def prepare(forebay, images, out, n, *more, size=256):
    shutil.rmtree(out, ignore_errors=True)
    options = ["--size", str(size), "--fit", "crop", "--split", "none", "-q", *more]
    cpu, _ = cpu_of([forebay, "prepare", images, str(out), *options])
    return cpu / n * 1000


def bench(forebay, source, config, *more, size=224, batch=64):
    options = ["--size", str(size), "--batch-size", str(batch), "--split", "none", "--repetitions", "1", "--seconds", "2"]
    _, text = cpu_of([forebay, "bench", source, *options, "--config", str(config), "--dtype", "f32", "--json", *more])
    found = json.loads(text)
    return found["cpu_seconds_per_1000"], found["peak_memory_bytes"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay")
    parser.add_argument("images")
    parser.add_argument("work", nargs="?", default="/tmp/forebay-jpeg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--other")
    parser.add_argument("--small")
    parser.add_argument("--large")
    parser.add_argument("--levels", action="store_true")
    asked = parser.parse_args()
    work = pathlib.Path(asked.work)
    work.mkdir(parents=True, exist_ok=True)
    if asked.levels:
        return levels(asked.forebay, asked.images, work)
    files = jpegs(asked.images)
    n = len(files)
    for name, text in [("window", WINDOW), ("crop", CROP), ("padded", PADDED)]:
        (work / f"{name}.toml").write_text(text)
    window, crop, padded = (work / f"{name}.toml" for name in ("window", "crop", "padded"))
    margin = ["--crop-pct", "0.875"]
    tasks = {}
    for name, forebay in [("", asked.forebay), ("other ", asked.other)]:
        if forebay is None:
            continue
        shards = [str(work / f"{name.strip()}{kind}") for kind in ("jpeg", "raw")]
        for out, kind in zip(shards, ("jpeg", "raw")):
            prepare(forebay, asked.images, out, n, "--encode", kind)
        again = str(work / "again")
        tasks[name + "prepare to 256 px, JPEG"] = lambda f=forebay: (prepare(f, asked.images, again, n), None)
        tasks[name + "windows of the files"] = lambda f=forebay: bench(f, asked.images, window)
        for kind, of in zip(("JPEG", "raw"), shards):
            tasks[name + f"crops of 256 px {kind} shards"] = lambda f=forebay, s=of: bench(f, s, crop, *margin)
            tasks[name + f"windows of 256 px {kind} shards"] = lambda f=forebay, s=of: bench(f, s, window)
        if asked.small:
            small = str(work / f"{name.strip()}small")
            prepare(forebay, asked.small, small, n, "--encode", "raw", size=32)
            tasks[name + "small raw images"] = lambda f=forebay, s=small: bench(f, s, padded, size=32, batch=512)
        if asked.large:
            plain = work / "plain.toml"
            plain.write_text("")
            tasks[name + "large photographs"] = lambda f=forebay: bench(f, asked.large, plain, "--fit", "crop", size=256, batch=16)
    if asked.large:
        large = jpegs(asked.large)
        for gap in (4, 2):
            tasks[f"large, draft at {gap} times the pixels"] = lambda gap=gap: (drafts(large, gap), None)
    bare, found, peaks = [], {name: [] for name in tasks}, {}
    for _ in range(asked.rounds):
        bare.append(pillow(files))
        for name, task in tasks.items():
            cpu, peaks[name] = task()
            found[name].append(cpu)
    print(f"{n} images, {os.cpu_count()} cores, Pillow {Image.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}")
    print(f"{'Pillow decodes':34} {statistics.median(bare):.3f} ({min(bare):.3f} to {max(bare):.3f})")
    for name, cpu in found.items():
        ratio = statistics.median(one / pillow for one, pillow in zip(cpu, bare))
        peak = "" if peaks[name] is None else f", peak {peaks[name] >> 20} MiB"
        spread = f"{statistics.median(cpu):.4f} ({min(cpu):.4f} to {max(cpu):.4f})"
        of = "" if "large" in name else f", {ratio:.4f} of Pillow"
        print(f"{name:34} {spread}{of}{peak}")


if __name__ == "__main__":
    main()
