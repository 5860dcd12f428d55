"""Compares the scores of a run with scikit-learn's: per class, and their macro average over the classes that are there.

    python tests/interop/metrics.py path/to/forebay

A run is tested on images of which some classes have none; what it says of itself in summary.json is computed again from
its confusion matrix.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    from PIL import Image
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support
except ImportError as error:
    print(f"SKIPPED: metrics.py needs scikit-learn, numpy and Pillow: {error}", file=sys.stderr)
    sys.exit(77)


def main():
    noise = numpy.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        # Rare classes, of which a split of a fifth of the images may have none.
        for label, n in enumerate([60, 40, 2, 2, 1]):
            place = work / "in" / f"class{label}"
            place.mkdir(parents=True)
            for index in range(n):
                image = noise.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
                image[:, :, label % 3] //= 2
                Image.fromarray(image).save(place / f"{index}.png")
        for seed in range(4):
            command = [sys.argv[1], "train", "in", "--out", f"run{seed}", "--arch", "small", "--size", "16", "--epochs", "2",
                       "--split", "0.6,0.2,0.2", "--split-seed", str(seed), "--batch-size", "8", "--doctor", "off"]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            summary = json.loads((work / f"run{seed}" / "summary.json").read_text())
            confusion = numpy.array(summary["confusion"])
            pairs = [(t, p) for t in range(5) for p in range(5) for _ in range(confusion[t, p])]
            truths, guesses = zip(*pairs)
            scores = precision_recall_fscore_support(truths, guesses, labels=range(5), zero_division=0)
            for label, ours in enumerate(summary["classes"]):
                theirs = [float(score[label]) for score in scores]
                for key, value in zip(["precision", "recall", "f1", "support"], theirs):
                    assert abs(ours[key] - value) < 1e-12, (label, key, ours[key], value)
            macro = precision_recall_fscore_support(truths, guesses, average="macro", zero_division=0)[2]
            assert abs(summary["macro_f1"] - macro) < 1e-12, (summary["macro_f1"], macro)
            assert abs(summary["accuracy"] - accuracy_score(truths, guesses)) < 1e-12
            there = len(set(truths) | set(guesses))
            print(f"split seed {seed}: {there} of 5 classes are there, macro F1 {macro:.4f} as scikit-learn's")


main()
