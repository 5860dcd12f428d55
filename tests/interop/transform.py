"""Compares the evaluation transform with timm's: Pillow's resize of the shorter side, then the centre square.

`forebay prepare --fit crop --crop-pct X --encode raw` writes the pixels that a network would see; timm's
`create_transform` gives its own for the same files. They may differ by one grey level.

Run: python tests/interop/transform.py path/to/forebay
"""

import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import pyarrow.parquet
    import timm.data
    import torch
    from PIL import Image
except ImportError as error:
    print(f"SKIPPED: transform.py needs numpy, pyarrow, timm and Pillow: {error}", file=sys.stderr)
    sys.exit(77)

LEVELS = 1


def draw(width, height, seed):
    """Edges, gradients, noise and a fine grid, which shows aliasing."""
    noise = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    image = numpy.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2)
    image[(x // 7 + y // 5) % 2 == 0] += 40
    image[height // 4 : height // 2, width // 3 : width // 2] = noise.integers(0, 256, 3)
    image[: height // 3, width // 2 :] = noise.integers(0, 256, (height // 3, width - width // 2, 3))
    image[:, ::3] *= 0.8
    return Image.fromarray(image.clip(0, 255).astype(numpy.uint8))


def pixels(data):
    """The pixels of a binary PPM: kind, width, height and largest value, then the bytes."""
    fields, at = [], 0
    while len(fields) < 4:
        end = at
        while not data[end : end + 1].isspace():
            end += 1
        fields.append(data[at:end])
        at = end + 1
    assert fields[0] == b"P6" and fields[3] == b"255"
    return numpy.frombuffer(data[at:], numpy.uint8).reshape(int(fields[2]), int(fields[1]), 3)


def rows_first(image, size, crop_pct):
    """What Pillow gives when rows are resampled before columns, which newer versions turn round for some shapes."""
    width, height = image.size
    short = int(size / crop_pct)
    to = (short, short * height // width) if width <= height else (short * width // height, short)
    image = image.resize((to[0], height), Image.BICUBIC).resize(to, Image.BICUBIC)
    left, top = (int(round((length - size) / 2)) for length in to)
    return numpy.asarray(image.crop((left, top, left + size, top + size))).astype(int)


def main(forebay):
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sizes = [(500, 375), (375, 500), (256, 256), (1021, 333), (97, 640), (180, 150), (64, 48), (224, 224)]
        images = {}
        for index, (width, height) in enumerate(sizes):
            path = folder / f"in/c{index % 2}/{width}x{height}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images[f"c{index % 2}/{width}x{height}.png"] = draw(width, height, index)
            images[f"c{index % 2}/{width}x{height}.png"].save(path)
        for filter in ["bilinear", "bicubic"]:
            for size, crop_pct in [(224, 0.875), (224, 0.95), (299, 0.875), (160, 0.95), (224, 0.965), (64, 1.0)]:
                out = folder / f"{filter}-{size}-{crop_pct}"
                command = [forebay, "prepare", folder / "in", out, "--size", size, "--fit", "crop", "--filter", filter]
                command += ["--crop-pct", crop_pct, "--encode", "raw", "--split", "none"]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                transform = timm.data.create_transform(
                    (3, size, size), interpolation=filter, crop_pct=crop_pct, mean=(0, 0, 0), std=(1, 1, 1)
                )
                rows = {}
                for shard in out.rglob("*.parquet"):
                    table = pyarrow.parquet.read_table(shard)
                    for row in table.to_pylist():
                        image = row["image"]
                        rows[row["id"]] = image["bytes"] if isinstance(image, dict) else image
                assert len(rows) == len(images), f"{sorted(rows)} against {sorted(images)}"
                most, share = 0, 0.0
                for name, image in images.items():
                    found = pixels(rows[name]).astype(int)
                    expected = (transform(image) * 255).round().to(torch.int64).permute(1, 2, 0).numpy()
                    assert found.shape == expected.shape, f"{name}: {found.shape} against {expected.shape}"
                    difference = numpy.abs(found - expected)
                    if filter == "bicubic" and difference.max() > LEVELS:
                        other = rows_first(image, size, crop_pct)
                        if numpy.abs(other - expected).max() > LEVELS:
                            print(f"  {name} at {size}, {crop_pct}: {difference.max()} levels from this Pillow, which "
                                  f"takes columns first here and differs from its rows first by "
                                  f"{numpy.abs(other - expected).max()}; compared with the latter")
                            difference = numpy.abs(found - other)
                    most, share = max(most, difference.max()), max(share, (difference > 0).mean())
                    if difference.max() > LEVELS:
                        print(f"  {name} at {size}, {crop_pct}, {filter}: {difference.max()} levels, "
                              f"{(difference > LEVELS).mean():.2%} of values", file=sys.stderr)
                print(f"{filter:9} {size} px, crop {crop_pct}: at most {most} levels, {share:.2%} of values differ")
                worst = max(worst, most)
    assert worst <= LEVELS, f"the transforms differ by {worst} grey levels"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "forebay")
