"""MobileNetV2: the plain convolutional baseline, torchvision's, with one more block for X6.

    frame -> features 0..6 (1/8) -> 7..13 (1/16) -> 14..17 (1/32) -> x6 block (1/64)
                     |                  |               |               |
                     X3 (32)            X4 (96)         X5 (320)        X6 (320)

No part of it sees the whole frame at once: what that costs is what the comparison shows.
Nothing is injected. The keys are torchvision's, whose ImageNet checkpoint loads as it is.

Lesson: notebooks/02_backbone.ipynb
"""

from torch import Tensor, nn

from minst.backbones.base import BackboneFeatures

__all__ = ["MOBILENET_WIDTHS", "MobileNetV2"]

# The width of 0.6 has as many MACs as the tiny transformers, for a fair comparison (minst.lab).
MOBILENET_WIDTHS = {"mobilenetv2": 1.0, "mobilenetv2-0.6": 0.6}
LAST_LAYERS = (6, 13, 17)  # of the resolutions 1/8, 1/16, 1/32


class MobileNetV2(nn.Module):
    """width: factor on all channels, rounded to multiples of 8 (Sandler et al., 2018).

    token_stride: 64, or 32: the block of X6 at stride 1.
    """

    # No ImageNet checkpoint has our additional block.
    optional_keys = ("x6.",)

    def __init__(self, token_stride: int = 64, width: float = 1.0):
        # torchvision takes over a second to import: only who builds this backbone waits for it.
        from torchvision.models import mobilenet_v2
        from torchvision.models.mobilenetv2 import InvertedResidual

        super().__init__()
        self.features = mobilenet_v2(weights=None, width_mult=width).features[:18]
        c3, c4, c5 = (self.features[last].out_channels for last in LAST_LAYERS)
        # Assumption: X6 is one more inverted residual of the same width, of expansion 2 (6 would
        # cost a tenth of the backbone). X5 is the last map before the classifier's convolution.
        self.x6 = InvertedResidual(c5, c5, stride=token_stride // 32, expand_ratio=2)
        # torchvision initialises a whole network from outside; a block alone is left to us.
        for conv in self.x6.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        self.out_channels: tuple[int, int, int, int] = (c3, c4, c5, c5)

    def forward(self, x: Tensor) -> BackboneFeatures:
        """(B, 3, H, W), normalised -> X3, X4, X5 and X6."""
        # One row of layers, in which each resolution's last output is its richest.
        outputs = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in LAST_LAYERS:
                outputs.append(x)
        x3, x4, x5 = outputs
        return BackboneFeatures(x3, x4, x5, self.x6(x5))
