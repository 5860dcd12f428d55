#!/usr/bin/env python3
"""Runs the README's Python that loads an image for an exported ONNX file, and compares it with Forebay itself.

usage: readme.py FOREBAY

The snippet is taken from README.md as it stands there; only the names of its files are replaced. For JPEGs and PNGs that
are turned by EXIF in every way, gray, with alpha, wide and high, it must give the pixels that `forebay prepare` stores to
within one grey level, or two where a sum lies between two levels, and logits to within 1 % of the
largest of those that `forebay forward` gives for these pixels.
Prints one line per image and exits 1 if one is further off. Without the libraries nothing is checked, which is said loudly,
with exit code 77.
"""

import contextlib
import io
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import numpy
    import onnxruntime  # noqa: F401
    import pyarrow.parquet
    import torch
    from PIL import Image
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"\n*** NOT CHECKED: {missing}. The README's Python was not run. ***\n", file=sys.stderr)
    sys.exit(77)

# Of images that are smooth, and of photos: in few of these a sum lies between two levels, and resizers round it differently.
LEVELS, LEVELS_JPEG, LOGITS = 1, 2, 0.01
# A JPEG without colors.
GRAY = "a/04.jpg"
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def snippet():
    """The one block of Python that opens an exported file."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "InferenceSession(" in block]
    return found


def draw(width, height, seed):
    """A gradient, a disc and some noise: what JPEG keeps to a few levels."""
    y, x = numpy.mgrid[0:height, 0:width]
    image = numpy.stack([x * 255 / width, y * 255 / height, (x + 2 * y) * 80 / width], axis=2)
    image[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2] = (40 * seed % 255, 200, 90)
    noise = numpy.random.default_rng(seed).normal(0, 3, image.shape)
    return Image.fromarray((image + noise).clip(0, 255).astype(numpy.uint8))


def images(folder):
    """Writes two classes of images, and gives their paths below the folder."""
    paths = []
    for index in range(16):
        size = [(120, 90), (90, 131), (83, 83), (200, 75)][index % 4]
        path = folder / "ab"[index % 2] / f"{index:02}.{'png' if index % 3 == 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image, exif = draw(*size, index), Image.Exif()
        if index == 5:
            image.putalpha(Image.linear_gradient("L").resize(size))
        if path.name == pathlib.Path(GRAY).name:
            image = image.convert("L")
        exif[0x0112] = 1 + index % 8
        image.save(path, exif=exif, **({"quality": 92} if path.suffix == ".jpg" else {}))
        paths.append(path.relative_to(folder).as_posix())
    return paths


def ppm(data):
    """The pixels of a binary PPM."""
    _, width, height, _ = data[:40].split(None, 4)[:4]
    return numpy.frombuffer(data, numpy.uint8)[-int(width) * int(height) * 3 :].reshape(int(height), int(width), 3)


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")


def check(forebay, place, source, paths, filter, crop_pct):
    name = f"{filter}-{crop_pct}"
    out, shards, model = place / f"run-{name}", place / f"shards-{name}", place / f"{name}.onnx"
    options = ["--size", 48, "--fit", "crop", "--filter", filter, "--crop-pct", crop_pct, "--split", "none"]
    run(forebay, "train", source, "--out", out, *options, "--epochs", 1, "--batch-size", 8)
    run(forebay, "export", out, "--output", model)
    run(forebay, "prepare", source, shards, *options, "--encode", "raw")
    ours = {}
    for shard in (shards / "data").glob("*.parquet"):
        ours.update({row["id"]: ppm(row["image"]["bytes"]) for row in pyarrow.parquet.read_table(shard).to_pylist()})
    text, results = snippet(), []
    assert "model.onnx" in text and "photo.jpg" in text, text
    for path in paths:
        here = {}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(text.replace("model.onnx", str(model)).replace("photo.jpg", str(source / path)), here)
        mean, std = (torch.tensor(here["json"].loads(here["told"][key])) for key in ("mean", "std"))
        tensor = ((torch.from_numpy(ours[path].copy()) / 255.0 - mean) / std).permute(2, 0, 1)[None].float().contiguous()
        save_file({"input": tensor}, place / "input.safetensors")
        run(forebay, "forward", "small", "--weights", out / "model.safetensors", "--input", place / "input.safetensors",
            "--output", place / "output.safetensors", "--overwrite")
        expected = load_file(place / "output.safetensors")["logits"].numpy()[0]
        theirs = (here["pixels"] * std.numpy() + mean.numpy()) * 255
        levels = float(numpy.abs(theirs - ours[path]).max())
        far = float(numpy.abs(here["logits"] - expected).max() / numpy.abs(expected).max())
        bound = LEVELS_JPEG if path.endswith("jpg") and path != GRAY else LEVELS
        fine = levels <= bound + 0.01 and far <= LOGITS
        print(f"{'ok  ' if fine else 'FAIL'} {name:14} {path:10} pixels within {levels:.2f} levels, logits within {far:.1e}")
        results.append(fine)
    return results


def main(forebay):
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        source = place / "images"
        paths = images(source)
        results = check(forebay, place, source, paths, "bilinear", 1.0) + check(forebay, place, source, paths, "bicubic", 0.875)
    print(f"{sum(results)} of {len(results)} images are loaded by the README's Python as Forebay loads them")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "forebay").resolve())
