#!/usr/bin/env python3
"""Which way of treating uneven classes is best? CIFAR-10 made uneven, 100 : 1, tested on classes that are even.

    benches/long_tail.py FOREBAY TRAIN TEST [WORK] [--epochs 30] [--head-epochs 10]

TRAIN and TEST are folders with a folder of images per class. Training takes int(5000 * 0.01^(i/9)) images of class i, in
the order of their names: 12,406 in all (Cui et al., arXiv 1901.05555). Two ResNet-20 are trained on them, one with plain
cross-entropy and one with balanced softmax; then heads on the features of the first, once for each way and each of three
seeds, as in classifier retraining (Kang et al., arXiv 1910.09217). Prints both tables; intervals of the networks are over
the test images (Wilson), those of the heads over the seeds (Student's t).
"""

import argparse
import json
import shutil
import statistics
import subprocess
from pathlib import Path

SEEDS = (1, 2, 3)
# Student's t for 95 %, two-sided, two degrees of freedom.
T95 = 4.303
WAYS = {
    "cross-entropy": [],
    "class weights, inverse": ["--class-weights", "inverse"],
    "class weights, square root": ["--class-weights", "sqrt"],
    "class weights, effective": ["--class-weights", "effective"],
    "class weights, inverse, deferred": ["--class-weights", "inverse", "--defer", "0.8"],
    "label smoothing 0.1": ["--label-smoothing", "0.1"],
    "focal": ["--loss", "focal"],
    "class-balanced focal": ["--loss", "cb-focal"],
    "LDAM, deferred weights": ["--loss", "ldam"],
    "balanced softmax": ["--loss", "balanced-softmax"],
    "logit adjustment, tau 1.5": ["--loss", "logit-adjustment", "--logit-tau", "1.5"],
    "oversampled": ["--balance", "over"],
    "square root sampling": ["--balance", "sqrt"],
    "undersampled": ["--balance", "under"],
    "SMOTE": ["--balance", "smote"],
    "borderline SMOTE": ["--balance", "borderline-smote"],
    "ADASYN": ["--balance", "adasyn"],
    "SMOTE, Tomek links": ["--balance", "smote", "--clean", "tomek"],
    "SMOTE, edited neighbours": ["--balance", "smote", "--clean", "enn"],
}


def photos(train, test, folder):
    classes = sorted(path for path in train.iterdir() if path.is_dir())
    assert len(classes) == 10, f"{train} holds {len(classes)} classes, not 10"
    for index, path in enumerate(classes):
        count = int(5000 * 0.01 ** (index / 9))
        for split, files in (
            ("train", sorted(path.iterdir())[:count]),
            ("test", sorted((test / path.name).iterdir())),
        ):
            (folder / split / path.name).mkdir(parents=True)
            for file in files:
                (folder / split / path.name / file.name).symlink_to(file.resolve())


def percent(share):
    return f"{100 * share:.2f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("work", type=Path, nargs="?", default=Path("long-tail-work"))
    parser.add_argument("--epochs", default="30")
    parser.add_argument("--head-epochs", default="10")
    asked = parser.parse_args()
    source, cache = asked.work / "photos", asked.work / "features"
    if not source.exists():
        photos(asked.train, asked.test, source)

    def forebay(*line):
        line = [str(part) for part in (asked.forebay, *line, "--json", "--quiet")]
        done = subprocess.run(line, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout.decode().strip().splitlines()[-1])

    def trained(out, *options):
        """The summary of a run, which is trained where it is not there yet."""
        if not (out / "summary.json").exists():
            shutil.rmtree(out, ignore_errors=True)
            forebay("train", source, "--out", out, "--size", "32", "--arch", "resnet20", "--doctor", "off", *options)
        return json.loads((out / "summary.json").read_text())

    def adjusted(run):
        """What the model of a run says, as if all classes were equally likely."""
        out = asked.work / f"{run.name}-adjusted"
        if not (out / "evaluation.json").exists():
            forebay("eval", run, "--split", "test", "--prior", "uniform", "--out", out)
        return json.loads((out / "evaluation.json").read_text())["test"]

    recipe = ["--epochs", asked.epochs, "--optimizer", "sgd", "--lr", "0.1", "--weight-decay", "2e-4"]
    recipe += ["--batch-size", "128", "--augment", "light", "--warmup", "2", "--seed", "1"]
    print("| network | accuracy, % | 95 % interval | macro F1, % |\n|---|---|---|---|")
    networks = {"cross-entropy": [], "balanced softmax": ["--loss", "balanced-softmax"]}
    for name, options in networks.items():
        run = asked.work / name.replace(" ", "-")
        summary = trained(run, *recipe, *options)
        low, high = summary["accuracy_interval"]
        print(
            f"| {name} | {percent(summary['accuracy'])} | {percent(low)} to {percent(high)} | {percent(summary['macro_f1'])} |"
        )
        if not options:
            found = adjusted(run)
            accuracy, f1 = found["accuracy"], found["macro_average"]["f1"]
            print(
                f"| {name}, logits adjusted afterwards | {percent(accuracy['value'])} |"
                f" {percent(accuracy['low'])} to {percent(accuracy['high'])} | {percent(f1['value'])} |",
                flush=True,
            )
    backbone = ["--weights", asked.work / "cross-entropy" / "model.safetensors", "--freeze", "backbone"]
    backbone += ["--feature-cache", cache, "--epochs", asked.head_epochs]
    print("\n| head | seeds 1, 2, 3 | accuracy, mean, % | 95 % interval | against cross-entropy, points |")
    print("|---|---|---|---|---|")
    plain = None

    def row(name, scores):
        mean, spread = statistics.mean(scores), T95 * statistics.stdev(scores) / len(scores) ** 0.5
        gains = [100 * (score - base) for score, base in zip(scores, plain or scores)]
        gain, gain_spread = statistics.mean(gains), T95 * statistics.stdev(gains) / len(gains) ** 0.5
        against = "" if plain is None else f"{gain:+.2f} ± {gain_spread:.2f}"
        print(
            f"| {name} | {', '.join(map(percent, scores))} | {percent(mean)} | ± {percent(spread)} | {against} |", flush=True
        )

    for name, options in WAYS.items():
        runs = [asked.work / f"{name.replace(' ', '-').replace(',', '')}-head-{seed}" for seed in SEEDS]
        scores = [
            trained(run, *backbone, "--seed", seed, *options)["accuracy"] for run, seed in zip(runs, SEEDS)
        ]
        row(name, scores)
        if plain is None:
            plain = scores
            row(f"{name}, logits adjusted afterwards", [adjusted(run)["accuracy"]["value"] for run in runs])


if __name__ == "__main__":
    main()
