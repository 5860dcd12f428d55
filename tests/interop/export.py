#!/usr/bin/env python3
"""Exports every network as ONNX and compares onnxruntime's logits with those of `forebay forward` and of PyTorch, and the
probabilities of ensembles with those of `forebay predict`; and opens the tables of `predict` and `eval` in pyarrow and pandas.

usage: export.py FOREBAY [ARCH ...]

Needs torch, torchvision, numpy, safetensors, pillow, onnx, onnxruntime, pyarrow and pandas. Weights are random, as in parity.py; sides are
odd but for some. Every file passes onnx's full check. Prints one line per network and exits 1 if an error is over 1e-4 of
the largest logit. Where random weights make PyTorch's own single precision miss its double precision by half of that or
more, as in resnet101, two sound programs may be further apart: the bound is then twice what PyTorch misses. Without the libraries nothing is checked, which is said loudly, with exit code 77.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy
    import onnx
    import onnxruntime
    import pandas
    import pyarrow
    import pyarrow.parquet
    import torch
    from PIL import Image
    from safetensors.torch import load_file, save_file

    import cifar
    import parity
except ImportError as missing:
    print(f"\n*** NOT CHECKED: {missing}. Exported networks were run in nothing. ***\n", file=sys.stderr)
    sys.exit(77)

# The grid of 7 x 7 means of VGG: smaller and larger images than it divides, and the usual ones.
SIDES = {
    "small": [33, 9], "vgg11": [224, 47], "vgg13": [257], "vgg16": [35], "vgg19": [33], "vgg11_bn": [65],
    "vgg13_bn": [33], "vgg16_bn": [36], "vgg19_bn": [97], "resnet18": [65, 224], "resnet34": [67], "resnet50": [71],
    "resnet101": [69], "resnet20": [33, 32], "resnet32": [31], "resnet56": [35], "resnet20_b": [33],
    "resnet32_b": [31], "resnet56_b": [35], "cifar_resnet18": [33],
    "cifar_resnet34": [29], "cifar_resnet50": [31], "inception_v3": [107, 299], "mobilenet_v2": [71, 224],
    "mobilenet_v3_small": [73, 224], "mobilenet_v3_large": [75], "efficientnet_b0": [71, 224],
}
BOUND = 1e-4
# Between probabilities.
SHARE_BOUND = 1e-5


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stdout


def opened(path, size):
    """A session of a file that is as it should be."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)])
    assert model.producer_name == "forebay"
    # Shapes as written are those that onnx infers from the operators.
    written = {value.name: value.type for value in model.graph.value_info}
    del model.graph.value_info[:]
    inferred = {value.name: value.type for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert written == inferred, [name for name in written if written[name] != inferred.get(name)][:3]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, size, size])
    assert (logits.name, logits.shape) == ("logits", ["batch", parity.CLASSES])
    return session


def error(ours, theirs):
    """The largest difference as a share of the largest logit."""
    return float(numpy.abs(ours - theirs).max() / numpy.abs(theirs).max())


def check(program, arch, side):
    images = torch.randn(parity.BATCH, 3, side, side, generator=torch.Generator().manual_seed(1))
    network, state = parity.build(arch, 1, images)
    network.eval()
    with torch.no_grad():
        single = network(images).numpy()
        expected = network.double()(images.double()).numpy()
    del network
    noise = error(single, expected)
    bound = max(BOUND, 2 * noise)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        weights, model = folder / "weights.safetensors", folder / "model.onnx"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights)
        save_file({"input": images}, folder / "input.safetensors")
        run(program, "forward", arch, "--weights", weights, "--input", folder / "input.safetensors", "--output",
            folder / "output.safetensors")
        ours = load_file(folder / "output.safetensors")["logits"].numpy()
        run(program, "export", weights, "--arch", arch, "--size", side, "--output", model)
        session, size = opened(model, side), model.stat().st_size
        logits = session.run(["logits"], {"images": images.numpy()})[0]
        # Any batch will do.
        one = session.run(["logits"], {"images": images[1:2].numpy()})[0]
    errors = error(logits, ours), error(logits, expected), error(one, ours[1:2])
    fine = max(errors) <= bound
    print(f"{'ok  ' if fine else 'FAIL'} {arch:<19} {side:>3} px, {size / 2**20:6.1f} MiB, largest logit "
          f"{numpy.abs(ours).max():.2f}, error of onnxruntime to forward {errors[0]:.1e}, to PyTorch in f64 {errors[1]:.1e}, "
          f"of one image {errors[2]:.1e} (bound {bound:.1e}, PyTorch in f32 {noise:.1e})", flush=True)
    return fine


