"""Datasets as other libraries write them, read by Forebay, and those that Forebay converts, read by the libraries: the same
images, labels, splits and ids.

    python tests/interop/layouts.py target/release/forebay

Writes some images with Pillow in every layout that Forebay reads, by the library that the layout is from (`datasets`,
`webdataset`, `streaming`, `pandas`, `polars`, `tarfile`), and has Forebay prepare each into lossless shards, which
`pyarrow` opens: every image must be there with its class, its split and its pixels. Then has Forebay convert a folder into
each form, and opens that with `datasets`, `pyarrow`, `webdataset` and `streaming`. Libraries that are missing are named,
loudly; without Pillow, numpy and pyarrow nothing is checked, with exit code 77.
"""

import gzip
import hashlib
import io
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

try:
    import numpy
    import pyarrow.parquet as pq
    from PIL import Image
except ImportError as missing:
    print(f"\n*** NOT CHECKED: {missing}. No dataset of another library was read. ***\n", file=sys.stderr)
    sys.exit(77)

CLASSES = ["owl", "cat", "emu é"]
SPLITS = {"train": 14, "validation": 6, "test": 5}
DONE = []


class Sample:
    """An image of a class and a split, with its file's bytes."""

    def __init__(self, split, index, draws, size=None, gray=False):
        height, width = size or draws.integers(8, 40, 2)
        shape = (height, width) if gray else (height, width, 3)
        self.pixels = draws.integers(0, 256, shape, dtype=numpy.uint8)
        self.split, self.index = split, index
        self.label = int(draws.integers(0, len(CLASSES)))
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "PNG")
        self.bytes = buffer.getvalue()

    @property
    def name(self):
        return f"{self.split}_{self.index:03}.png"

    @property
    def hash(self):
        pixels = self.pixels
        if pixels.ndim == 2:
            pixels = numpy.repeat(pixels[:, :, None], 3, axis=2)
        return hashlib.sha256(bytes(str(pixels.shape), "ascii") + pixels.tobytes()).hexdigest()


def draw(**form):
    draws = numpy.random.default_rng(7)
    return [Sample(split, index, draws, **form) for split, n in SPLITS.items() for index in range(n)]


def read(forebay, source, place, *options):
    """What shards of the source hold, as `pyarrow` and Pillow read them: (split, class, hash) of every image, sorted."""
    shards = place / "shards"
    command = [forebay, "prepare", source, shards, "--size", "original", "--encode", "png", "--split", "none", *options]
    if any((place / "declared").glob("*")):
        command = [word for word in command if word not in ("--split", "none")]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{ran.stderr}")
    manifest = json.loads((shards / "manifest.json").read_text())
    found, ids = [], set()
    for path in sorted(shards.glob("data/*.parquet")):
        split = path.name.split("-")[0]
        for row in pq.read_table(path).to_pylist():
            image = numpy.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
            value = hashlib.sha256(bytes(str(image.shape), "ascii") + image.tobytes()).hexdigest()
            found.append((split, manifest["classes"][row["label"]], value))
            ids.add(row["id"])
    assert len(ids) == len(found), "two rows of one id"
    return sorted(found), ids


def check(name, forebay, write, *options, splits=True, names=None, samples=None, source=None):
    """Writes the samples by `write(folder, samples)` and compares what Forebay reads with them."""
    samples = samples or draw()
    names = names or CLASSES
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        folder = place / "source"
        folder.mkdir()
        write(folder, samples)
        if splits:
            (place / "declared").mkdir()
            (place / "declared" / "yes").touch()
        expected = sorted(
            (sample.split if splits else "train", names[sample.label], sample.hash) for sample in samples
        )
        found, ids = read(forebay, folder / source if source else folder, place, *options)
        assert found == expected, f"{name}: {len(found)} of {len(expected)} images, or others"
    DONE.append(name)
    print(f"{name}: {len(expected)} images, their classes, splits and pixels")
    return ids


def folders(folder, samples):
    for sample in samples:
        path = folder / sample.split / CLASSES[sample.label]
        path.mkdir(parents=True, exist_ok=True)
        (path / sample.name).write_bytes(sample.bytes)


def metadata(kind):
    def write(folder, samples):
        for split in SPLITS:
            (folder / split).mkdir()
            rows = [sample for sample in samples if sample.split == split]
            for sample in rows:
                (folder / split / sample.name).write_bytes(sample.bytes)
            rows = [{"file_name": sample.name, "note": "a, \"b\"", "label": CLASSES[sample.label]} for sample in rows]
            if kind == "jsonl":
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (folder / split / "metadata.jsonl").write_text(lines)
            else:
                import pandas

                frame = pandas.DataFrame(rows)
                path = folder / split / f"metadata.{kind}"
                if kind == "csv":
                    frame.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
                else:
                    frame.to_parquet(path)

    return write


