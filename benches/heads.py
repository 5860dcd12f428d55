#!/usr/bin/env python3
"""What does work on the outputs of frozen layers cost? Beside scikit-learn's logistic regression on the same features.

    benches/heads.py FOREBAY IMAGES [WORK] [--arch resnet18] [--weights FILE] [--size 32]

IMAGES is a folder with a folder of 2,700 images or more for each of ten classes. An even set has 800 of each class to
train and 200 to validate, an uneven one 2,500 down to 250 to train, 10,000 in all. Prints a table of processor time (user
and system, of all threads) and time of the clock. scikit-learn is skipped where this Python has none.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

TRIALS = 100
EPOCHS = 10
SPACE = (
    "train.learning_rate=1e-4..1e-1,log",
    "train.weight_decay=1e-6..1e-1,log",
    "train.label_smoothing=0..0.2",
    "train.dropout=0..0.5",
    "train.batch_size=32,64,128",
    "train.head_width=unset,64,128,256",
    "train.head_activation=relu,gelu,silu",
)


def photos(images, folder, counts):
    """The first so many images of each class to train, the last 200 to validate."""
    classes = sorted(path for path in images.iterdir() if path.is_dir())
    for path, count in zip(classes, counts, strict=True):
        files = sorted(path.iterdir())
        for split, part in (("train", files[:count]), ("validation", files[-200:])):
            (folder / split / path.name).mkdir(parents=True)
            for file in part:
                (folder / split / path.name / file.name).symlink_to(file.resolve())


def timed(work, name):
    """Runs `work`; its result, and a row of the table."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    result = work()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    print(f"| {name} | {user + system:.1f} | {wall:.1f} |", flush=True)
    return result


def features(cache):
    """The rows of the feature cache: ids, labels and values, split by split."""
    import numpy

    splits = {}
    for record in sorted(cache.rglob("*.json")):
        rows = [row for group in json.loads(record.read_text())["groups"] for row in group["rows"]]
        rows = [row for row in rows if row["fault"] is None]
        data = record.with_suffix(".safetensors").read_bytes()
        values = numpy.frombuffer(data[8 + int.from_bytes(data[:8], "little") :], "<f4").reshape(len(rows), -1)
        split = rows[0]["id"].split("/")[0]
        labels = numpy.array([row["label"] for row in rows])
        splits.setdefault(split, []).append((values, labels))
    return {
        split: tuple(numpy.concatenate([part[side] for part in parts]) for side in (0, 1))
        for split, parts in splits.items()
    }


def logistic_regression(cache):
    """Accuracy on the validation features of the fit by L-BFGS, with scikit-learn's defaults and standardised features."""
    try:
        import numpy
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        print(f"scikit-learn is skipped: {error}")
        return

    splits = features(cache)
    (x, y), (x_val, y_val) = splits["train"], splits["validation"]
    for c in (1.0, 0.01):
        start, cpu = time.monotonic(), time.process_time()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(x, y)
        wall, cpu = time.monotonic() - start, time.process_time() - cpu
        accuracy = numpy.mean(model.predict(x_val) == y_val)
        print(
            f"| scikit-learn LogisticRegression, C={c:g}, {x.shape[0]} x {x.shape[1]}: {accuracy:.4f} | {cpu:.1f} | {wall:.1f} |"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path, nargs="?", default=Path("heads-work"))
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights")
    parser.add_argument("--size", default="32")
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    even, uneven, cache = (asked.work / name for name in ("even", "uneven", "features"))
    photos(asked.images, even, [800] * 10)
    photos(asked.images, uneven, [int(2500 * 0.1 ** (index / 9)) for index in range(10)])
    network = ["--arch", asked.arch, "--freeze", "backbone", "--size", asked.size]
    network += ["--weights", asked.weights] if asked.weights else []

    def forebay(command, source, *options):
        out = asked.work / f"{command}-{len(os.listdir(asked.work))}"
        line = [asked.forebay, command, source, "--feature-cache", cache, *network]
        line += [] if command == "advise" else ["--out", out]
        done = subprocess.run(
            [str(part) for part in [*line, *options, "--json"]], check=True, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads(done.stdout.decode().strip().splitlines()[-1]), out

    epochs = ["--epochs", str(EPOCHS), "--doctor", "off"]
    print("| work | processor s | clock s |\n|---|---|---|")
    timed(lambda: forebay("train", even, *epochs), f"`train`, {EPOCHS} epochs: the frozen part sees 10,000 images")
    (_, run) = timed(
        lambda: forebay("train", even, *epochs), "`train` again: the head alone, with evaluation and report"
    )
    # Before folds keep features of their own.
    logistic_regression(cache)
    search = ["--trials", str(TRIALS), *epochs, *(part for axis in SPACE for part in ("--space", axis))]
    tuned = {}
    for method in ("tpe", "gp"):
        tuned[method], _ = timed(
            lambda: forebay("tune", even, *search, "--search", method), f"`tune`, {TRIALS} trials, {method}"
        )
    timed(
        lambda: forebay("tune", even, *search, "--prune", "hyperband"),
        f"`tune`, {TRIALS} trials, tpe with Hyperband",
    )
    timed(lambda: forebay("train", even, *epochs, "--folds", "5"), "`train --folds 5`")
    timed(lambda: forebay("train", uneven, *epochs), "`train`, uneven: the frozen part sees 12,000 images")
    timed(lambda: forebay("train", uneven, *epochs), "`train` again, uneven: 10,000 rows")
    for mode in ("smote", "borderline-smote", "adasyn"):
        timed(lambda: forebay("train", uneven, *epochs, "--balance", mode), f"`train --balance {mode}`, uneven")
    for clean in ("tomek", "enn"):
        timed(
            lambda: forebay("train", uneven, *epochs, "--balance", "smote", "--clean", clean),
            f"`train --balance smote --clean {clean}`, uneven",
        )
    timed(lambda: forebay("advise", uneven, "--epochs", str(EPOCHS)), "`advise`, uneven: 12 ways, 3 seeds")
    summary = json.loads((run / "summary.json").read_text())
    print("\naccuracy on the validation images of the even set:")
    print(f"- `train` with its defaults: {summary['accuracy']}")
    for method, result in tuned.items():
        print(f"- best of {TRIALS} trials, {method}: {result['best_so_far'][-1]}")


if __name__ == "__main__":
    main()
