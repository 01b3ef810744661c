"""The network as it is exported: uint8 images in, detections of fixed shape out."""

from __future__ import annotations

import copy
import itertools

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.quantization import imitate_int8


class _Folded(nn.Module):
    """Holds a copy of a trained model in float, with batch-norm folded into its convolutions."""

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        imitate_int8(self.model, None)
        fold_norms(self.model)


class DetectionGraph(_Folded):
    """A detector with its normalisation, decoding and suppression inside; what is exported is traced from here."""

    def forward(self, images: Tensor, score_threshold: Tensor, iou_threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections in network pixels.

        Args:
            images: ``(B, H, W, 3)`` uint8 RGB, in the network's size.
            score_threshold: Scalar, minimum score.
            iou_threshold: Scalar, overlap from which two boxes of one class are one object.

        Returns:
            Boxes ``(B, N, 4)`` xyxy, scores ``(B, N)`` best first and 0 where there are fewer, labels ``(B, N)``.
        """
        candidates = self.model.candidates(images.permute(0, 3, 1, 2))
        return self.model.postprocess.fixed(candidates, score_threshold, iou_threshold)


class CandidateGraph(_Folded):
    """The same up to decoded boxes and scores, for runtimes without suppression."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """RGB pixels 0..255 ``(B, 3, H, W)`` float32 to boxes ``(B, A, 4)`` and scores ``(B, A, K)``."""
        candidates = self.model.candidates(pixels)
        return candidates.boxes, candidates.scores


class ImageCandidateGraph(CandidateGraph):
    """The same from images as :class:`DetectionGraph` takes them."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(B, H, W, 3)`` uint8 RGB to boxes ``(B, A, 4)`` and scores ``(B, A, K)``."""
        return super().forward(images.permute(0, 3, 1, 2))


def fold_norms(model: nn.Module) -> None:
    """Fold every batch-norm that directly follows a convolution into it, in place."""
    for block in list(model.modules()):
        children = list(block.named_children())
        for (name, layer), (next_name, norm) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                # The fused copy keeps the layer's own class, and with it the way it pads.
                setattr(block, name, fuse_conv_bn_eval(layer.eval(), norm.eval()))
                setattr(block, next_name, nn.Identity())
