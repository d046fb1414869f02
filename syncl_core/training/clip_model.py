"""A tracker and its losses as one module: clip in, losses out. This is what PyTorch distributes."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from syncl_core.losses.denoising import Denoising
from syncl_core.losses.dense import DenseHead
from syncl_core.losses.frames import MatchedFrame
from syncl_core.tensors import Frame, Targets
from syncl_core.tracking.base import Decision, Observation, Seen, Tracker, assigned
from syncl_core.tracking.duplicates import without_duplicates
from syncl_core.train_config import TrainConfig
from syncl_core.training.track_noise import disturbed, within_reach


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLoss:
    """Scalars of a batch of clips. `losses` are to be minimised, `stats` only looked at."""

    total: torch.Tensor
    losses: dict[str, torch.Tensor]  # by name, weighted, summed over the frames
    stats: dict[str, torch.Tensor]  # by name, mean over the frames that have them


class ClipModel(nn.Module):
    """Unrolls the tracker's own observe and commit over a clip; the ground truth decides instead of the score.

    Gradients flow through all frames that have targets; those in front of them are only looked at. `criterion` judges
    every frame: see losses.criterion.
    """

    def __init__(self, tracker: Tracker, criterion: nn.Module):
        super().__init__()
        config = tracker.config
        self.tracker = tracker
        self.criterion = criterion
        self.dense = DenseHead(config) if config.train.dense_weight > 0 else None
        self.denoising = Denoising(config) if config.train.denoising and not config.train.dense_only else None

    def parts(self) -> list[list[nn.Parameter]]:
        """The tracker's parameters, and if there are any those that only training has: one must not slow the other."""
        tracker = list(self.tracker.parameters())
        known = set(map(id, tracker))
        helpers = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [tracker, helpers] if helpers else [tracker]

    def forward(
        self, frames: tuple[Frame, ...], targets: tuple[Targets, ...], memories: tuple[Seen, ...] | None = None
    ) -> dict[str, dict[str, torch.Tensor]]:
        """{"losses": ..., "stats": ...} of ClipLoss, as dictionaries, which DistributedDataParallel can look into.

        Of T targets the last T frames are taught. `memories`: what the tracker sees in them, if that is known
        (training/encoded.py).
        """
        before, frames = frames[: -len(targets)], frames[-len(targets) :]
        if self.tracker.config.train.dense_only:
            return self._dense_only(frames[0], targets[0])
        strategy, framework = self.tracker.config.syncl, self.tracker.config.model.framework
        state = self._looked_at(before, self.tracker.init_state(frames[0].t_ns.shape[0], frames[0].images.device))
        losses, seen = [], []
        memories = memories or (None,) * len(frames)
        for number, (frame, target, memory) in enumerate(zip(frames, targets, memories, strict=True), start=1):
            parallel = framework != "none" and strategy.decodes_twice(tracks=number > 1)
            observation = self.tracker.observe(state, frame, all_layers=True, parallel=parallel, memory=memory)
            assignment = self.criterion.match(observation, target)
            seen.append(MatchedFrame(observation=observation, targets=target, assignment=assignment))
            losses.append(self._helpers(observation.memory, frame, target))
            if framework == "pf_track" or number < len(frames):
                state = self.tracker.commit(observation, self._decision(observation, assignment.identity, target))
                losses.append(self.criterion.forecast(state, target))
        judged = self.criterion(seen)
        return {"losses": judged.losses | _sums(losses) | self._unused(), "stats": judged.stats}

    @torch.no_grad()
    def _looked_at(self, frames: tuple[Frame, ...], state):
        """What is remembered of them; nobody is tracked yet."""
        for frame in frames:
            observation = self.tracker.observe(state, frame)
            nobody = torch.full_like(observation.valid, -1, dtype=torch.int64)
            state = self.tracker.commit(observation, assigned(nobody))
        if frames:  # older PyTorch would take the weights that it cast here, without gradient, for what follows
            torch.clear_autocast_cache()
        return state

    def _decision(self, observation: Observation, identity: torch.Tensor, target: Targets) -> Decision:
        """The ground truth's, [B, M], with the accidents that the configuration asks for."""
        train = self.tracker.config.train
        # A detector alone refines nothing: what its rows were given says so much about them.
        refines = self.tracker.config.model.framework == "pf_track"
        box = observation.refined.box if refines else observation.head.box[-1]
        identity = within_reach(identity, box, target, train.lost_distance)
        score = observation.head.logits[-1].sigmoid().amax(dim=-1)
        # What inference would end as a duplicate is no wrong track to learn from.
        distance = self.tracker.config.track.duplicate_distance
        possible = without_duplicates(observation.valid, box, score, identity >= 0, distance)
        return disturbed(identity, score, possible, train.dropped_tracks, train.false_tracks)

    def _dense_only(self, frame: Frame, target: Targets) -> dict[str, dict[str, torch.Tensor]]:
        """What the maps alone can learn from."""
        losses = self._helpers(self.tracker.encode(frame), frame, target)
        return {"losses": losses | self._unused(), "stats": {}}

    def _unused(self) -> dict[str, torch.Tensor]:
        """Some parameters have no part in some clips (no track, no pair). All processes must still agree on who has a
        gradient, and weight decay must not depend on it."""
        return {"unused": _NoPart.apply(*(p for p in self.parameters() if p.requires_grad))}

    def _helpers(self, memory: Seen, frame: Frame, target: Targets) -> dict[str, torch.Tensor]:
        """Losses that only help the training along, of what the queries look at."""
        losses = {}
        if self.dense is not None:
            weight = self.tracker.config.train.dense_weight
            losses |= {name: weight * value for name, value in self.dense(memory, frame, target).items()}
        if self.denoising is not None:
            losses |= self.denoising(lambda reference: self.tracker.probe(memory, reference), target)
        return losses


