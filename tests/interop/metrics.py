"""Compares every figure of an evaluation with scikit-learn's, on 300 random and degenerate inputs.

    python tests/interop/metrics.py path/to/forebay
    python tests/interop/metrics.py --write

Predictions are written with pyarrow as `forebay eval` writes them, and read by `forebay compare --json`, which says the
figures of each file and McNemar's test of each pair. A run is tested on images of which some classes have none; what it
says of itself in summary.json is computed again from its confusion matrix, and from its predictions. `--write` makes the
tables that the tests of the crate read: of the smaller inputs, and of wrong labels as cleanlab finds them.
"""

import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy
    import pyarrow
    import pyarrow.parquet
    from PIL import Image
    from scipy import optimize, special, stats
    from sklearn import metrics
except ImportError as error:
    print(f"SKIPPED: metrics.py needs scikit-learn, scipy, numpy, pyarrow and Pillow: {error}", file=sys.stderr)
    sys.exit(77)

# Undefined figures are 0 or absent here, and warned of there.
warnings.filterwarnings("ignore")

TABLE = pathlib.Path(__file__).parents[2] / "stages/train/src/metrics/testdata/scikit_learn.json"
INPUTS = 300
WRITTEN = 36
CLOSE = 1e-12


def softmax(rows):
    """In double precision, number by number, so that equal probabilities are equal in every program."""
    found = []
    for row in rows:
        largest = max(row)
        powers = [math.exp(value - largest) for value in row]
        total = 0.0
        for power in powers:
            total += power
        found.append([power / total for power in powers])
    return numpy.array(found)


def given(index):
    """Names of classes, labels, and probabilities in single precision of one input; every pair of inputs has the same labels."""
    pair, kind = numpy.random.default_rng(index // 2), index // 2 % 10
    noise = numpy.random.default_rng(10_000 + index)
    classes = int(pair.integers(2, 13)) if kind < 8 else int(pair.integers(2, 4))
    n = int(pair.integers(1, 60)) if kind < 9 else 1
    labels = pair.integers(0, classes, n)
    if kind == 1:  # rare classes, some of them empty
        labels = numpy.minimum(pair.geometric(0.5, n) - 1, classes - 1)
    if kind == 2:  # one class only
        labels = numpy.full(n, pair.integers(0, classes))
    logits = noise.normal(size=(n, classes)) + noise.uniform(0, 4) * numpy.eye(classes)[labels]
    if kind == 3:  # many ties
        logits = numpy.round(logits)
    if kind == 4:  # nothing but ties
        logits = numpy.zeros((n, classes))
    if kind == 5:  # sure of everything, and always right or always wrong
        logits = numpy.where(numpy.eye(classes)[(labels + noise.integers(0, 2)) % classes] == 1, 0.0, -numpy.inf)
    if kind == 6:  # one prediction for all
        logits[:, noise.integers(0, classes)] += 30
    probabilities = softmax(logits.tolist()).astype(numpy.float32)
    return [f"class {label:02}" for label in range(classes)], labels, probabilities


def logits_of(probabilities):
    """What the program takes stored probabilities for."""
    logs = [[math.log(p) if p > 0 else -math.inf for p in row] for row in probabilities.astype(float).tolist()]
    return numpy.array(logs, dtype=numpy.float32)


def calibration_error(labels, guesses, probabilities):
    """Guo et al. 2017: 15 bins of equal width, each open below."""
    confidences = probabilities.max(axis=1)
    error = 0.0
    for index in range(15):
        inside = (confidences > index / 15) & (confidences <= (index + 1) / 15)
        if inside.any():
            error += inside.mean() * abs((labels == guesses)[inside].mean() - confidences[inside].mean())
    return error


def number(value):
    return None if value is None or math.isnan(value) else float(value)


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def report(truths, guesses):
    """Without a single right prediction scikit-learn 1.9 prints numbers of samples as 3.0, and as 3 else."""
    text = metrics.classification_report(truths, guesses, zero_division=0)
    return text if (truths == guesses).any() else re.sub(r"  (\d+)\.0$", r"    \1", text, flags=re.MULTILINE)


def theirs(names, labels, logits):
    """The figures as scikit-learn finds them, named as in an evaluation; None where one is undefined."""
    classes, each = len(names), range(len(names))
    probabilities = softmax(logits.astype(float).tolist())
    guesses = probabilities.argmax(axis=1)
    truths = numpy.eye(classes)[labels]

    def averages(kind):
        values = metrics.precision_recall_fscore_support(labels, guesses, average=kind, zero_division=0)
        return dict(zip(["precision", "recall", "f1"], map(float, values[:3])))

    def area(truths, scores):
        return float(metrics.roc_auc_score(truths, scores)) if 0 < truths.sum() < truths.size else None

    def precision(truths, scores):
        return float(metrics.average_precision_score(truths, scores)) if truths.sum() > 0 else None

    def ranks(figure):
        columns = [figure(truths[:, label], probabilities[:, label]) for label in each]
        return columns, {
            "macro": mean(columns),
            "micro": figure(truths.ravel(), probabilities.ravel()),
            "binary": columns[1] if classes == 2 else None,
        }

    areas, roc_auc = ranks(area)
    precisions, average_precision = ranks(precision)
    scores = metrics.precision_recall_fscore_support(labels, guesses, labels=each, zero_division=0)
    named = numpy.array(names)
    top5 = None
    if classes > 5:
        # Of equal scores scikit-learn takes the last, and a prediction is the first: so the classes are turned round.
        scores5 = numpy.maximum(logits.astype(float), -1e30)[:, ::-1]
        top5 = float(metrics.top_k_accuracy_score(classes - 1 - labels, scores5, k=5, labels=each))
    return {
        "accuracy": float(metrics.accuracy_score(labels, guesses)),
        "top5": top5,
        "balanced_accuracy": float(metrics.balanced_accuracy_score(labels, guesses)),
        "macro_average": averages("macro"),
        "weighted_average": averages("weighted"),
        "micro_average": averages("micro"),
        "kappa": number(metrics.cohen_kappa_score(labels, guesses)),
        "mcc": float(metrics.matthews_corrcoef(labels, guesses)),
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=each)),
        "brier": float(metrics.brier_score_loss(labels, probabilities, labels=each)),
        "ece": float(calibration_error(labels, guesses, probabilities)),
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "per_class": [
            {
                **{key: float(score[label]) for key, score in zip(["precision", "recall", "f1", "support"], scores)},
                "roc_auc": areas[label],
                "average_precision": precisions[label],
            }
            for label in each
        ],
        "confusion": metrics.confusion_matrix(labels, guesses, labels=each).tolist(),
        "report": report(named[labels], named[guesses]),
    }


