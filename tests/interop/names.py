"""Checks the tables of names that the Rust tests read against torchvision, timm and transformers.

Each table pairs every tensor of a network under another library's name with torchvision's name for it. Here the
other library's network is given random weights, torchvision's network takes them through the table, and the
logits of both must agree. With --write the tables are written first: names in the order in which the libraries
register them, which the comparison of logits then proves or refutes.

Run: python tests/interop/names.py [--write]
"""

import pathlib
import re
import sys

try:
    import timm
    import torch
    import torchvision
    import transformers
except ImportError as error:
    print(f"SKIPPED: names.py needs torch, torchvision, timm and transformers: {error}", file=sys.stderr)
    sys.exit(77)

TABLES = pathlib.Path(__file__).resolve().parents[2] / "stages/train/src/weights/testdata"
STATISTICS = ["weight", "bias", "running_mean", "running_var"]


def resnet_of_transformers(depths, sizes, layer_type):
    config = transformers.ResNetConfig(
        depths=depths, hidden_sizes=sizes, layer_type=layer_type, num_labels=1000
    )
    return transformers.ResNetForImageClassification(config)


WIDE = [256, 512, 1024, 2048]
# Table -> (the other library's network, torchvision's network, side of the input).
NETWORKS = {
    "timm-vgg11": (lambda: timm.create_model("vgg11"), "vgg11", 224),
    "timm-vgg16_bn": (lambda: timm.create_model("vgg16_bn"), "vgg16_bn", 224),
    "timm-resnet18": (lambda: timm.create_model("resnet18"), "resnet18", 96),
    "timm-resnet50": (lambda: timm.create_model("resnet50"), "resnet50", 96),
    "timm-inception_v3": (lambda: timm.create_model("inception_v3"), "inception_v3", 299),
    "timm-mobilenet_v2": (lambda: timm.create_model("mobilenetv2_100"), "mobilenet_v2", 97),
    "timm-mobilenet_v3_small": (lambda: timm.create_model("mobilenetv3_small_100"), "mobilenet_v3_small", 97),
    "timm-mobilenet_v3_large": (lambda: timm.create_model("mobilenetv3_large_100"), "mobilenet_v3_large", 97),
    "timm-efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), "efficientnet_b0", 97),
    "transformers-resnet18": (
        lambda: resnet_of_transformers([2, 2, 2, 2], [64, 128, 256, 512], "basic"), "resnet18", 96),
    "transformers-resnet50": (lambda: resnet_of_transformers([3, 4, 6, 3], WIDE, "bottleneck"), "resnet50", 96),
    "transformers-mobilenet_v2": (
        lambda: transformers.MobileNetV2ForImageClassification(
            transformers.MobileNetV2Config(num_labels=1001, tf_padding=False)
        ), "mobilenet_v2", 97),
}


def without_prefix(name):
    return re.sub(r"^(resnet|mobilenet_v2)\.", "", name)


def randomise(network):
    """Values that leave no tensor without effect on the logits, and the logits of moderate size."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean") or (tensor.dim() == 1 and name.endswith("bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        elif tensor.dim() == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.75)
        elif tensor.dim() > 1:
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (1.4 / fan_in**0.5))


def ours(model, classes):
    options = {"weights": None, "num_classes": classes}
    if model == "inception_v3":
        options |= {"init_weights": False, "aux_logits": False, "transform_input": False}
    return getattr(torchvision.models, model)(**options)


def layers(network):
    """Layer -> shapes of its tensors, in the order of registration; counters left out."""
    found = {}
    for name, tensor in network.state_dict().items():
        layer, leaf = without_prefix(name).rsplit(".", 1)
        if leaf in STATISTICS and not layer.startswith("AuxLogits"):
            found.setdefault(layer, {})[leaf] = tuple(tensor.shape)
    return found


def in_order(found):
    """transformers registers a block's shortcut before its layers, torchvision after them."""
    names, held = [], []
    for name in found:
        if ".shortcut." in name:
            held.append(name)
            continue
        # The block of the shortcut ends where another one begins.
        if held and name.rsplit(".layer.", 1)[0] != held[0].rsplit(".shortcut.", 1)[0]:
            names, held = names + held, []
        names.append(name)
    return names + held


def write(table, other, network):
    theirs, mine = layers(other), layers(network)
    assert len(theirs) == len(mine), f"{table}: {len(theirs)} layers against {len(mine)}"
    with open(TABLES / f"{table}.txt", "w") as file:
        for their, my in zip(in_order(theirs), mine):
            shape = "x".join(map(str, theirs[their]["weight"]))
            norm = "n" if "running_mean" in theirs[their] else "b" if "bias" in theirs[their] else "w"
            file.write(f"{their} {my} {norm} {shape}\n")


def read(table):
    """Every tensor: the other library's name, torchvision's, shape."""
    for line in open(TABLES / f"{table}.txt"):
        their, my, kind, shape = line.split()
        shape = tuple(map(int, shape.split("x")))
        for leaf in {"w": STATISTICS[:1], "b": STATISTICS[:2], "n": STATISTICS}[kind]:
            yield f"{their}.{leaf}", f"{my}.{leaf}", shape if leaf == "weight" else shape[:1]


def check(table):
    build, model, side = NETWORKS[table]
    torch.manual_seed(0)
    other = build().eval()
    with torch.no_grad():
        randomise(other)
    state = {without_prefix(name): tensor for name, tensor in other.state_dict().items()}
    network = ours(model, other.config.num_labels if hasattr(other, "config") else 1000).eval()
    if "--write" in sys.argv:
        write(table, other, network)
    wanted = network.state_dict()
    taken = {}
    for their, my, shape in read(table):
        assert tuple(state[their].shape) == shape, f"{table}: {their} is {tuple(state[their].shape)}, not {shape}"
        taken[my] = state[their].reshape(wanted[my].shape)
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    assert set(taken) == set(wanted) - counters, f"{table}: {set(taken) ^ (set(wanted) - counters)}"
    left = {name for name in state if not name.endswith("num_batches_tracked")} - {row[0] for row in read(table)}
    assert not left, f"{table}: without a partner: {left}"
    network.load_state_dict(taken | {name: wanted[name] for name in counters})
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = network(images)
        theirs = other(images)
        theirs = getattr(theirs, "logits", theirs)
    scale = logits.abs().max().item()
    difference = (logits - theirs).abs().max().item()
    epsilons = lambda n: sorted({m.eps for m in n.modules() if isinstance(m, torch.nn.BatchNorm2d)})
    note = "" if epsilons(network) == epsilons(other) else f"; eps {epsilons(other)} there, {epsilons(network)} here"
    if note:
        # The same numbers behind the root: what is left is the names.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = epsilons(other)[0]
        with torch.no_grad():
            same = (network(images) - theirs).abs().max().item()
        note += f", {same:.1e} with theirs"
        difference = same
    print(f"{table:26} {len(taken):4} tensors, logits within {difference:.1e} of {scale:.2g}{note}")
    assert difference <= 1e-4 * max(1.0, scale), f"{table}: logits differ by {difference}"


if __name__ == "__main__":
    for table in NETWORKS:
        check(table)
