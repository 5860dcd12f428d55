#!/usr/bin/env python3
"""Does transfer help? CIFAR-10 in two halves: a network learns five classes, then the other five from 100 images each.

    benches/transfer.py FOREBAY CIFAR [WORK] [--epochs-pre N] [--epochs N] [--arch resnet20]

CIFAR is a folder with a folder of images per class. Pretraining sees every image of the first five classes; each of
three seeds then draws 100 training and 100 validation images of the other five, and is tested on 1000 that nothing
trained on: once from the pretrained weights by the default recipe, once from scratch with the same epochs. Prints a
table with 95 % intervals of the mean (Student's t).
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
from pathlib import Path

SEEDS = (1, 2, 3)
# Student's t for 95 %, two-sided, two degrees of freedom.
T95 = 4.303


def link(files, folder):
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file.resolve())


def halves(cifar):
    classes = sorted(path for path in cifar.iterdir() if path.is_dir())
    assert len(classes) == 10, f"{cifar} holds {len(classes)} classes, not 10"
    return classes[:5], classes[5:]


def pretraining_folder(classes, folder):
    for path in classes:
        files = sorted(path.iterdir())
        link(files[:-250], folder / "train" / path.name)
        link(files[-250:], folder / "validation" / path.name)


def fine_tuning_folder(classes, folder, seed):
    for path in classes:
        files = sorted(path.iterdir())
        held, rest = files[-1000:], files[:-1000]
        drawn = random.Random(f"{seed} {path.name}").sample(rest, 200)
        link(drawn[:100], folder / "train" / path.name)
        link(drawn[100:], folder / "validation" / path.name)
        link(held, folder / "test" / path.name)


def train(forebay, source, out, *options):
    command = [forebay, "train", source, "--out", out, "--size", "32", "--overwrite", *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "summary.json").read_text())["accuracy"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay", type=Path)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("work", type=Path, nargs="?", default=Path("transfer"))
    parser.add_argument("--epochs-pre", default="4")
    parser.add_argument("--epochs", default="20")
    parser.add_argument("--arch", default="resnet20")
    options = parser.parse_args()
    work = options.work
    first, second = halves(options.cifar)
    shutil.rmtree(work, ignore_errors=True)
    pretraining_folder(first, work / "pre")
    common = ["--arch", options.arch, "--augment", "light"]
    accuracy = train(options.forebay, work / "pre", work / "run-pre", *common, "--epochs", options.epochs_pre,
                     "--batch-size", "64", "--optimizer", "sgd", "--lr", "0.1")
    print(f"pretrained on {', '.join(path.name for path in first)}: {accuracy:.4f} on their validation images", flush=True)
    tuning = [*common, "--epochs", options.epochs, "--batch-size", "32"]
    results = {"fine-tuned": [], "from scratch": []}
    for seed in SEEDS:
        folder = work / f"fine-{seed}"
        fine_tuning_folder(second, folder, seed)
        of_seed = [*tuning, "--seed", str(seed)]
        weights = ["--weights", work / "run-pre" / "model.safetensors"]
        results["fine-tuned"].append(train(options.forebay, folder, work / f"tuned-{seed}", *of_seed, *weights))
        results["from scratch"].append(train(options.forebay, folder, work / f"scratch-{seed}", *of_seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in results.items()), flush=True)
    print(f"\n| 100 images of each of {', '.join(path.name for path in second)} | accuracy on 5000 | 95 % interval |")
    print("|---|---|---|")
    for name, values in results.items():
        half = T95 * statistics.stdev(values) / len(values) ** 0.5
        print(f"| {name} | {statistics.mean(values):.4f} | ± {half:.4f} |")
    gains = [tuned - scratch for tuned, scratch in zip(*results.values())]
    half = T95 * statistics.stdev(gains) / len(gains) ** 0.5
    print(f"| gain, seed by seed | {statistics.mean(gains):+.4f} | ± {half:.4f} |")


if __name__ == "__main__":
    main()