def competition(folder, samples):
    """`train.csv` of ids and a column for each class, with the index that pandas writes, beside a folder."""
    import pandas

    (folder / "images").mkdir()
    for sample in samples:
        (folder / "images" / sample.name).write_bytes(sample.bytes)
    rows = [
        {"image_id": sample.name[:-4], **{name: int(at == sample.label) for at, name in enumerate(CLASSES)}}
        for sample in samples
    ]
    pandas.DataFrame(rows).to_csv(folder / "labels.csv")
    (folder / "sample_submission.csv").write_text("image_id,owl\nx,1\n")


def features():
    import datasets

    datasets.disable_progress_bars()
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})


def hugging_face(folder, samples, **options):
    import datasets

    (folder / "data").mkdir()
    for split in SPLITS:
        rows = [sample for sample in samples if sample.split == split]
        form = features()
        table = datasets.Dataset.from_dict(
            {
                "image": [{"bytes": sample.bytes, "path": sample.name} for sample in rows],
                "label": [sample.label for sample in rows],
            },
            features=form,
        )
        for shard in range(2):
            part = table.shard(2, shard, contiguous=True)
            part.to_parquet(folder / "data" / f"{split}-{shard:05}-of-00002.parquet", **options)


def pyarrow_packed(codec, version):
    def write(folder, samples):
        hugging_face(folder, samples)
        for path in folder.glob("data/*.parquet"):
            table = pq.read_table(path)
            pq.write_table(table, path, compression=codec, data_page_version=version, row_group_size=5)

    return write


def polars_file(folder, samples):
    import polars

    for split in SPLITS:
        rows = [sample for sample in samples if sample.split == split]
        polars.DataFrame(
            {"image": [sample.bytes for sample in rows], "label": [CLASSES[sample.label] for sample in rows]}
        ).write_parquet(folder / f"{split}.parquet")


def duckdb_file(folder, samples):
    import duckdb
    import pandas

    frame = pandas.DataFrame(
        {"image": [sample.bytes for sample in samples], "label": [sample.label for sample in samples]}
    )
    duckdb.sql("select * from frame").write_parquet(str(folder / "all.parquet"), compression="snappy")


def tars(folder, samples):
    import webdataset

    for split in SPLITS:
        rows = [sample for sample in samples if sample.split == split]
        with webdataset.ShardWriter(str(folder / f"{split}-%06d.tar"), maxcount=5, verbose=0) as writer:
            for sample in rows:
                writer.write(
                    {
                        "__key__": f"a/{sample.name[:-4]}",
                        "png": sample.bytes,
                        "cls": sample.label,
                        "json": {"note": "x" * 3000},
                    }
                )