def check(place, ours, expected):
    """That all that is expected is there, whether as a number or as a figure with an interval around it."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            check(f"{place}.{key}", ours[key], value)
    elif isinstance(expected, list):
        assert len(ours) == len(expected), place
        for index, value in enumerate(expected):
            check(f"{place}[{index}]", ours[index], value)
    elif isinstance(expected, float):
        if isinstance(ours, dict):
            assert ours["low"] <= ours["value"] <= ours["high"], (place, ours)
            ours = ours["value"]
        assert abs(ours - expected) <= CLOSE, (place, ours, expected)
    else:
        assert ours == expected, (place, ours, expected)


def check_curves(place, ours, labels, probabilities):
    """That points lie on scikit-learn's curves; these curves are short enough to be stored whole."""
    for label, (roc, pr) in enumerate(zip(ours["roc"]["classes"], ours["pr"]["classes"])):
        truths, scores = labels == label, probabilities[:, label]
        if 0 < truths.sum() < len(truths):
            x, y, _ = metrics.roc_curve(truths, scores, drop_intermediate=False)
            curve = numpy.array([(point["x"], point["y"]) for point in roc])
            gaps = numpy.abs(curve[:, None] - numpy.stack([x, y], 1)[None]).max(axis=2).min(axis=1)
            assert gaps.max() < CLOSE, (place, label)
            assert abs(metrics.auc(curve[:, 0], curve[:, 1]) - metrics.auc(x, y)) < CLOSE, (place, label)
        else:
            assert roc == [], (place, label)
        if truths.sum() > 0:
            y, x, _ = metrics.precision_recall_curve(truths, scores)
            curve = numpy.array([(point["x"], point["y"]) for point in pr])
            gaps = numpy.abs(curve[:, None] - numpy.stack([x, y], 1)[None]).max(axis=2).min(axis=1)
            assert gaps.max() < CLOSE, (place, label)


