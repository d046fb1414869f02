"""Names and shapes are those of the public PF-Track checkpoints; weights depend on the seed alone."""

import hashlib
import subprocess
import sys

import torch
from tiny_tracker import tiny_config

from syncl_core.config import SynclConfig
from syncl_core.models.neck import CPFPN
from syncl_core.tracking.build import build_tracker


def _mlp(prefix: str, **last: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names with weights of the given shapes and biases of their first size."""
    shapes = {}
    for index, shape in last.items():
        shapes[f"{prefix}.{index[1:]}.weight"] = shape
        shapes[f"{prefix}.{index[1:]}.bias"] = shape[:1]
    return shapes


def _decoder(prefix: str, layers: int) -> dict[str, tuple[int, ...]]:
    shapes = _mlp(f"{prefix}.decoder", _post_norm=(256,))
    for i in range(layers):
        layer = f"{prefix}.decoder.layers.{i}"
        for a in range(2):
            shapes[f"{layer}.attentions.{a}.attn.in_proj_weight"] = (768, 256)
            shapes[f"{layer}.attentions.{a}.attn.in_proj_bias"] = (768,)
            shapes |= _mlp(f"{layer}.attentions.{a}.attn", _out_proj=(256, 256))
        shapes |= _mlp(f"{layer}.ffns.0.layers.0", _0=(2048, 256)) | _mlp(f"{layer}.ffns.0.layers", _1=(256, 2048))
        shapes |= _mlp(f"{layer}.norms", _0=(256,), _1=(256,), _2=(256,))
    return shapes


def _public_names() -> dict[str, tuple[int, ...]]:
    """PF-Track f3, all but the backbone, the neck's lateral convolutions and the loss: 372 tensors."""
    wide = (256, 256)
    normed = {"_0": wide, "_1": (256,), "_3": wide, "_4": (256,)}
    shapes = {"reference_points.weight": (500, 3), "query_feat_embedding.weight": (500, 256)}
    shapes |= _mlp("img_neck.fpn_convs.0", _conv=(256, 256, 3, 3))
    shapes |= _mlp("query_embedding", _0=(256, 384), _2=wide)
    shapes |= _mlp("pts_bbox_head", _input_proj=(256, 256, 1, 1))
    shapes |= _mlp("pts_bbox_head.adapt_pos3d", _0=(1024, 384, 1, 1), _2=(256, 1024, 1, 1))
    shapes |= _mlp("pts_bbox_head.position_encoder", _0=(1024, 192, 1, 1), _2=(256, 1024, 1, 1))
    for i in range(6):
        shapes |= _mlp(f"pts_bbox_head.cls_branches.{i}", **normed, _6=(10, 256))
        shapes |= _mlp(f"pts_bbox_head.reg_branches.{i}", _0=wide, _2=wide, _4=(10, 256))
    shapes |= _decoder("pts_bbox_head.transformer", 6)
    for name in ("hist_temporal_transformer", "spatial_transformer", "fut_temporal_transformer"):
        shapes |= _decoder(f"STReasoner.{name}", 2)
    shapes |= _mlp("STReasoner.track_cls", **normed, _6=(10, 256))
    shapes |= _mlp("STReasoner.track_reg", **normed, _6=(10, 256))
    shapes |= _mlp("STReasoner.future_reg", **normed, _6=(3, 256))
    shapes |= _mlp("STReasoner.ts_query_embed", _0=wide, _2=wide)
    return shapes


def test_names_and_shapes_are_public():
    tracker = build_tracker(SynclConfig())
    ours = {
        name: tuple(value.shape)
        for name, value in tracker.state_dict().items()
        if not name.startswith(("img_backbone.", "img_neck.lateral_convs."))
    }
    expected = _public_names()
    assert len(expected) == 372
    assert ours == expected


def test_neck_behind_the_public_backbone_has_public_names_and_shapes():
    lateral = {f"lateral_convs.{i}": channels for i, channels in enumerate((768, 1024))}
    expected = _mlp("fpn_convs.0", _conv=(256, 256, 3, 3))
    for name, channels in lateral.items():
        expected |= _mlp(name, _conv=(256, channels, 1, 1))
    assert {name: tuple(value.shape) for name, value in CPFPN((768, 1024), 256).state_dict().items()} == expected


def test_parameter_counts_are_those_of_the_original():
    """10.92 M head, 10.01 M reasoning, 0.29 M queries."""
    tracker = build_tracker(SynclConfig())

    def millions(*modules: torch.nn.Module) -> float:
        return round(sum(p.numel() for module in modules for p in module.parameters()) / 1e6, 2)

    assert millions(tracker.pts_bbox_head) == 10.92
    assert millions(tracker.STReasoner) == 10.01
    assert millions(tracker.reference_points, tracker.query_feat_embedding, tracker.query_embedding) == 0.29


def test_weights_depend_on_the_seed_alone():
    """Not on what was drawn before, on the number of threads or on the process."""
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = build_tracker(tiny_config(), seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = build_tracker(tiny_config(), seed=3).state_dict(), build_tracker(tiny_config(), seed=4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["reference_points.weight"], other["reference_points.weight"])

    result = subprocess.run(
        [sys.executable, "-c", _PRINT_DIGEST, *sys.path], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == _digest(first)


def _digest(state: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


_PRINT_DIGEST = """
import sys
sys.path[:0] = sys.argv[1:]
import torch
torch.set_num_threads(1)
from test_model_weights import _digest, build_tracker, tiny_config
print(_digest(build_tracker(tiny_config(), seed=3).state_dict()))
"""
