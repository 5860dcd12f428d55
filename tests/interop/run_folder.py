"""Opens a run folder of Forebay in timm, transformers and TensorBoard, and compares what they say with the run.

    python tests/interop/run_folder.py target/release/forebay [ARCH...] the check, of resnet18 or these networks

Needs torch, torchvision, timm, transformers, tensorboard and pillow. Without them nothing is checked, which is
said loudly, with exit code 77.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import timm
    import torch
    import torchvision
    import transformers
    from PIL import Image
    from safetensors.torch import load_file
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as missing:
    print(f"\n*** NOT CHECKED: {missing}. Run folders were opened in nothing. ***\n", file=sys.stderr)
    sys.exit(77)


def draw(root):
    """Three classes of 32 px images that are told apart by a stripe; every seventh has the stripe of another."""
    draws = numpy.random.default_rng(1)
    for split, count in (("train", 40), ("validation", 12), ("test", 30)):
        for label, name in enumerate(("cat", "dog|2", "emu é")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = draws.integers(0, 256, (32, 32, 3), dtype=numpy.uint8)
                shown = (label + (index % 7 == 3)) % 3
                pixels[:, 10 * shown : 10 * shown + 4] //= 2
                Image.fromarray(pixels).save(folder / f"{index}.png")


def confusion(predict, root, names):
    counts = numpy.zeros((len(names), len(names)), dtype=int)
    for truth, name in enumerate(names):
        for path in sorted((root / "test" / name).iterdir()):
            counts[truth, predict(Image.open(path).convert("RGB"))] += 1
    return counts.tolist()


def check(forebay, arch):
    with tempfile.TemporaryDirectory() as place:
        root, run = pathlib.Path(place) / "images", pathlib.Path(place) / "run"
        draw(root)
        said = subprocess.run(
            [forebay, "train", root, "--out", run, "--arch", arch, "--size", "32", "--epochs", "3",
             "--batch-size", "12", "--lr", "0.003", "--log-every", "2", "--json"],
            stdout=subprocess.PIPE, check=True, text=True,
        )
        done = json.loads(said.stdout.splitlines()[-1])
        assert 0 < done["accuracy"] < 1, "a confusion matrix that says something"
        names = (run / "labels.txt").read_text().splitlines()
        assert names == [row["class"] for row in done["classes"]], names

        model = timm.create_model(f"local-dir:{run}", pretrained=True).eval()
        assert model.num_classes == 3
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        with torch.no_grad():
            counts = confusion(lambda image: model(transform(image)[None]).argmax().item(), root, names)
        assert counts == done["confusion"], (counts, done["confusion"])
        print(f"timm {timm.__version__}: opens it; the confusion matrix of {sum(map(sum, counts))} images is equal")

        stored = load_file(run / "model.safetensors")
        assert stored.keys() == model.state_dict().keys(), stored.keys() ^ model.state_dict().keys()

        processor = transformers.AutoImageProcessor.from_pretrained(run)
        network, report = transformers.AutoModelForImageClassification.from_pretrained(run, output_loading_info=True)
        network.eval()
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not report[what], (what, report[what])
        assert [network.config.id2label[i] for i in range(3)] == names, network.config.id2label
        with torch.no_grad():
            counts = confusion(
                lambda image: network(**processor(image, return_tensors="pt")).logits.argmax().item(), root, names
            )
        assert counts == done["confusion"], (counts, done["confusion"])
        print(f"transformers {transformers.__version__}: opens it; its confusion matrix is equal")

        # A run that went on: its second event file takes over from the step of the checkpoint.
        subprocess.run(
            [forebay, "train", "--config", run / "config.toml", "--resume"],
            stdout=subprocess.PIPE, check=True,
        )
        events = EventAccumulator(str(run), size_guidance={"scalars": 0})
        events.Reload()
        steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for tag, points, key in (
            ("step/loss", steps, "loss"), ("step/accuracy", steps, "accuracy"),
            ("step/learning_rate", steps, "learning_rate"), ("step/images_per_second", steps, "images_per_second"),
        ):
            shown = [(event.step, event.value) for event in events.Scalars(tag)]
            wanted = [(point["step"], numpy.float32(point[key])) for point in points]
            assert shown == wanted and len(shown) == 15, (tag, shown, wanted)
        for tag, key in (
            ("loss/train", "train_loss"), ("loss/validation", "validation_loss"),
            ("accuracy/train", "train_accuracy"), ("accuracy/validation", "validation_accuracy"),
            ("learning_rate", "learning_rate"), ("images_per_second", "images_per_second"),
        ):
            shown = [(event.step, event.value) for event in events.Scalars(tag)]
            assert shown == [(epoch["steps"], numpy.float32(epoch[key])) for epoch in epochs], (tag, shown)
        print(f"TensorBoard: {len(events.Tags()['scalars'])} tags, every value equal")


if __name__ == "__main__":
    for arch in sys.argv[2:] or ["resnet18"]:
        print(f"== {arch}")
        check(pathlib.Path(sys.argv[1]).resolve(), arch)
