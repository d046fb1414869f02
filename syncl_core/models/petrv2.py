"""PETRv2's head: the image tokens of two frames as one memory (Liu et al. 2023).

The tokens of the frame before keep their content. Where they look is found anew in every step: through that frame's
cameras, in today's model frame (3D position alignment, sec. 3.2). Views are numbered on: N cameras now, then N before.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils import _pytree

from syncl_core.config import ModelConfig, SynclConfig
from syncl_core.models.box_code import code_velocity
from syncl_core.models.heads import (
    TOKEN_STRIDE,
    HeadOutput,
    Memory,
    PETRHead,
    Queries,
    class_branch,
    token_valid,
    track_class_branches,
)
from syncl_core.models.position import relative_transform
from syncl_core.tensors import Frame, PastFrame

_BOX_PARTS = (2, 1, 3, 2, 2)  # how the ten numbers of the box code are shared out, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoFrameMemory(Memory):
    """P tokens of this frame, then P of the frame before."""

    seconds: torch.Tensor  # [B] float32 from the frame before to this one
    kept: PastFrame  # this frame, for the next step


class FeatureGate(nn.Module):
    """Feature-guided position encoder (sec. 3.3): what a token shows says how much of its ray counts, per channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv_reduce = nn.Conv2d(dim, dim, 1)
        self.conv_expand = nn.Conv2d(dim, dim, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Token maps [V, D, h, w] -> factors [V, D, h, w] within 0 and 1."""
        return self.conv_expand(self.conv_reduce(maps).relu()).sigmoid()


class BoxBranch(nn.Module):
    """A raw box code in five parts, each from layers of its own behind common ones."""

    def __init__(self, dim: int):
        super().__init__()
        # The identities are the released network's dropout of zero; they keep its names.
        self.reg_branch = nn.Sequential(
            *(nn.Linear(dim, dim), nn.ReLU(), nn.Identity()),
            *(nn.Linear(dim, dim), nn.ReLU(), nn.Identity()),
        )
        self.task_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, size)) for size in _BOX_PARTS
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., 10]."""
        shared = self.reg_branch(features)
        return torch.cat([head(shared) for head in self.task_heads], dim=-1)


class PETRv2Head(PETRHead):
    """Parameter names are those of the public PETRv2 checkpoints. Unlike PETR's, the layers' heads are not shared."""

    def __init__(self, config: ModelConfig, num_classes: int):
        super().__init__(config, num_classes)
        dim, layers = config.embed_dim, range(config.num_layers)
        self.cls_branches = _equal(class_branch(dim, num_classes, config.class_prior) for _ in layers)
        self.reg_branches = _equal(BoxBranch(dim) for _ in layers)
        self.track_cls_branches = track_class_branches(self.cls_branches, config)
        self.fpe = FeatureGate(dim)
        self.stand_in_seconds = config.petrv2.stand_in_seconds

    def encode_two(self, features: torch.Tensor, frame: Frame, past: PastFrame | None) -> TwoFrameMemory:
        """The memory for features [B*N, D, h, w] of a frame, whose projections can all be inverted.

        A scene without an earlier frame sees the current one twice; `past` is None if that is true of all.
        """
        feature_size, image_size = features.shape[-2:], frame.images.shape[-2:]
        now = PastFrame(
            tokens=self.project_tokens(features, frame.t_ns.shape[0]).float(),
            image_from_model=frame.image_from_model,
            camera_valid=frame.camera_valid,
            global_from_model=frame.global_from_model,
            t_ns=frame.t_ns,
        )
        past, seconds = self._before(now, now if past is None else past)
        past_from_now = relative_transform(past.global_from_model, now.global_from_model)
        past_image_from_now = past.image_from_model @ past_from_now[:, None]
        image_from_model = torch.cat([now.image_from_model, past_image_from_now], dim=1)
        tokens = torch.cat([now.tokens, past.tokens], dim=1)
        where = self.embed_position(image_from_model, feature_size, image_size, self._gate(tokens, feature_size))
        valid = token_valid(torch.cat([now.camera_valid, past.camera_valid], dim=1), tokens.shape[1])
        return TwoFrameMemory(tokens=tokens, position=where, valid=valid, seconds=seconds, kept=now)

    def forward(
        self,
        memory: TwoFrameMemory,
        queries: Queries,
        all_layers: bool = False,
        parallel: bool = False,
        alone: bool = False,
    ) -> HeadOutput:
        """As PETR's. The network says how far a thing moves between the two frames; divided by their time: m/s."""
        head = super().forward(memory, queries, all_layers, parallel, alone)
        velocity = code_velocity(head.box) / memory.seconds[:, None, None]
        return dataclasses.replace(head, box=torch.cat([head.box[..., :8], velocity], dim=-1))

    def classify(self, branches: nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
        return _by_layer(branches, features)

    def regress(self, features: torch.Tensor) -> torch.Tensor:
        return _by_layer(self.reg_branches, features)

    def _before(self, now: PastFrame, past: PastFrame) -> tuple[PastFrame, torch.Tensor]:
        """The earlier frame of every scene and the seconds [B] since then; where there is none, the current one."""
        exists = (past.t_ns >= 0) & (past.t_ns < now.t_ns)

        def choose(then: torch.Tensor, instead: torch.Tensor) -> torch.Tensor:
            return torch.where(exists.view(-1, *[1] * (then.ndim - 1)), then, instead)

        seconds = torch.where(exists, (now.t_ns - past.t_ns).double() / 1e9, self.stand_in_seconds)
        return _pytree.tree_map(choose, past, now), seconds.float()

    def _gate(self, tokens: torch.Tensor, feature_size: tuple[int, int]) -> torch.Tensor:
        """Factors [B, 2N, D, h, w] for tokens [B, 2P, D]."""
        maps = tokens.unflatten(1, (-1, *feature_size)).permute(0, 1, 4, 2, 3)
        return self.fpe(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])


def empty_past(config: SynclConfig, batch: int, device: torch.device | str | None) -> PastFrame:
    """What is kept of the frame before the first one: its time says that there is none."""
    cameras, image = len(config.rig.cameras), config.image
    num_tokens = cameras * (image.height // TOKEN_STRIDE) * (image.width // TOKEN_STRIDE)
    still = torch.eye(4, dtype=torch.float64, device=device)
    return PastFrame(
        tokens=torch.zeros(batch, num_tokens, config.model.embed_dim, device=device),
        image_from_model=still.repeat(batch, cameras, 1, 1),
        camera_valid=torch.zeros(batch, cameras, dtype=torch.bool, device=device),
        global_from_model=still.repeat(batch, 1, 1),
        t_ns=torch.full((batch,), -1, dtype=torch.int64, device=device),
    )


@torch.no_grad()
def _equal(branches: Iterable[nn.Module]) -> nn.ModuleList:
    """Branches that are equal when training begins, as in the released code, and go their own ways from then on."""
    first, *others = branches
    for other in others:
        for value, original in zip(other.parameters(), first.parameters(), strict=True):
            value.copy_(original)
    return nn.ModuleList([first, *others])


def _by_layer(branches: nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
    """Each of the last L layers' features [L, ...] through the branch of its own layer."""
    last = list(branches)[-features.shape[0] :]
    return torch.stack([branch(x) for branch, x in zip(last, features, strict=True)])
