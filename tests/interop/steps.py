"""Ten training steps of Forebay and of PyTorch from the same weights on the same images: the losses must be equal.

    python tests/interop/steps.py path/to/forebay [ARCH...]

Each network takes ten steps on one batch, by SGD with momentum, by AdamW, by both in one cycle, and with class weights and
label smoothing; the last also with each loss for uneven classes, written out as in its paper. All goes through the program itself: a folder of images, `forebay train`, the losses in its steps.jsonl. Losses may
differ by a thousandth of the first one; so may those of PyTorch itself when it starts from the same weights rounded
differently, which is printed beside.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import torch
    import torchvision
    from PIL import Image
    from safetensors.torch import save_file
except ImportError as error:
    print(f"SKIPPED: steps.py needs torch, torchvision, Pillow and safetensors: {error}", file=sys.stderr)
    sys.exit(77)

ARCHS = ["resnet18", "mobilenet_v2", "mobilenet_v3_small"]
SIDE, CLASSES, STEPS = 64, 4, 10
BOUND = 1e-3
COUNTS = [7, 4, 3, 2]
SGD = ["--optimizer", "sgd", "--lr", "0.0003", "--weight-decay", "0.0005"]
ADAMW = ["--optimizer", "adamw", "--lr", "0.0003", "--weight-decay", "0.05"]
PLAIN = ["--schedule", "constant", "--warmup", "0"]
RECIPES = {
    "sgd": SGD + PLAIN + ["--momentum", "0.9"],
    "adamw": ADAMW + PLAIN,
    "sgd one-cycle": SGD + ["--schedule", "one-cycle"],
    "adamw one-cycle": ADAMW + ["--schedule", "one-cycle"],
    "sgd weighted": SGD + PLAIN + ["--momentum", "0.9", "--class-weights", "sqrt", "--label-smoothing", "0.1"],
}
# Each loss of arXiv papers, on the last network only: its steps hardly magnify what rounding leaves.
LOSSES = {
    "sgd focal": ["--loss", "focal", "--focal-gamma", "1.5"],
    "sgd cb-focal": ["--loss", "cb-focal", "--effective-beta", "0.9"],
    "sgd ldam": ["--loss", "ldam", "--effective-beta", "0.9", "--defer", "0.5"],
    "sgd balanced-softmax": ["--loss", "bsm"],
    "sgd logit-adjustment": ["--loss", "la", "--logit-tau", "1.3"],
    "sgd effective": ["--class-weights", "effective", "--effective-beta", "0.9", "--defer", "0.5"],
}
LOSSES = {name: SGD + PLAIN + ["--momentum", "0.9", *options] for name, options in LOSSES.items()}


def draw(folder):
    """Sixteen images, as files below a folder per class, and as [16, 3, SIDE, SIDE] with their labels."""
    noise = numpy.random.default_rng(3)
    pixels, labels = [], []
    for label in range(CLASSES):
        place = folder / "train" / f"class{label}"
        place.mkdir(parents=True)
        for index in range(COUNTS[label]):
            image = noise.integers(0, 256, (8, 8, 3), dtype=numpy.uint8).repeat(SIDE // 8, 0).repeat(SIDE // 8, 1)
            image[:, :, label % 3] //= label // 3 + 2
            Image.fromarray(image).save(place / f"{index}.png")
            pixels.append(image)
            labels.append(label)
    images = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1), torch.tensor(labels)


class Cosines(torch.nn.Module):
    """The head of LDAM: cosines times 30."""

    def __init__(self, linear):
        super().__init__()
        self.weight = torch.nn.Parameter(linear.weight.detach().clone())

    def forward(self, x):
        normalize = torch.nn.functional.normalize
        return 30 * torch.nn.functional.linear(normalize(x), normalize(self.weight))


def effective(dtype, beta):
    counts = torch.tensor(COUNTS, dtype=dtype)
    return (1 - beta) / (1 - beta**counts)


def loss_of(recipe, logits, labels, step):
    """The losses as their papers write them."""
    cross_entropy, log_softmax = torch.nn.functional.cross_entropy, torch.nn.functional.log_softmax
    counts = torch.tensor(COUNTS, dtype=logits.dtype)
    own = torch.arange(len(labels))
    log = log_softmax(logits, 1)[own, labels]
    if recipe == "sgd focal":
        return -((1 - log.exp()) ** 1.5 * log).mean()
    if recipe == "sgd cb-focal":
        weights = effective(logits.dtype, 0.9)
        weights = weights / weights.sum() * CLASSES
        return -(weights[labels] * (1 - log.exp()) ** 2 * log).mean()
    if recipe == "sgd ldam":
        margins = counts**-0.25
        margins = margins * (0.5 / margins.max())
        shifted = logits.clone()
        shifted[own, labels] -= 30 * margins[labels]
        return cross_entropy(shifted, labels, weight=effective(logits.dtype, 0.9) if step >= STEPS // 2 else None)
    if recipe == "sgd balanced-softmax":
        return cross_entropy(logits + counts.log(), labels)
    if recipe == "sgd logit-adjustment":
        return cross_entropy(logits + 1.3 * (counts / counts.sum()).log(), labels)
    if recipe == "sgd effective":
        return cross_entropy(logits, labels, weight=effective(logits.dtype, 0.9) if step >= STEPS // 2 else None)
    weighted = {}
    if recipe.endswith("weighted"):
        weights = counts.rsqrt()
        weighted = {"weight": weights * counts.sum() / (weights * counts).sum(), "label_smoothing": 0.1}
    return cross_entropy(logits, labels, **weighted)


def build(arch):
    torch.manual_seed(5)
    options = {"stochastic_depth_prob": 0.0} if arch.startswith("efficientnet") else {}
    model = getattr(torchvision.models, arch)(num_classes=CLASSES, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def theirs(model, recipe, images, labels, dtype):
    if recipe == "sgd ldam":
        model.classifier[-1] = Cosines(model.classifier[-1])
    model = model.to(dtype).train()
    is_sgd = recipe.startswith("sgd")
    decay = 0.0005 if is_sgd else 0.05
    # Biases and norms are not decayed.
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if is_sgd:
        update = torch.optim.SGD(groups, lr=0.0003, momentum=0.9)
    else:
        update = torch.optim.AdamW(groups, lr=0.0003)
    cycle = None
    if recipe.endswith("one-cycle"):
        cycle = torch.optim.lr_scheduler.OneCycleLR(update, max_lr=0.0003, total_steps=STEPS)
    losses = []
    for step in range(STEPS):
        update.zero_grad()
        loss = loss_of(recipe, model(images.to(dtype)), labels, step)
        loss.backward()
        update.step()
        if cycle and step + 1 < STEPS:
            cycle.step()
        losses.append(loss.item())
    return losses


def ours(forebay, work, arch, recipe):
    out = work / f"{arch}-{recipe.replace(' ', '-')}"
    command = [forebay, "train", work / "in", "--out", out, "--arch", arch, "--weights", work / f"{arch}.safetensors"]
    command += ["--size", SIDE, "--force", "--split", "none", "--batch-size", 16, "--epochs", STEPS, "--recipe", "plain"]
    command += ["--dropout", 0, "--log-every", 1, "--doctor", "off", *{**RECIPES, **LOSSES}[recipe]]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["loss"] for line in (out / "steps.jsonl").read_text().splitlines()]


def main():
    forebay, archs = sys.argv[1], sys.argv[2:] or ARCHS
    # More threads spin while they wait for each other.
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        images, labels = draw(work / "in")
        for arch in archs:
            kept = {k: v.contiguous() for k, v in build(arch).state_dict().items()}
            save_file({k: v for k, v in kept.items() if v.is_floating_point()}, work / f"{arch}.safetensors")
            for recipe in [*RECIPES, *(LOSSES if arch == ARCHS[-1] else [])]:
                single = theirs(build(arch), recipe, images, labels, torch.float32)
                double = theirs(build(arch), recipe, images, labels, torch.float64)
                found = ours(forebay, work, arch, recipe)
                assert len(found) == STEPS, found
                off = max(abs(a - b) for a, b in zip(found, double)) / double[0]
                noise = max(abs(a - b) for a, b in zip(single, double)) / double[0]
                right = off <= max(BOUND, 2 * noise)
                failed += not right
                print(
                    f"{arch:20} {recipe:21} loss {found[0]:.4f} -> {found[-1]:.4f}, off by {off:.1e} "
                    f"(PyTorch's own single precision by {noise:.1e}) {'ok' if right else 'WRONG'}",
                    flush=True,
                )
    sys.exit(failed > 0)


main()
