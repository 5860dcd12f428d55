#!/usr/bin/env python3
"""Compares Grad-CAM with a reference in PyTorch, by hooks, on networks with random weights.

usage: gradcam.py FOREBAY [ARCH ...]

Needs torch, torchvision, numpy and safetensors. Nothing is downloaded: weights are torchvision's initial ones, with running
statistics drawn at random. Each image is explained for another class. Prints one line per network, and exits 1 if a value of a
map, whose largest is 1, is off by more than 1e-4.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import torch
    from safetensors.torch import load_file, save_file

    import parity
except ImportError as error:
    print(f"SKIPPED: Grad-CAM was NOT compared with PyTorch: {error}")
    sys.exit(77)

BOUND = 1e-4
# Compared where no network is named; the others take longer.
USUAL = ("resnet18", "mobilenet_v2", "mobilenet_v3_small")
# The side of the images, and the module whose output is the last that has places.
ARCHS = {
    "resnet18": (224, lambda network: network.layer4),
    "mobilenet_v2": (224, lambda network: network.features),
    "vgg11_bn": (224, lambda network: network.features),
    "resnet50": (161, lambda network: network.layer4),
    "mobilenet_v3_small": (150, lambda network: network.features),
    "efficientnet_b0": (128, lambda network: network.features),
    "inception_v3": (203, lambda network: network.Mixed_7c),
}


def reference(network, layer, images, labels):
    """Grad-CAM as the paper has it: planes weighted by the mean of their gradients, what is negative cut off, largest 1."""
    kept = {}

    def keep(_, __, output):
        kept["planes"] = output
        output.register_hook(lambda gradient: kept.update(gradients=gradient))

    handle = layer.register_forward_hook(keep)
    network.eval()
    logits = network(images)
    handle.remove()
    logits.gather(1, labels[:, None]).sum().backward()
    weights = kept["gradients"].mean((2, 3), keepdim=True)
    maps = (weights * kept["planes"]).sum(1).clamp(min=0).detach()
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-30)


def check(program, arch):
    side, layer = ARCHS[arch]
    images = torch.randn(parity.BATCH, 3, side, side, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(parity.BATCH) % parity.CLASSES
    network, state = parity.build(arch, 5, images)
    for module in network.modules():
        if isinstance(module, (torch.nn.ReLU, torch.nn.ReLU6, torch.nn.Hardswish, torch.nn.SiLU)):
            # A hook on what is changed in place would see the planes after the change.
            module.inplace = False
    network.double()
    expected = reference(network, layer(network), images.double(), labels)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        single = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        save_file(single, folder / "weights.safetensors")
        save_file({"input": images, "label": labels}, folder / "input.safetensors")
        subprocess.run([program, "forward", arch, "--weights", folder / "weights.safetensors", "--input",
                        folder / "input.safetensors", "--output", folder / "output.safetensors", "--grad-cam"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        maps = load_file(folder / "output.safetensors")["grad_cam"].double()
    error = (maps - expected).abs().max().item() if maps.shape == expected.shape else float("inf")
    lit = (expected > 0).double().mean().item()
    print(f"{'ok  ' if error <= BOUND else 'FAIL'} {arch:<19} maps {tuple(maps.shape)}, {lit:.0%} above 0: largest error {error:.2e}",
          flush=True)
    return error <= BOUND


def main():
    program, archs = sys.argv[1], sys.argv[2:] or USUAL
    torch.set_num_threads(2)
    results = [check(program, arch) for arch in archs]
    print(f"{sum(results)} of {len(results)} networks are explained as PyTorch explains them, within {BOUND}")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
