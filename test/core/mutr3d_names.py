"""What a public MUTR3D checkpoint holds, name by name, derived from the released modules and configurations.

ResNet, FPN and transformer layers are named as mmdetection 2.12 and mmcv 1.3.14 name them; the numbers are those of
resnet101_fpn_3frame and resnet50_fpn_5frame.
"""

import torch

from syncl_core.tracking.base import Tracker

Shapes = dict[str, tuple[int, ...]]
DIM, QUERIES, FFN, LAYERS, CAMERAS, LEVELS, CLASSES = 256, 300, 512, 6, 6, 4, 7
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def public_shapes(depth: int) -> Shapes:
    """Everything inference reads."""
    shapes = _backbone(depth) | _neck() | _head()
    shapes |= _linear("reference_points", DIM, 3) | _linear("bbox_size_fc", DIM, 3)
    shapes["query_embedding.weight"] = (QUERIES, 2 * DIM)
    shapes |= _attention("query_interact.self_attn") | _attention("memory_bank.temporal_attn")
    for name in ("linear1", "linear2", "linear_pos1", "linear_pos2", "linear_feat1", "linear_feat2"):
        shapes |= _linear(f"query_interact.{name}", DIM, DIM)
    for name in ("norm_pos", "norm_feat", "norm1", "norm2"):
        shapes |= _norm(f"query_interact.{name}", DIM)
    for name in ("save_proj", "temporal_fc1", "temporal_fc2"):
        shapes |= _linear(f"memory_bank.{name}", DIM, DIM)
    return shapes | _norm("memory_bank.temporal_norm1", DIM) | _norm("memory_bank.temporal_norm2", DIM)


def unused_shapes() -> Shapes:
    """What the file holds beside: the loss's weights and a radar encoder that is built but never called."""
    radar = {"radar_encoder.feat_layers.0.linear.weight": (32, 13)}
    return {"criterion.code_weights": (10,)} | radar | _batch_norm("radar_encoder.feat_layers.0.norm", 32)


def mutr3d_file(tracker: Tracker) -> dict[str, torch.Tensor]:
    """The weights of a tracker as a public file holds them."""
    extra = {name: torch.ones(shape) for name, shape in unused_shapes().items()}
    return {name: value.clone() for name, value in tracker.state_dict().items()} | extra


def _linear(name: str, ins: int, outs: int) -> Shapes:
    return {f"{name}.weight": (outs, ins), f"{name}.bias": (outs,)}


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _batch_norm(name: str, dim: int) -> Shapes:
    running = {f"{name}.running_mean": (dim,), f"{name}.running_var": (dim,), f"{name}.num_batches_tracked": ()}
    return _norm(name, dim) | running


def _attention(name: str) -> Shapes:
    packed = {f"{name}.in_proj_weight": (3 * DIM, DIM), f"{name}.in_proj_bias": (3 * DIM,)}
    return packed | _linear(f"{name}.out_proj", DIM, DIM)


def _backbone(depth: int) -> Shapes:
    shapes = {"img_backbone.conv1.weight": (64, 3, 7, 7)} | _batch_norm("img_backbone.bn1", 64)
    ins = 64
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        width = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            name = f"img_backbone.layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, ins, 1, 1)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            shapes |= _batch_norm(f"{name}.bn1", width) | _batch_norm(f"{name}.bn2", width)
            shapes |= _batch_norm(f"{name}.bn3", 4 * width)
            if stage in (3, 4):  # 9 kernel points: down, right and weight of each
                shapes[f"{name}.conv2.conv_offset.weight"] = (27, width, 3, 3)
                shapes[f"{name}.conv2.conv_offset.bias"] = (27,)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, ins, 1, 1)
                shapes |= _batch_norm(f"{name}.downsample.1", 4 * width)
            ins = 4 * width
    return shapes


def _neck() -> Shapes:
    shapes = {}
    for i, channels in enumerate((512, 1024, 2048)):
        shapes[f"img_neck.lateral_convs.{i}.conv.weight"] = (DIM, channels, 1, 1)
        shapes |= _batch_norm(f"img_neck.lateral_convs.{i}.bn", DIM)
    for i in range(LEVELS):
        shapes[f"img_neck.fpn_convs.{i}.conv.weight"] = (DIM, DIM, 3, 3)
        shapes |= _batch_norm(f"img_neck.fpn_convs.{i}.bn", DIM)
    return shapes


def _head() -> Shapes:
    shapes = {"pts_bbox_head.level_embeds": (LEVELS, DIM), "pts_bbox_head.cam_embeds": (CAMERAS, DIM)}
    for i in range(LAYERS):
        layer = f"pts_bbox_head.transformer.decoder.layers.{i}"
        shapes |= _attention(f"{layer}.attentions.0.attn")
        sampling = f"{layer}.attentions.1"
        shapes |= _linear(f"{sampling}.attention_weights", DIM, CAMERAS * LEVELS)
        shapes |= _linear(f"{sampling}.output_proj", DIM, DIM)
        shapes |= _linear(f"{sampling}.position_encoder.0", 3, DIM) | _norm(f"{sampling}.position_encoder.1", DIM)
        shapes |= _linear(f"{sampling}.position_encoder.3", DIM, DIM) | _norm(f"{sampling}.position_encoder.4", DIM)
        shapes |= _linear(f"{layer}.ffns.0.layers.0.0", DIM, FFN) | _linear(f"{layer}.ffns.0.layers.1", FFN, DIM)
        for k in range(3):
            shapes |= _norm(f"{layer}.norms.{k}", DIM)
        shapes |= _branches(i)
    return shapes


def _branches(layer: int) -> Shapes:
    name = f"pts_bbox_head.cls_branches.{layer}"
    shapes = _linear(f"{name}.6", DIM, CLASSES)
    for k in (0, 3):
        shapes |= _linear(f"{name}.{k}", DIM, DIM) | _norm(f"{name}.{k + 1}", DIM)
    for kind, size in (("reg", 6), ("direction", 2), ("velo", 2)):
        name = f"pts_bbox_head.{kind}_branches.{layer}"
        shapes |= _linear(f"{name}.0", DIM, DIM) | _linear(f"{name}.2", DIM, DIM) | _linear(f"{name}.4", DIM, size)
    return shapes