NAMES = [f"class {index}|é" for index in range(parity.CLASSES)]


def draw(root, n):
    """So many images of 17 px of each class, the darker the class the lower its number."""
    draws = numpy.random.default_rng(1)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for index in range(n):
            pixels = draws.integers(0, 36 * (label + 1), (17, 17, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")


def check_run(program, activation, function):
    """A run folder whose head has a hidden layer, against PyTorch, and what the file says about it."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        draw(folder / "in", 4)
        run(program, "train", folder / "in", "--out", folder / "run", "--size", 17, "--epochs", 2, "--split", "none",
            "--head-width", 24, "--head-activation", activation, "--mean", "0.5,0.4,0.3", "--crop-pct", 0.9)
        run(program, "export", folder / "run", "--output", folder / "model.onnx")
        session = opened(folder / "model.onnx", 17)
        network = cifar.create("small", parity.CLASSES)
        network.fc = torch.nn.Sequential(
            torch.nn.Linear(256, 24), function, torch.nn.Dropout(), torch.nn.Linear(24, parity.CLASSES))
        network.load_state_dict(load_file(folder / "run" / "model.safetensors"))
    images = torch.randn(3, 3, 17, 17, generator=torch.Generator().manual_seed(2))
    network.eval()
    with torch.no_grad():
        expected = network(images).numpy()
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == sorted(NAMES) and told["architecture"] == "small", told
    assert (json.loads(told["mean"]), told["size"], told["crop_pct"]) == ([0.5, 0.4, 0.3], "17", "0.9"), told
    far = error(session.run(["logits"], {"images": images.numpy()})[0], expected)
    fine = far <= BOUND
    print(f"{'ok  ' if fine else 'FAIL'} a run of small with a hidden layer and {activation}: error to PyTorch {far:.1e}",
          flush=True)
    return fine


def check_ensemble(program, folder, vote):
    """An ensemble of two runs, exported: its probabilities of images are those of `predict`."""
    name, model = folder / vote, folder / f"{vote}.onnx"
    run(program, "ensemble", folder / "run1", folder / "run2", "--out", name, "--vote", vote)
    run(program, "export", name, "--output", model)
    session = opened(model, 17)
    told = session.get_modelmeta().custom_metadata_map
    classes, temperature = json.loads(told["classes"]), float(told["temperature"])
    mean, std = (numpy.array(json.loads(told[key]), dtype=numpy.float32) for key in ("mean", "std"))
    said = run(program, "predict", name, folder / "in", "--format", "jsonl", "--top", len(classes))
    rows = [json.loads(line) for line in said.splitlines()]
    assert len(rows) == sum(1 for _ in (folder / "in").rglob("*.png")), len(rows)
    images = [numpy.asarray(Image.open(folder / "in" / row["id"]).convert("RGB"), dtype=numpy.float32) for row in rows]
    images = ((numpy.stack(images) / 255 - mean) / std).transpose(0, 3, 1, 2)
    logits = session.run(["logits"], {"images": images})[0].astype(float) / temperature
    shares = numpy.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    ours = [{top["class"]: top["probability"] for top in row["top"]} for row in rows]
    ours = numpy.array([[row[name] for name in classes] for row in ours])
    far = float(numpy.abs(shares - ours).max())
    fine = far <= SHARE_BOUND and numpy.ptp(ours, axis=1).min() > 0
    print(f"{'ok  ' if fine else 'FAIL'} an ensemble of two runs with --vote {vote}: probabilities of {len(rows)} images at "
          f"temperature {temperature:.3f}, error of onnxruntime to predict {far:.1e}", flush=True)
    return fine


def check_tables(program, folder):
    """What pyarrow and pandas read of the tables of `predict` and of `eval`."""
    run(program, "predict", folder / "run1", folder / "in", "--output", folder / "predicted.parquet")
    run(program, "eval", folder / "run1", folder / "in", "--split", "all", "--out", folder / "scored")
    said = run(program, "predict", folder / "run1", folder / "in", "--format", "jsonl", "--top", len(NAMES))
    expected = {row["id"]: row for row in map(json.loads, said.splitlines())}
    classes = sorted(NAMES)
    text, number = pyarrow.string(), pyarrow.float32()
    types = {"id": text, "split": text, "label": text, "prediction": text, "confidence": number}
    for path, has_labels in ((folder / "predicted.parquet", False), (folder / "scored" / "predictions.parquet", True)):
        table = pyarrow.parquet.read_table(path)
        lists = table.schema.field("probabilities").type
        assert pyarrow.types.is_fixed_size_list(lists), lists
        assert (lists.list_size, lists.value_type) == (len(classes), number), lists
        assert table.schema.names == [*types, "probabilities"], table.schema.names
        assert all(table.schema.field(name).type == type for name, type in types.items()), table.schema
        assert json.loads(table.schema.metadata[b"classes"]) == classes, table.schema.metadata
        frame = pandas.read_parquet(path)
        assert list(frame.columns) == table.schema.names and frame["confidence"].dtype == numpy.float32, frame.dtypes
        assert set(frame["id"]) == set(expected) and len(frame) == len(expected), frame["id"]
        assert frame["label"].isna().all() == (not has_labels), frame["label"]
        if has_labels:
            assert (frame["label"] == frame["id"].str.split("/").str[0]).all(), frame
        shares = numpy.stack(frame["probabilities"].to_list())
        assert (shares.dtype, shares.shape) == (numpy.float32, (len(frame), len(classes))), shares
        assert numpy.abs(shares.sum(1) - 1).max() < 1e-6, shares.sum(1)
        assert (shares.max(1) == frame["confidence"]).all(), frame
        for row, share in zip(frame.itertuples(), shares):
            assert row.prediction == classes[share.argmax()] == expected[row.id]["prediction"], row
            for top in expected[row.id]["top"]:
                assert abs(top["probability"] - share[classes.index(top["class"])]) <= SHARE_BOUND, (row, top)
    print(f"ok   tables of {len(expected)} images: pyarrow {pyarrow.__version__} and pandas {pandas.__version__} read what "
          "predict and eval wrote", flush=True)
    return True


def check_votes(program):
    """Ensembles of two runs on one split, and the tables of one of them."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        draw(folder / "in", 8)
        for seed in (1, 2):
            run(program, "train", folder / "in", "--out", folder / f"run{seed}", "--seed", seed, "--size", 17, "--epochs", 2,
                "--batch-size", 8, "--doctor", "off", "--split", "0.5,0.3,0.2")
        return [*(check_ensemble(program, folder, vote) for vote in ("soft", "hard")), check_tables(program, folder)]


def main():
    program, archs = sys.argv[1], sys.argv[2:] or list(SIDES)
    torch.set_num_threads(2)
    results = [check(program, arch, side) for arch in archs for side in SIDES[arch]]
    if not sys.argv[2:]:
        for activation, function in (("relu", torch.nn.ReLU()), ("gelu", torch.nn.GELU()), ("silu", torch.nn.SiLU()),
                                     ("hard-swish", torch.nn.Hardswish())):
            results.append(check_run(program, activation, function))
        results.extend(check_votes(program))
    print(f"{sum(results)} of {len(results)} exported files and tables are what they should be in onnxruntime "
          f"{onnxruntime.__version__}")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