def tarfile_pax(folder, samples):
    """Names too long for a header, in the form of POSIX.1-2001, and class names as text."""
    import tarfile

    with tarfile.open(folder / "all.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for sample in samples:
            for suffix, data in (("png", sample.bytes), ("cls", CLASSES[sample.label].encode())):
                member = tarfile.TarInfo(f"{'é' * 150}/{sample.name[:-4]}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def mds(encoding, compression=None):
    def write(folder, samples):
        from streaming import MDSWriter

        columns = {"image": encoding, "label": "int"}
        for split in SPLITS:
            with MDSWriter(out=str(folder / split), columns=columns, size_limit=1 << 14, compression=compression) as writer:
                for sample in samples:
                    if sample.split == split:
                        image = Image.fromarray(sample.pixels) if encoding != "bytes" else sample.bytes
                        writer.write({"image": image, "label": sample.label})

    return write


def cifar(folder, samples):
    by_split = {"train": [], "test": []}
    for sample in samples:
        planes = sample.pixels.transpose(2, 0, 1).tobytes()
        by_split["test" if sample.split == "test" else "train"].append(bytes([sample.label]) + planes)
        sample.split = "test" if sample.split == "test" else "train"
    (folder / "data_batch_1.bin").write_bytes(b"".join(by_split["train"][:9]))
    (folder / "data_batch_2.bin").write_bytes(b"".join(by_split["train"][9:]))
    (folder / "test_batch.bin").write_bytes(b"".join(by_split["test"]))
    (folder / "batches.meta.txt").write_text("".join(name + "\n" for name in CLASSES))


def idx(packed):
    def write(folder, samples):
        for sample in samples:
            sample.split = "test" if sample.split == "test" else "train"
        for split, prefix in (("train", "train"), ("test", "t10k")):
            rows = [sample for sample in samples if sample.split == split]
            images = struct.pack(">IIII", 2051, len(rows), 28, 28) + b"".join(s.pixels.tobytes() for s in rows)
            labels = struct.pack(">II", 2049, len(rows)) + bytes(sample.label for sample in rows)
            for name, data in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
                if packed:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(data))
                else:
                    (folder / name).write_bytes(data)

    return write


def by_datasets(place):
    """(a) the metadata, (b) images and classes, (c) splits, (d) the page index of what `convert` writes as Parquet."""
    import datasets

    datasets.disable_progress_bars()
    opened = datasets.load_dataset(str(place), cache_dir=str(place.parent / "cache"))
    found = []
    for split, rows in opened.items():
        assert rows.features["image"] == datasets.Image(), rows.features
        names = rows.features["label"].names
        for row in rows:
            assert {"image", "label", "id", "copy", "source_blake3"} <= set(row), set(row)
            found.append((split, names[row["label"]], row["id"], row["image"].convert("RGB")))
    for path in place.glob("data/*.parquet"):
        written = pq.ParquetFile(path)
        column = written.metadata.row_group(0).column(0)
        assert column.has_offset_index and column.compression == "UNCOMPRESSED", column
        told = json.loads(written.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        assert told["image"] == {"_type": "Image"} and told["label"]["_type"] == "ClassLabel", told
    return found


def by_webdataset(place):
    import webdataset

    names = (place / "data" / "classes.txt").read_text().splitlines()
    found = []
    for path in sorted(place.glob("data/*.tar")):
        for row in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).decode("pil"):
            told = row["json"]
            assert names[row["cls"]] == told["class_name"] and row["cls"] == told["label"], told
            found.append((path.name.split("-")[0], names[row["cls"]], told["forebay_id"], row["png"].convert("RGB")))
    return found


def by_streaming(place):
    from streaming import StreamingDataset

    found = []
    for index in place.glob("data/*/index.json"):
        for row in StreamingDataset(local=str(index.parent), shuffle=False, batch_size=1):
            found.append((index.parent.name, row["class_name"], row["id"], row["image"].convert("RGB")))
    return found


def check_converted(forebay, form, read):
    samples = draw()
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        folders(place / "source", samples)
        subprocess.run([forebay, "convert", place / "source", place / "made", "--format", form], check=True,
                       stdout=subprocess.DEVNULL)
        found = []
        for split, name, id, image in read(place / "made"):
            pixels = numpy.asarray(image)
            value = hashlib.sha256(bytes(str(pixels.shape), "ascii") + pixels.tobytes()).hexdigest()
            found.append((split, name, id, value))
        expected = sorted(
            (s.split, CLASSES[s.label], f"{s.split}/{CLASSES[s.label]}/{s.name}", s.hash) for s in samples
        )
        assert sorted(found) == expected, f"{form}: {len(found)} of {len(expected)} images, or others"
    DONE.append(form)
    print(f"converted to {form}: {len(expected)} images, their ids, classes, splits and pixels")


def has(name):
    try:
        __import__(name)
        return True
    except ImportError as missing:
        print(f"\n*** NOT CHECKED: {missing}. Nothing that {name} writes was read. ***\n", file=sys.stderr)
        return False


def main():
    forebay = pathlib.Path(sys.argv[1]).resolve()
    numbers = [str(label) for label in range(len(CLASSES))]
    check("folders", forebay, folders)
    check("metadata.jsonl", forebay, metadata("jsonl"))
    if has("pandas"):
        check("metadata.csv", forebay, metadata("csv"))
        check("metadata.parquet", forebay, metadata("parquet"))
        check("a competition's table", forebay, competition, splits=False)
        check("a table by its name", forebay, competition, splits=False, source="labels.csv")
    if has("datasets"):
        check("datasets' Parquet", forebay, hugging_face)
        for codec in ("snappy", "zstd", "gzip"):
            for version in ("1.0", "2.0"):
                check(f"pyarrow, {codec}, pages of version {version}", forebay, pyarrow_packed(codec, version))
    if has("polars"):
        check("polars' Parquet", forebay, polars_file)
    if has("duckdb"):
        check("DuckDB's Parquet", forebay, duckdb_file, splits=False, names=numbers)
    if has("webdataset"):
        check("webdataset's tars", forebay, tars, names=numbers)
    check("a pax tar", forebay, tarfile_pax, splits=False)
    if has("streaming"):
        for encoding in ("png", "pil", "bytes"):
            check(f"streaming's MDS of {encoding}", forebay, mds(encoding), names=numbers)
        check("streaming's MDS, packed with zstd", forebay, mds("png", "zstd"), names=numbers)
    check("CIFAR", forebay, cifar, samples=draw(size=(32, 32)))
    gray = {"size": (28, 28), "gray": True}
    check("MNIST", forebay, idx(False), names=numbers, samples=draw(**gray))
    check("MNIST, packed", forebay, idx(True), names=numbers, samples=draw(**gray))
    if has("datasets"):
        check_converted(forebay, "parquet", by_datasets)
    if has("webdataset"):
        check_converted(forebay, "webdataset", by_webdataset)
    if has("streaming"):
        check_converted(forebay, "mds", by_streaming)
    print(f"{len(DONE)} layouts are read as they were written")


if __name__ == "__main__":
    main()
