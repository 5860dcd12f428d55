"""Takes the same 64 images through Forebay, onnxruntime, timm and transformers, each preparing them as the run folder says.

    python tests/interop/chain.py target/release/forebay

A model must say the preparation that it was trained with. For chains of several kinds: the pixels of timm's and
transformers' own transforms are within a level of Forebay's, the logits of all four networks are within 1e-3 of the largest
given the same pixels, and the top class is the same for every image, as is the confusion matrix of the run. What their
fields cannot say (images that were resized twice) is said in the files. Prints one line per chain.

Needs torch, torchvision, timm, transformers, onnxruntime, pyarrow and pillow. Without them nothing is checked, which is
said loudly, with exit code 77.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import onnxruntime
    import pyarrow.parquet
    import timm
    import torch
    import transformers
    from PIL import Image
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"\n*** NOT CHECKED: {missing}. Preparations were compared with nothing. ***\n", file=sys.stderr)
    sys.exit(77)

CLASSES = ("round", "square", "stripes", "waves")
SIZES = [(120, 90), (90, 120), (100, 100), (150, 70), (70, 150), (83, 131), (131, 84), (72, 72)]
LEVELS, LOGITS = 1, 1e-3
# How far pixels that are one grey level off may move a logit, as a share of the largest.
MOVED = 0.01

# Name, options of `prepare` (None: the folder itself), options of `train`, and whether other programs can do the same.
CHAINS = [
    ("margin", None, "--size 64 --crop-pct 0.875", True),
    ("bicubic, half cut off, in the shards", "--size 64 --fit crop --filter bicubic --crop-pct 0.5", "", True),
    ("padded", None, "--size 64 --fit pad --mean 0.5,0.4,0.3 --std 0.2,0.25,0.3", False),
    ("squashed, bicubic", None, "--size 64 --fit squash --filter bicubic", True),
    ("squashed shards, cut", "--size 72 --fit squash", "--size 64 --crop-pct 0.8888", True),
    ("shorter side in the shards, cut", "--size 72 --filter lanczos3", "--size 64 --crop-pct 0.8888", True),
    ("other means", None, "--size 48 --mean 0.1,0.9,0.5 --std 1,0.3,0.05", True),
    ("resized twice", "--size 96", "--size 64", False),
    ("padded shards, black bars", "--size 64 --fit pad", "--mean 0.5,0.4,0.3", False),
]


def draw(label, seed):
    """An image whose class is its pattern, in colours that tell nothing."""
    draws = numpy.random.default_rng(1000 * label + seed)
    width, height = SIZES[seed % len(SIZES)]
    y, x = numpy.mgrid[0:height, 0:width]
    u, v = x - width / 2, y - height / 2
    far = min(width, height) * draws.uniform(0.2, 0.4)
    shape = [u * u + v * v < far * far, (abs(u) < far) & (abs(v) < far), (x // 6) % 2 == 0,
             numpy.sin(x / 5 + y / 7) > 0][label]
    colors = draws.uniform(30, 225, (2, 3))
    image = numpy.where(shape[..., None], colors[0], colors[1]) + 20 * numpy.sin(x / 40)[..., None]
    return Image.fromarray((image + draws.normal(0, 4, image.shape)).clip(1, 255).astype(numpy.uint8))


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
    return done


def ppm(data):
    """The pixels of a binary PPM: kind, width, height and largest value, then the bytes."""
    kind, width, height, largest = data[:40].split(None, 4)[:4]
    assert (kind, largest) == (b"P6", b"255")
    return numpy.frombuffer(data, numpy.uint8)[-int(width) * int(height) * 3 :].reshape(int(height), int(width), 3)


def rows(shards):
    """The stored pixels of the test split, by name."""
    found = {}
    for shard in sorted((shards / "data").glob("test-*")):
        for row in pyarrow.parquet.read_table(shard).to_pylist():
            found[row["id"]] = ppm(row["image"]["bytes"])
    return found


def seen(forebay, root, place, chain, run_folder):
    """The pixels that the network sees, by name: those of shards that are prepared as the whole chain says."""
    step = chain["resize"][0]
    out = place / "seen"
    options = ["--size", step["side"], "--fit", step["fit"], "--filter", step["filter"]]
    if step["crop_pct"] < 1:
        options += ["--crop-pct", step["crop_pct"]]
    run(forebay, "prepare", root, out, *options, "--encode", "raw")
    found = rows(out)
    if step["fit"] == "pad":
        # `prepare` has black bars; no pixel of an image here is black.
        found = {name: numpy.where((image == 0).all(2, keepdims=True), step["pad_color"], image) for name, image in found.items()}
    if len(chain["resize"]) == 2:
        side = chain["resize"][1]["side"]
        cut = (step["side"] - side) // 2
        assert (step["fit"], int(side / chain["resize"][1]["crop_pct"])) == ("squash", step["side"]), chain
        found = {name: image[cut : cut + side, cut : cut + side] for name, image in found.items()}
    return found


def far(ours, theirs):
    """The largest difference as a share of the largest logit."""
    return float(numpy.abs(ours - theirs).max() / numpy.abs(ours).max())


def check(forebay, root, name, prepare, train, is_said):
    names = sorted(f"test/{path.parent.name}/{path.name}" for path in (root / "test").rglob("*.png"))
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        source, out = root, place / "run"
        if prepare is not None:
            source = place / "shards"
            run(forebay, "prepare", root, source, *prepare.split(), "--encode", "raw")
        said = run(forebay, "train", source, "--out", out, "--arch", "resnet18", "--epochs", 3, "--batch-size", 16,
                   "--lr", 0.002, "--feature-cache", "off", *train.split(), "--json")
        done = json.loads(said.stdout.splitlines()[-1])
        told = json.loads((out / "chain.json").read_text())
        config = json.loads((out / "config.json").read_text())
        run(forebay, "export", out, "--output", place / "model.onnx")
        session = onnxruntime.InferenceSession(str(place / "model.onnx"), providers=["CPUExecutionProvider"])
        properties = session.get_modelmeta().custom_metadata_map
        assert json.loads(properties["chain"]) == told["chain"], properties["chain"]
        assert ("caveats" in properties) == bool(config.get("forebay_caveats")) == (not is_said), (properties, config)
        assert ("cannot reproduce this preparation of images" in said.stderr) == (not is_said), said.stderr

        model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        processor = transformers.AutoImageProcessor.from_pretrained(out)
        network = transformers.AutoModelForImageClassification.from_pretrained(out).eval()
        images = [Image.open(root / path).convert("RGB") for path in names]
        by_timm = torch.stack([transform(image) for image in images])
        by_transformers = processor(images, return_tensors="pt")["pixel_values"]
        if not is_said:
            print(f"said {name:38} {'; '.join(config['forebay_caveats'])}", flush=True)
            return True

        mean, std = (torch.tensor(told["chain"]["normalize"][key])[:, None, None] for key in ("mean", "std"))
        ours = seen(forebay, root, place, told["chain"], out)
        assert sorted(ours) == names, (sorted(ours)[:3], names[:3])
        ours = torch.stack([torch.from_numpy(ours[path].copy()).permute(2, 0, 1) for path in names])
        levels = [float(((theirs * std + mean) * 255 - ours).abs().max()) for theirs in (by_timm, by_transformers)]
        tensor = ((ours / 255.0 - mean) / std).float().contiguous()
        save_file({"input": tensor}, place / "input.safetensors")
        run(forebay, "forward", "resnet18", "--weights", out / "model.safetensors", "--input", place / "input.safetensors",
            "--output", place / "output.safetensors")
        logits = load_file(place / "output.safetensors")["logits"].numpy()
        with torch.no_grad():
            on_ours = [session.run(["logits"], {"images": tensor.numpy()})[0], model(tensor).numpy(),
                       network(pixel_values=tensor).logits.numpy()]
            on_theirs = [model(by_timm).numpy(), network(pixel_values=by_transformers).logits.numpy(),
                         session.run(["logits"], {"images": by_timm.numpy()})[0]]
        far_off = [far(logits, theirs) for theirs in on_ours]
        top = logits.argmax(1)
        two = numpy.sort(logits, axis=1)[:, -2:]
        truths = [CLASSES.index(path.split("/")[1]) for path in names]
        confusion = numpy.zeros((len(CLASSES), len(CLASSES)), dtype=int)
        for truth, guess in zip(truths, top):
            confusion[truth, guess] += 1
        # The same pixels give the same class for every image; with pixels that another program made, one level off, the
        # logits hardly move, and the class is another one only where its lead is smaller than that.
        same = all((theirs.argmax(1) == top).all() for theirs in on_ours)
        for theirs in on_theirs:
            moved = numpy.abs(theirs - logits).max(1)
            decided = two[:, 1] - two[:, 0] > 2 * moved
            same &= moved.max() <= MOVED * numpy.abs(logits).max() and (theirs.argmax(1) == top)[decided].all()
        equal = confusion.tolist() == done["confusion"]
        fine = max(levels) < LEVELS + 0.01 and max(far_off) <= LOGITS and same and equal
        print(f"{'ok  ' if fine else 'FAIL'} {name:38} levels: timm {levels[0]:.2f}, transformers {levels[1]:.2f}; logits: "
              f"onnxruntime {far_off[0]:.1e}, timm {far_off[1]:.1e}, transformers {far_off[2]:.1e}; top class of "
              f"{len(names)} images {'the same' if same else 'DIFFERS'}, confusion {'equal' if equal else 'DIFFERS'} "
              f"({done['accuracy']:.2f} right)", flush=True)
        return fine


def main(forebay):
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place) / "images"
        for split, count in (("train", 24), ("validation", 8), ("test", 16)):
            for label, name in enumerate(CLASSES):
                (root / split / name).mkdir(parents=True)
                for index in range(count):
                    seed = index + 100 * ("train", "validation", "test").index(split)
                    draw(label, seed).save(root / split / name / f"{index:02}.png")
        results = [check(forebay, root, *chain) for chain in CHAINS]
    print(f"{sum(results)} of {len(results)} chains are what the models say")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "forebay").resolve())
