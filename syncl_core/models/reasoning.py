"""Past and future reasoning of PF-Track (Pang et al. 2023, sec. 3.3 and 3.4) on rows of queries.

Past: every row attends to its own last H features, then to all other rows; the result replaces its class and box.
Future: every row predicts F displacements from its last H features.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import ModelConfig
from syncl_core.models.box_code import CODE_SIZE, denormalize, resolve_center, with_center
from syncl_core.models.decoder import Decoder
from syncl_core.models.heads import HeadOutput, class_branch, normed_branch
from syncl_core.models.position import time_sine


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """The final say about this frame: one row per query."""

    logits: torch.Tensor  # [B, M, C]
    box: torch.Tensor  # [B, M, 10] box code
    features: torch.Tensor  # [B, M, D]
    history: torch.Tensor  # [B, M, H, D] past features, this frame's last
    history_valid: torch.Tensor  # [B, M, H] bool


def unrefined(
    head: HeadOutput,
    history: torch.Tensor,  # [B, K, H, D]
    history_valid: torch.Tensor,  # [B, K, H]
) -> Refined:
    """What the head said, as the final say of a network without reasoning; the K track slots get empty rows."""
    num_new, slots = head.features.shape[2], history.shape[1]

    def extend(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (0, 0, 0, slots))

    return Refined(
        logits=extend(head.logits[-1]),
        box=extend(head.box[-1]),
        features=extend(head.features[-1]),
        history=nn.functional.pad(history, (0, 0, 0, 0, num_new, 0)),
        history_valid=nn.functional.pad(history_valid, (0, 0, num_new, 0)),
    )


class SpatioTemporalReasoner(nn.Module):
    def __init__(self, config: ModelConfig, num_classes: int):
        super().__init__()
        dim = config.embed_dim
        self.future_steps = config.future_steps
        self.hist_temporal_transformer = _transformer(config)
        self.spatial_transformer = _transformer(config)
        self.fut_temporal_transformer = _transformer(config)
        self.track_cls = class_branch(dim, num_classes, config.class_prior)
        # The second say about track rows, if they have a class head of their own; `track_cls` is everybody's otherwise.
        self.num_queries = config.num_queries
        self.known_track_cls = copy.deepcopy(self.track_cls) if config.track_class_head else None
        self.track_reg = normed_branch(dim, CODE_SIZE)
        self.future_reg = normed_branch(dim, 3)
        self.ts_query_embed = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.register_buffer("pc_range", torch.tensor(config.pc_range).view(2, 3), persistent=False)

    def recall(
        self,
        head: HeadOutput,
        position: torch.Tensor,  # [B, M, D] embedded `head.reference`
        valid: torch.Tensor,  # [B, M] bool
        history: torch.Tensor,  # [B, M, H, D] before this frame
        history_valid: torch.Tensor,  # [B, M, H]
    ) -> Refined:
        """Past reasoning and refinement. History leaves detached: the future's loss does not reach the detector."""
        history = _append(history, head.features[-1])
        history_valid = _append(history_valid, torch.ones_like(valid))
        features = self._attend_to_past(head.features[-1], history, history_valid)
        features = self._attend_to_others(features, position, valid)
        center, code = resolve_center(self.track_reg(features), head.reference)
        return Refined(
            logits=self._classify(features).float(),
            box=with_center(code, denormalize(center, self.pc_range)),
            features=features,
            history=torch.cat([history[:, :, :-1], features[:, :, None]], dim=2).detach(),
            history_valid=history_valid,
        )

    def _classify(self, features: torch.Tensor) -> torch.Tensor:
        if self.known_track_cls is None:
            return self.track_cls(features)
        objects, tracks = features[:, : self.num_queries], features[:, self.num_queries :]
        return torch.cat([self.track_cls(objects), self.known_track_cls(tracks)], dim=1)

    def forecast(self, history: torch.Tensor, history_valid: torch.Tensor) -> torch.Tensor:
        """Displacements per step [B, M, F, 2], metres along the model frame's x and y, from history [B, M, H, D].

        Every row needs one valid entry at least. The network's third output, height, was never supervised.
        """
        rows, steps = history.shape[:2], history.shape[2]
        times = self._embed_times(steps + self.future_steps)
        decoder = self.fut_temporal_transformer["decoder"]
        history = history.flatten(0, 1)
        x = history.new_zeros(history.shape[0], self.future_steps, history.shape[-1])
        memory = decoder.project(history, times[:steps])
        x = decoder(x, times[steps:], memory, memory_valid=history_valid.flatten(0, 1))[-1]
        return self.future_reg(x)[..., :2].float().unflatten(0, rows)

    def _attend_to_past(self, x: torch.Tensor, history: torch.Tensor, history_valid: torch.Tensor) -> torch.Tensor:
        """Each row is a sequence of its own: one query, H keys."""
        times = self._embed_times(history.shape[2])
        decoder = self.hist_temporal_transformer["decoder"]
        memory = decoder.project(history.flatten(0, 1), times)
        y = decoder(x.flatten(0, 1)[:, None], times[-1:], memory, memory_valid=history_valid.flatten(0, 1))[-1]
        return y[:, 0].unflatten(0, x.shape[:2])

    def _attend_to_others(self, x: torch.Tensor, position: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """All rows of a scene are one sequence, which is also the memory: that of layer 2 is still the input."""
        decoder = self.spatial_transformer["decoder"]
        return decoder(x, position, decoder.project(x, position), valid, memory_valid=valid)[-1]

    def _embed_times(self, num_steps: int) -> torch.Tensor:
        linear = self.ts_query_embed[0]
        return self.ts_query_embed(time_sine(num_steps, linear.in_features, linear.weight.device))


def _append(history: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
    """Drop the oldest of [B, M, H, ...] and add the newest [B, M, ...] at the end."""
    return torch.cat([history[:, :, 1:], newest[:, :, None]], dim=2)


def _transformer(config: ModelConfig) -> nn.ModuleDict:
    decoder = Decoder(config.reasoning_layers, config.embed_dim, config.num_heads, config.ffn_dim, config.dropout)
    return nn.ModuleDict({"decoder": decoder})
