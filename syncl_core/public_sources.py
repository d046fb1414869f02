"""What public checkpoints are called inside: names, things to leave out, class order and box convention per source.

A name that no rule below turns into one of ours, or drops, is an error of the conversion.
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass

from syncl_core.classes import DETECTION_CLASSES
from syncl_core.errors import InputError, list_names

Renames = tuple[tuple[str, str], ...]
"""(regular expression, replacement), applied in order to every name."""

BACKBONE = "img_backbone"
_PETR_CLASSES = (
    *("car", "truck", "construction_vehicle", "bus", "trailer", "barrier"),
    *("motorcycle", "bicycle", "pedestrian", "traffic_cone"),
)
_MMCV_RENAMES: Renames = (  # mmcv applies these when it loads files older than its attention lists
    (r"\.self_attn\.(?:attn\.)?", ".attentions.0.attn."),
    (r"\.multihead_attn\.(?:attn\.)?", ".attentions.1.attn."),
    (r"\.decoder\.norm\.", ".decoder.post_norm."),
)
_OFFSETS = (r"\.conv2_offset\.", ".conv2.conv_offset.")  # of deformable convolutions, as older mmcv wrote them
_STAGE_TWO = ("STReasoner", "query_feat_embedding")  # what PF-Track's second stage trains from nothing
_MUTR3D_PARTS = ("bbox_size_fc", "query_interact", "memory_bank", "tower", "voter", "proposer")
_NOT_BACKBONE = ("img_neck", "pts_bbox_head", "reference_points", "query_embedding", *_STAGE_TWO, *_MUTR3D_PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSource:
    """One family of public checkpoints."""

    name: str
    licence: str
    marker: str  # regular expression: a name that only this family has
    renames: Renames = ()
    drops: tuple[str, ...] = ()  # regular expressions of original names that inference has no use for
    may_lack: tuple[str, ...] = ()  # parts (first component of a name) that such a file need not hold
    classes: tuple[str, ...] = ()  # rows of the class layers; empty: it has none
    mmdet3d: str = "0.17"  # box convention: "0.17" is ours; "1.0" counts angles from the x axis and puts length first
    center_first: bool = False  # its box code begins with cx, cy, cz; in ours the height of the centre is fifth
    other_boxes: bool = True  # one layer gives the whole box code, so that a file may be in the other convention


PETRV2 = PublicSource(
    name="PETRv2",
    licence="no licence stated for the weights (code: Apache-2.0); nuScenes is for non-commercial use",
    marker=r"pts_bbox_head\.fpe\.",
    renames=((r"^pts_bbox_head\.(reference_points|query_embedding)\.", r"\1."), *_MMCV_RENAMES),
    drops=(r"pts_bbox_head\.code_weights$",),
    may_lack=_STAGE_TWO,
    classes=_PETR_CLASSES,
    other_boxes=False,
)
STREAM_PETR = PublicSource(
    name="StreamPETR",
    licence="no licence stated for the weights (code: Apache-2.0); nuScenes is for non-commercial use",
    marker=r"pts_bbox_head\.pseudo_reference_points\.weight$",
    renames=_MMCV_RENAMES,
    drops=(r"pts_bbox_head\.(code_weights|match_costs|pc_range|position_range|coords_d)$", r"img_roi_head\."),
    classes=_PETR_CLASSES,
    mmdet3d="1.0",
    center_first=True,
)
MUTR3D = PublicSource(
    name="MUTR3D",
    licence="no licence stated for the weights (code: MIT); nuScenes is for non-commercial use",
    marker=r"query_interact\.",
    renames=(_OFFSETS,),
    drops=(r"criterion\.code_weights$", r"radar_encoder\."),  # there is one, and it is never asked
    classes=DETECTION_CLASSES[:7],
    other_boxes=False,
)
PETR = PublicSource(
    name="PETR",
    licence="no licence stated for the weights (code: Apache-2.0); nuScenes is for non-commercial use",
    marker=r"pts_bbox_head\.reference_points\.weight$",
    renames=((r"^pts_bbox_head\.(reference_points|query_embedding)\.", r"\1."), *_MMCV_RENAMES),
    drops=(r"pts_bbox_head\.code_weights$",),
    may_lack=_STAGE_TWO,
    classes=_PETR_CLASSES,
)
PF_TRACK = PublicSource(
    name="PF-Track",
    licence="CC BY-NC-SA 4.0: no commercial use, share alike, name the authors",
    marker=r"reference_points\.weight$",
    renames=_MMCV_RENAMES,
    drops=(r"criterion\.code_weights$",),
    may_lack=_STAGE_TWO,
    classes=DETECTION_CLASSES,
)
DD3D = PublicSource(
    name="DD3D backbone",
    licence="code: MIT; no licence stated for the weights",
    marker=r"backbone\.bottom_up\.",
    renames=((r"^backbone\.bottom_up\.", f"{BACKBONE}."),),
    drops=(r"backbone\.(fpn_|top_block\.)", r"fcos[23]d_head\.", r"(attr_logits|speed)\.", r"pixel_(mean|std)$"),
    may_lack=_NOT_BACKBONE,
)
FCOS3D = PublicSource(
    name="FCOS3D backbone",
    licence="code: Apache-2.0 (mmdetection3d); no licence stated for the weights; nuScenes is for non-commercial use",
    marker=r"backbone\.conv1\.weight$",
    renames=(_OFFSETS, (r"^backbone\.", f"{BACKBONE}.")),
    drops=(r"neck\.", r"bbox_head\."),
    may_lack=_NOT_BACKBONE,
)
REMAPPED_BACKBONE = PublicSource(
    name="backbone",
    licence="not stated in the file; nuScenes is for non-commercial use",
    marker=rf"{BACKBONE}\.",
    may_lack=_NOT_BACKBONE,
)
RESNET = PublicSource(
    name="ResNet backbone",
    licence="code: BSD-3-Clause (torchvision); ImageNet's terms of use",
    marker=r"conv1\.weight$",
    renames=((r"^", f"{BACKBONE}."),),
    drops=(r"fc\.(weight|bias)$",),
    may_lack=_NOT_BACKBONE,
)
PF_TRACK_STAGE_TWO = dataclasses.replace(PF_TRACK, marker=rf"{_STAGE_TWO[0]}\.", may_lack=())  # whatever its detector
# In this order: the marker of a later one may also occur in the files of an earlier one.
SOURCES = (MUTR3D, STREAM_PETR, PF_TRACK_STAGE_TWO, PETRV2, PETR, PF_TRACK, DD3D, FCOS3D, REMAPPED_BACKBONE, RESNET)


def recognise(names: Iterable[str]) -> PublicSource:
    """The family that a file with these tensor names belongs to. Raises InputError if it is none we know."""
    names = list(names)
    for source in SOURCES:
        if any(re.match(source.marker, name) for name in names):
            return source
    known = ", ".join(dict.fromkeys(source.name for source in SOURCES))
    raise InputError(f"no checkpoint that can be converted; known: {known}; this one holds {list_names(names)}")


def rename(name: str, source: PublicSource) -> str:
    """Our name for one of the source's, or "" if it is dropped."""
    if any(re.match(pattern, name) for pattern in source.drops):
        return ""
    for pattern, replacement in source.renames:
        name = re.sub(pattern, replacement, name)
    return name
