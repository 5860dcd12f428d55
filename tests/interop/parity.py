#!/usr/bin/env python3
"""Compares networks with torchvision's, or their PyTorch twins in cifar.py: logits, and all gradients, in both modes.

usage: parity.py FOREBAY [ARCH ...]

Needs torch, torchvision, numpy and safetensors. Weights are torchvision's initial ones, with running statistics drawn at
random; sizes are odd. Prints one line per network and exits 1 if an error is over its bound:
logits 1e-4; gradients 1e-3 of the largest of their tensor plus 1e-6 of the largest of the model, since a bias before a
batch normalisation has a true gradient of 0 and noise in f32.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import torch
    import torchvision
    from safetensors.torch import load_file, save_file

    import cifar
except ImportError as error:
    print(f"SKIPPED: parity with torchvision was NOT checked: {error}")
    sys.exit(77)

ARCHS = {
    "vgg11": 40, "vgg13": 34, "vgg16": 35, "vgg19": 33, "vgg11_bn": 40, "vgg13_bn": 33, "vgg16_bn": 36, "vgg19_bn": 34,
    "resnet18": 65, "resnet34": 67, "resnet50": 71, "resnet101": 69,
    "inception_v3": 107, "mobilenet_v2": 71, "mobilenet_v3_small": 73, "mobilenet_v3_large": 75,
    "efficientnet_b0": 71, "small": 33, "resnet20": 33, "resnet32": 31, "resnet56": 31, "resnet20_b": 33,
    "resnet32_b": 31, "resnet56_b": 33, "cifar_resnet18": 33, "cifar_resnet34": 31, "cifar_resnet50": 33,
}
# The seed that is tried first, where the usual one lies at a kink.
SEEDS = {"vgg11": 1, "vgg13_bn": 1, "vgg16_bn": 1}
TIMM = {
    "vgg16_bn": "vgg16_bn", "resnet18": "resnet18", "resnet50": "resnet50", "inception_v3": "inception_v3",
    "mobilenet_v2": "mobilenetv2_100", "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100", "efficientnet_b0": "efficientnet_b0",
}
CLASSES, BATCH = 7, 4


def create(arch):
    if arch in cifar.NETWORKS:
        return cifar.create(arch, CLASSES)
    keywords = {"aux_logits": True, "init_weights": True, "transform_input": False} if arch == "inception_v3" else {}
    return getattr(torchvision.models, arch)(weights=None, num_classes=CLASSES, **keywords)


def build(arch, seed, images, create=create):
    torch.manual_seed(seed)
    network = create(arch)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.2)
        norm.kept, norm.momentum = norm.momentum, 1.0
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if arch == "inception_v3":
        # Its weights stay in the file, and must be passed over; its loss is not part of ours.
        network.AuxLogits, network.aux_logits = None, False
    # Running statistics near those of the images, so that signals neither die nor explode in evaluation.
    network.train()
    with torch.no_grad():
        network(images)
    for norm in norms:
        norm.momentum = norm.kept
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
    state.update(network.state_dict())
    return network, state


def torch_pass(network, images, labels, mode):
    network.train(mode == "train")
    network.zero_grad()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    logits = network(images)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    gradients = {name: parameter.grad.double() for name, parameter in network.named_parameters()}
    return logits.detach().double(), loss.item(), gradients


def gradient_error(ours, theirs):
    """The worst error over its bound, and the parameter that has it."""
    largest = max(gradient.abs().max().item() for gradient in theirs.values())
    ratios = {
        name: ((ours[name].double() - gradient).abs().max() / (1e-3 * gradient.abs().max() + 1e-6 * largest)).item()
        for name, gradient in theirs.items()
    }
    name = max(ratios, key=ratios.get)
    return ratios[name], name


def forebay(program, folder, arch, mode, gradients, weights="weights.safetensors"):
    output = folder / f"{mode}.safetensors"
    command = [program, "forward", arch, "--weights", str(folder / weights), "--input",
               str(folder / "input.safetensors"), "--output", str(output), "--mode", mode]
    subprocess.run(command + ["--overwrite"] + (["--gradients"] if gradients else []), check=True, stderr=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)
    return load_file(output)


def check(program, arch, side):
    # Where the input of a ReLU, or two values of a pool, lie within rounding of a kink, a gradient may jump in either
    # program: then another seed is tried. A gradient that is wrong is wrong with all three. Preferred is a seed where
    # PyTorch's single precision agrees with its double precision; where none has that, ours may be as far off.
    held = False
    first = SEEDS.get(arch, 0)
    for seed in [first] + [seed for seed in range(3) if seed != first]:
        fine, noise = check_seed(program, arch, side, seed)
        if fine and noise < 1:
            return True
        held |= fine
    if not held:
        print(f"FAIL {arch}: with no seed")
    return held


def check_seed(program, arch, side, seed):
    labels = torch.arange(BATCH) % CLASSES
    images = torch.randn(BATCH, 3, side, side + 4, generator=torch.Generator().manual_seed(seed))
    network, state = build(arch, seed, images)
    single = {mode: torch_pass(network, images, labels, mode) for mode in ("eval", "train")}
    network.double()
    exact = {mode: torch_pass(network, images.double(), labels, mode) for mode in ("eval", "train")}
    # Ours may be as far off as PyTorch's own single precision.
    noise = max(gradient_error(single[mode][2], exact[mode][2])[0] for mode in exact)
    blur = max((single[mode][0] - exact[mode][0]).abs().max().item() for mode in exact) / 1e-4
    worst = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_file({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
                  folder / "weights.safetensors")
        save_file({"input": images, "label": labels}, folder / "input.safetensors")
        fused = forebay(program, folder, arch, "eval", False)["logits"]
        worst["fused logits"] = (fused - exact["eval"][0]).abs().max().item() / 1e-4
        for mode, (logits, loss, gradients) in exact.items():
            ours = forebay(program, folder, arch, mode, True)
            worst[f"{mode} logits"] = (ours["logits"] - logits).abs().max().item() / 1e-4
            worst[f"{mode} loss"] = abs(ours["loss"].item() - loss) / 1e-4
            ours = {name.removeprefix("grad."): g for name, g in ours.items() if name.startswith("grad.")}
            if ours.keys() != gradients.keys():
                raise SystemExit(f"{arch}: gradients on one side only: {sorted(ours.keys() ^ gradients.keys())[:5]}")
            worst[f"{mode} gradient"], _ = gradient_error(ours, gradients)
    bounds = {name: max(1, 2 * (noise if name.endswith("gradient") else blur)) for name in worst}
    fine = all(value <= bounds[name] for name, value in worst.items())
    shown = ", ".join(f"{name} {value:.3f}" for name, value in worst.items())
    verdict = "ok  " if fine else "jump"
    print(f"{verdict} {arch:<19} {side}x{side + 4} seed {seed} (PyTorch's own noise: gradients {noise:.3f}, logits {blur:.3f}), "
          f"error over bound: {shown}", flush=True)
    return fine, noise


def check_timm(program, arch, side):
    """The logits of timm's network from the same file."""
    try:
        import timm
    except ImportError as error:
        print(f"SKIPPED: {arch} was NOT compared with timm's: {error}")
        return True
    torch.manual_seed(1)
    network = timm.create_model(TIMM[arch], pretrained=False, num_classes=CLASSES)
    images = torch.randn(BATCH, 3, side, side + 4)
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(images)
        network.eval()
        expected = network(images)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()},
                  folder / "weights.safetensors")
        save_file({"input": images}, folder / "input.safetensors")
        ours = forebay(program, folder, arch, "eval", False)["logits"]
    error = (ours - expected).abs().max().item() / (1e-4 * max(1, expected.abs().max().item()))
    print(f"{'ok  ' if error <= 1 else 'FAIL'} {arch:<19} timm's {TIMM[arch]}: error over bound: {error:.3f}", flush=True)
    return error <= 1


