"""A block family of your own, used without touching the package.

Shows the two files of a family (`residual/spec.py` and `residual/module.py`: the block of ResNet) and how to register
it, a space that chooses between it and MBConv, and that a network cut out of the supernet computes what the supernet
computes. The page that explains each part is docs/extend-block.md.
Needs: the folder `residual` beside this script. Takes: some seconds. Writes: nothing.
Prints: how many networks the space has; of three of them the blocks, the sizes, and how far logits of both are apart.

    python examples/your_own_block.py
"""

from __future__ import annotations

import numpy as np
import torch

from nas import Head, ImageInput, Layout, NetworkSpace, Operator, Stage, Stem, Supernet, extract
from residual.spec import ResidualSpec
from search_spaces.blocks import FAMILIES

FAMILIES[ResidualSpec.family] = ResidualSpec  # from here on, layouts may name it


def residual_or_mbconv(width: tuple[int, ...], hidden: tuple[int, ...], *, stride: int) -> Stage:
    """Return a stage in which every block is one of the two."""
    residual = Operator(family="residual", sizes=(("kernel", (3, 5)), ("hidden", hidden)))
    mbconv = Operator(family="mbconv", sizes=(("kernel", (3, 5)), ("expansion", (2, 4))))
    return Stage(width=width, depth=(1, 2), operators=(residual, mbconv), stride=stride)


def main() -> None:
    """Build the space and its supernet, and compare three subnets with their extracted copies."""
    space = NetworkSpace(
        Layout(
            name="resnet-like",
            input=ImageInput(channels=3, resolution=32, classes=10),
            stem=Stem(settings=(("kernel", 3), ("stride", 2))),
            stages=(
                residual_or_mbconv((16, 32), (16, 32), stride=1),
                residual_or_mbconv((32, 64), (32, 64), stride=2),
            ),
            head=Head(settings=(("features", 64),)),
        )
    )
    ours = sum(isinstance(block, ResidualSpec) for block in space.blocks)
    print(f"{space.count():,} networks, of {len(space.blocks)} distinct blocks, {ours} of them residual")

    supernet = Supernet(space, seed=0).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for genome in space.sample(3, np.random.default_rng(0)):
        spec = space.lower(genome)
        network = extract(supernet, spec)
        with torch.inference_mode():
            difference = (supernet(images, spec) - network(images)).abs().max()
        print(f"{space.architecture(genome).id}: {' '.join(placed.block.family for placed in spec)}")
        in_torch = sum(weights.numel() for weights in network.parameters())
        print(f"  {spec.macs():,} MACs; {spec.params():,} parameters counted, {in_torch:,} in torch")
        print(f"  logits of supernet and extracted network differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()