def write_predictions(path, names, labels, probabilities):
    """As `forebay eval` does: the classes in the schema's metadata, a list of probabilities in their order."""
    n, classes = probabilities.shape
    columns = {
        "id": pyarrow.array([f"{index:04}.png" for index in range(n)]),
        "split": pyarrow.array(["test"] * n),
        "label": pyarrow.array([names[label] for label in labels]),
        "prediction": pyarrow.array([names[guess] for guess in probabilities.argmax(axis=1)]),
        "confidence": pyarrow.array(probabilities.max(axis=1)),
        "probabilities": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(probabilities.ravel()), classes),
    }
    table = pyarrow.table(columns).replace_schema_metadata({"classes": json.dumps(names)})
    pyarrow.parquet.write_table(table, path)


def mcnemar(first, second, labels):
    b = int(((first == labels) & (second != labels)).sum())
    c = int(((first != labels) & (second == labels)).sum())
    if b + c < 25:
        return stats.binomtest(b, b + c).pvalue if b + c else 1.0
    return float(stats.chi2.sf(max(abs(b - c) - 1, 0) ** 2 / (b + c), 1))


def compare_inputs(program, work):
    for index in range(0, INPUTS, 2):
        inputs = [given(index), given(index + 1)]
        for name, (names, labels, probabilities) in zip("ab", inputs):
            write_predictions(work / f"{name}.parquet", names, labels, probabilities)
        command = [program, "compare", "a.parquet", "b.parquet", "--json"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        assert done.returncode == 0, (index, done.stderr)
        said = json.loads(done.stdout)
        guesses = []
        for offset, (names, labels, probabilities) in enumerate(inputs):
            logits = logits_of(probabilities)
            run = said["runs"][offset]
            ours = {**run["evaluation"], "report": run["classification_report"]}
            check(f"input {index + offset}", ours, theirs(names, labels, logits))
            seen = softmax(logits.astype(float).tolist())
            check_curves(f"input {index + offset}", ours, labels, seen)
            guesses.append(seen.argmax(axis=1))
        p = said["comparisons"][0]["mcnemar"]["p"]
        assert abs(p - mcnemar(*guesses, inputs[0][1])) < 1e-9, (index, p)
    print(f"{INPUTS} inputs: every figure, curve and report is scikit-learn's, and McNemar's test scipy's")


def check_predictions(folder):
    """That a run's predictions are of the images that they name, and are what its evaluation was made of."""
    table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    names = json.loads(table.schema.metadata[b"classes"])
    evaluations = json.loads((folder / "evaluation.json").read_text())
    rows = table.to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["label"] == row["id"].split("/")[0], row
        assert row["prediction"] == names[numpy.argmax(row["probabilities"])], row
        assert row["confidence"] == max(row["probabilities"]), row
    for split, evaluation in evaluations.items():
        chosen = [row for row in rows if row["split"] == split]
        labels = numpy.array([names.index(row["label"]) for row in chosen])
        probabilities = numpy.array([row["probabilities"] for row in chosen], dtype=numpy.float32)
        expected = theirs(names, labels, logits_of(probabilities))
        assert evaluation["confusion"] == expected["confusion"] and evaluation["samples"] == len(chosen), split
        for key in ["accuracy", "balanced_accuracy", "log_loss", "brier"]:
            assert abs(evaluation[key]["value"] - expected[key]) < 1e-5, (split, key, evaluation[key], expected[key])


def compare_runs(program, work):
    noise = numpy.random.default_rng(5)
    # Rare classes, of which a split of a fifth of the images may have none.
    for label, n in enumerate([60, 40, 2, 2, 1]):
        place = work / "in" / f"class{label}"
        place.mkdir(parents=True)
        for index in range(n):
            image = noise.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
            image[:, :, label % 3] //= 2
            Image.fromarray(image).save(place / f"{index}.png")
    for seed in range(4):
        command = [program, "train", "in", "--out", f"run{seed}", "--arch", "small", "--size", "16", "--epochs", "2",
                   "--split", "0.6,0.2,0.2", "--split-seed", str(seed), "--batch-size", "8", "--doctor", "off"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        summary = json.loads((work / f"run{seed}" / "summary.json").read_text())
        confusion = numpy.array(summary["confusion"])
        pairs = [(t, p) for t in range(5) for p in range(5) for _ in range(confusion[t, p])]
        truths, guesses = zip(*pairs)
        scores = metrics.precision_recall_fscore_support(truths, guesses, labels=range(5), zero_division=0)
        for label, ours in enumerate(summary["classes"]):
            expected = [float(score[label]) for score in scores]
            for key, value in zip(["precision", "recall", "f1", "support"], expected):
                assert abs(ours[key] - value) < CLOSE, (label, key, ours[key], value)
        macro = metrics.precision_recall_fscore_support(truths, guesses, average="macro", zero_division=0)[2]
        assert abs(summary["macro_f1"] - macro) < CLOSE, (summary["macro_f1"], macro)
        assert abs(summary["accuracy"] - metrics.accuracy_score(truths, guesses)) < CLOSE
        check_predictions(work / f"run{seed}")
        there = len(set(truths) | set(guesses))
        print(f"split seed {seed}: {there} of 5 classes are there, macro F1 {macro:.4f} as scikit-learn's")


def temperature(labels, logits):
    """What logits are divided by for the smallest log loss; None where that is at a bound, or anywhere."""
    possible = numpy.isfinite(logits[range(len(labels)), labels])
    logits, labels = logits[possible].astype(float), labels[possible]
    if not possible.any() or all(len(set(row[numpy.isfinite(row)])) == 1 for row in logits):
        return None

    def loss(log):
        scaled = logits / math.exp(log)
        return float((special.logsumexp(scaled, axis=1) - scaled[range(len(labels)), labels]).mean())

    bounds = (math.log(0.05), math.log(20))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    # The middle of what is equally good to the last digit.
    low, high = (optimize.brentq(lambda log: loss(log) - found.fun - 1e-7, *ends) if loss(end) > found.fun + 1e-7 else None
                 for end, ends in ((bounds[0], (bounds[0], found.x)), (bounds[1], (found.x, bounds[1]))))
    return None if low is None or high is None else math.exp(found.x)


def write_label_errors():
    """Needs cleanlab, which nothing else does: python -m pip install cleanlab."""
    from cleanlab.count import compute_confident_joint, get_confident_thresholds
    from cleanlab.filter import find_label_issues

    cases = []
    for seed in range(4):
        noise, n, classes = numpy.random.default_rng(seed), 100, 3 + seed % 3
        truths = noise.integers(0, classes, n)
        labels = numpy.where(noise.random(n) < 1 / 7, (truths + 1) % classes, truths)
        logits = noise.normal(size=(n, classes)) + (1.5 + seed / 2) * numpy.eye(classes)[truths]
        rows = [[float(f"{value:.2f}") for value in row] for row in logits]
        probabilities = softmax(numpy.array(rows, dtype=numpy.float32).astype(float).tolist())
        issues = find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
        cases.append({
            "labels": labels.tolist(),
            "logits": rows,
            "thresholds": get_confident_thresholds(labels, probabilities).tolist(),
            "joint": numpy.asarray(compute_confident_joint(labels, probabilities)).tolist(),
            "suspects": numpy.flatnonzero(issues).tolist(),
        })
    text = "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
    (TABLE.parent / "cleanlab.json").write_text(text)
    print(f"{len(cases)} inputs with wrong labels, {len(text)} bytes")


def write():
    cases = []
    for index in range(INPUTS):
        names, labels, probabilities = given(index)
        if probabilities.size > 60 or len(cases) == WRITTEN:
            continue
        logits = logits_of(probabilities)
        rows = [[None if math.isinf(value) else float(value) for value in row] for row in logits]
        expected = theirs(names, labels, logits)
        best = temperature(labels, logits)
        cases.append({"classes": names, "labels": labels.tolist(), "logits": rows, "temperature": best, "expected": expected})
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} inputs, {TABLE.stat().st_size} bytes")
    write_label_errors()


def main():
    if sys.argv[1:] == ["--write"]:
        return write()
    with tempfile.TemporaryDirectory() as folder:
        program, work = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(folder)
        compare_inputs(program, work)
        compare_runs(program, work)


main()