def check_published(program, arch, side):
    """The logits from a file like the public ones of the networks for small images: legacy, of DataParallel, in a dict."""
    images = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(3))
    network, state = build(arch, 3, images)
    network.eval()
    with torch.no_grad():
        expected = network(images)
    error = 0.0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_file({"input": images}, folder / "input.safetensors")
        for new in (False, True):
            torch.save(cifar.as_published(state, 91.73), folder / "weights.th", _use_new_zipfile_serialization=new)
            ours = forebay(program, folder, arch, "eval", False, "weights.th")["logits"]
            error = max(error, (ours - expected).abs().max().item() / (1e-4 * max(1, expected.abs().max().item())))
    print(f"{'ok  ' if error <= 1 else 'FAIL'} {arch:<19} as published: error over bound: {error:.3f}", flush=True)
    return error <= 1


def main():
    program, archs = sys.argv[1], sys.argv[2:] or list(ARCHS)
    listed = subprocess.run([program, "models", "--json"], check=True, capture_output=True, text=True).stdout
    missing = {network["name"] for network in json.loads(listed)["networks"]} - set(ARCHS)
    if missing:
        raise SystemExit(f"networks that nothing is compared with: {sorted(missing)}")
    torch.set_num_threads(2)
    results = [check(program, arch, ARCHS[arch]) for arch in archs]
    results += [check_timm(program, arch, ARCHS[arch]) for arch in archs if arch in TIMM]
    results += [check_published(program, arch, ARCHS[arch]) for arch in archs if arch in ("resnet20", "resnet56")]
    print(f"{sum(results)} of {len(results)} comparisons with torchvision {torchvision.__version__} and timm are within their bounds")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