class _NoPart(torch.autograd.Function):
    """Zero, of which every parameter has a gradient of zero. Sums times zero would be a tenth of all operations of a
    small network's step, and a GPU waits for their launches."""

    @staticmethod
    def forward(ctx, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.shapes = [parameter.shape for parameter in parameters]
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zero = torch.zeros_like(gradient)
        return tuple(zero.expand(shape) for shape in ctx.shapes)


def total_loss(output: dict[str, dict[str, torch.Tensor]]) -> ClipLoss:
    """What `ClipModel` returned, summed up; stats are free of gradients."""
    total = torch.stack([value.float() for value in output["losses"].values()]).sum()
    losses = {name: value.detach() for name, value in output["losses"].items() if name != "unused"}
    return ClipLoss(total=total, losses=losses, stats={k: v.detach() for k, v in output["stats"].items()})


def prepare(tracker: Tracker, config: TrainConfig) -> None:
    """Freeze and wrap parts of the tracker as the configuration says; names of weights do not change."""
    backbone = tracker.img_backbone
    for name, parameter in tracker.named_parameters():
        # What the dense losses do not reach must stay as it is: weight decay would shrink it without any gradient.
        frozen = config.freeze_encoder if name.startswith(tracker.ENCODER) else config.dense_only
        parameter.requires_grad_(parameter.requires_grad and not frozen)
    if config.frozen_stages:
        for part in backbone.first_stages(config.frozen_stages):
            part.requires_grad_(False)
    if config.batch_norm == "fixed":
        for norm in _batch_norms(backbone):
            norm.requires_grad_(False)
    if config.freeze_backbone:
        backbone.requires_grad_(False)
    elif config.checkpoint_activations:
        for block in _blocks(backbone):
            block.forward = _Recomputed(block.forward)


def set_training(model: ClipModel, config: TrainConfig) -> None:
    """Training mode, except for what is frozen."""
    model.train()
    backbone = model.tracker.img_backbone
    if config.freeze_backbone:
        backbone.eval()
    if config.freeze_encoder:
        for name in model.tracker.ENCODER:
            if isinstance(part := getattr(model.tracker, name, None), nn.Module):
                part.eval()
    if config.batch_norm != "trained":
        for norm in _batch_norms(backbone):
            norm.eval()


class _Recomputed:
    """A module's `forward` that forgets its intermediate values and computes them again for the gradient."""

    def __init__(self, forward):
        self._forward = forward

    def __call__(self, x: torch.Tensor):
        return checkpoint(self._forward, x, use_reentrant=False) if torch.is_grad_enabled() else self._forward(x)


def _blocks(backbone: nn.Module) -> list[nn.Module]:
    """The larger blocks of a backbone: what its stages, or the members of its list of stages, consist of."""
    stages = [module for module in backbone.children() if isinstance(module, (nn.Sequential, nn.ModuleList))]
    return [block for stage in stages for block in stage.children() if any(block.children())]


def _batch_norms(backbone: nn.Module) -> list[nn.Module]:
    return [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]


def _sums(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.stack([part[name].float() for part in parts if name in part]).sum() for name in names}
