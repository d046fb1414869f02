"""From a name in a configuration to its backbone."""

from torch import nn

from syncl_core.errors import InputError
from syncl_core.models.backbones.resnet import ResNet
from syncl_core.models.backbones.small import LEAN, SmallBackbone
from syncl_core.models.backbones.vovnet import VoVNet99

_DEFORMABLE = (3, 4)


def build_backbone(name: str, num_maps: int = 2) -> nn.Module:
    """The backbone `model.backbone`, which gives its `num_maps` (at most 3) coarsest maps, down to stride 32."""
    match name:
        case "small":
            return SmallBackbone(num_maps)
        case "lean":
            return SmallBackbone(num_maps, LEAN)
        case "v2_99":
            return VoVNet99(num_maps)
        case "resnet50":
            return ResNet(50, "pytorch", num_maps)
        case "resnet101":
            return ResNet(101, "pytorch", num_maps)
        case "resnet50_caffe":
            return ResNet(50, "caffe", num_maps)
        case "resnet101_caffe":
            return ResNet(101, "caffe", num_maps)
        case "resnet50_caffe_dcn":
            return ResNet(50, "caffe", num_maps, _DEFORMABLE)
        case "resnet101_caffe_dcn":
            return ResNet(101, "caffe", num_maps, _DEFORMABLE)
    known = "small, lean, v2_99, resnet50, resnet101, resnet50_caffe, resnet101_caffe"
    raise InputError(f"model.backbone: unknown backbone {name!r}; known: {known}, the last two also with _dcn")
