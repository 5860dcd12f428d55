"""What imbalanced-learn makes of a table of rows, as the tests of stages/train/src/sampling compare it with ours.

    python tests/interop/sampling.py           # is the stored table what the library says today?
    python tests/interop/sampling.py --write   # store it

For SMOTE and its relatives the table holds the draws of the library (base, neighbour, gap) with the rows that it made of
them: ours must be equal given the same draws. The rows in danger of borderline SMOTE, the numbers of ADASYN for each row, the
rows that Tomek links and edited nearest neighbours take out, and the rows of each class are the library's results.
"""

import json
import pathlib
import sys

try:
    import numpy
    from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE
    from imblearn.under_sampling import EditedNearestNeighbours, TomekLinks
    from sklearn.neighbors import NearestNeighbors
except ImportError as error:
    print(f"SKIPPED: sampling.py needs numpy and imbalanced-learn: {error}", file=sys.stderr)
    sys.exit(77)

TABLE = pathlib.Path(__file__).parents[2] / "stages/train/src/sampling/testdata/imbalanced_learn.json"
COUNTS, WIDTH = [40, 18, 8], 4


def rows():
    noise = numpy.random.default_rng(8)
    labels = numpy.repeat(numpy.arange(3), COUNTS)
    points = noise.normal(size=(len(labels), WIDTH)) + labels[:, None] * 0.9
    order = noise.permutation(len(labels))
    # Numbers that are the same in single precision and in JSON.
    return (points * 64).round()[order] / 64, labels[order]


class Draws:
    """NumPy's draws, noted."""

    def __init__(self, seed):
        self.state, self.whole, self.steps = numpy.random.RandomState(seed), [], []

    def randint(self, low, high, size):
        self.whole.append(self.state.randint(low=low, high=high, size=size))
        return self.whole[-1]

    def uniform(self, size):
        self.steps.append(self.state.uniform(size=size))
        return self.steps[-1]


def smote(points, labels):
    """Base, neighbour and gap of each row of plain SMOTE, found again from the library's own steps, and the row."""
    import imblearn.over_sampling._smote.base as base

    draws, made = Draws(5), []
    before = base.check_random_state
    base.check_random_state = lambda _: draws
    try:
        found, classes = SMOTE(random_state=5).fit_resample(points, labels)
    finally:
        base.check_random_state = before
    at = len(points)
    for label, (whole, steps) in zip([1, 2], zip(draws.whole, draws.steps)):
        own = numpy.flatnonzero(labels == label)
        near = NearestNeighbors(n_neighbors=6).fit(points[own]).kneighbors(points[own], return_distance=False)[:, 1:]
        for draw, gap in zip(whole, steps):
            row, column = divmod(int(draw), near.shape[1])
            made.append([int(own[row]), int(own[near[row, column]]), float(gap), found[at].tolist()])
            assert classes[at] == label
            at += 1
    assert at == len(found)
    return made, numpy.bincount(classes).tolist()


def table():
    points, labels = rows()
    made, counts = smote(points, labels)
    borderline = BorderlineSMOTE(random_state=1)
    _, of_borderline = borderline.fit_resample(points, labels)
    of_adasyn = ADASYN(random_state=1).fit_resample(points, labels)[1]
    numbers = {}
    for label in [1, 2]:
        # As ADASYN counts: the library does not show how many rows it makes of each.
        near = NearestNeighbors(n_neighbors=6).fit(points)
        other = (labels[near.kneighbors(points[labels == label], return_distance=False)[:, 1:]] != label).sum(1)
        numbers[label] = numpy.rint(other / other.sum() * (COUNTS[0] - COUNTS[label])).astype(int).tolist()
        assert sum(numbers[label]) + COUNTS[label] == (of_adasyn == label).sum()

    def left(sampler):
        sampler.fit_resample(points, labels)
        return sorted(sampler.sample_indices_.tolist())

    return {
        "rows": points.tolist(),
        "labels": labels.tolist(),
        "smote": made,
        "smote_counts": counts,
        "danger": {str(k): sorted(v.tolist()) for k, v in borderline.in_danger_indices.items()},
        "borderline_counts": numpy.bincount(of_borderline).tolist(),
        "adasyn_numbers": {str(k): v for k, v in numbers.items()},
        "adasyn_counts": numpy.bincount(of_adasyn).tolist(),
        "tomek_auto": left(TomekLinks()),
        "tomek_all": left(TomekLinks(sampling_strategy="all")),
        "enn_auto": left(EditedNearestNeighbours()),
        "enn_all": left(EditedNearestNeighbours(sampling_strategy="all")),
        "enn_mode_all": left(EditedNearestNeighbours(sampling_strategy="all", kind_sel="mode")),
    }


def main():
    found = table()
    if "--write" in sys.argv:
        TABLE.write_text(json.dumps(found) + "\n")
    stored = json.loads(TABLE.read_text())
    wrong = [key for key in found if found[key] != stored.get(key)]
    for key in found:
        print(f"{key:20} {'WRONG' if key in wrong else 'ok'}")
    sys.exit(bool(wrong))


main()
