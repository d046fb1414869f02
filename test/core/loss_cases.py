"""Random frames for the loss tests, as the losses get them, and criteria whose parameters all count."""

import dataclasses

import torch
from tiny_tracker import tiny_config

from syncl_core.config import config_from_dict
from syncl_core.losses.criterion import Criterion
from syncl_core.losses.frames import MatchedFrame
from syncl_core.losses.matching import matching_cost
from syncl_core.losses.padding import clean_targets
from syncl_core.losses.syncl.query_filter import QueryFilter
from syncl_core.models.heads import HeadOutput
from syncl_core.models.reasoning import Refined
from syncl_core.strategy_config import FilterConfig, LossConfig, StrategyConfig, check_strategy
from syncl_core.tensors import Targets
from syncl_core.tracking.base import Observation

LAYERS, SLOTS, DIM, CLASSES, STEPS = 2, 6, 16, 10, 8


def loss_config(strategy: StrategyConfig = StrategyConfig(), framework: str = "pf_track"):  # noqa: B008
    config = tiny_config(slots=SLOTS)
    return dataclasses.replace(
        config, syncl=strategy, model=dataclasses.replace(config.model, framework=framework, num_layers=LAYERS)
    )


def make_case(
    seed: int,
    objects: tuple[int, ...] = (5, 4),  # per scene
    tracks: tuple[int, ...] = (3, 2),  # per scene, that own an object
    vanished: tuple[int, ...] = (1, 1),
    queries: int = 7,
    padding: int = 2,  # empty rows of ground truth
) -> tuple[Observation, Targets]:
    """Boxes lie near objects, so that costs differ. Padding holds NaN and impossible numbers."""
    generator = torch.Generator().manual_seed(seed)
    batch, most = len(objects), max((*objects, 0)) + padding

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    valid = torch.zeros(batch, most, dtype=torch.bool)
    identity = torch.full((batch, most), 999)
    track_id = torch.full((batch, queries + SLOTS), -1)
    for b in range(batch):
        places = torch.randperm(most, generator=generator)[: objects[b]]
        valid[b, places] = True
        identity[b, places] = 100 + torch.randperm(50, generator=generator)[: objects[b]]
        slots = queries + torch.randperm(SLOTS, generator=generator)
        track_id[b, slots[: tracks[b]]] = identity[b, places[: tracks[b]]]
        track_id[b, slots[tracks[b] : tracks[b] + vanished[b]]] = 500 + torch.arange(vanished[b])
    box = rand(batch, most, 10) * 2
    some_boxes = box if most else rand(batch, 3, 10)
    targets = Targets(
        valid=valid,
        identity=identity,
        label=torch.where(valid, torch.randint(0, CLASSES, (batch, most), generator=generator), -7),
        box=torch.where(valid[..., None], box, torch.nan),
        motion=rand(batch, most, STEPS, 2),
        motion_valid=torch.rand(batch, most, STEPS, generator=generator) < 0.6,
    )
    rows = torch.ones(batch, queries + SLOTS, dtype=torch.bool)
    rows[:, queries:] = track_id[:, queries:] >= 0

    def output(*lead: int) -> dict[str, torch.Tensor]:
        near = some_boxes[:, torch.randint(0, some_boxes.shape[1], (queries + SLOTS,), generator=generator)]
        spread = rand(1, 1, queries + SLOTS, 1).abs() * 1.5
        boxes = (near + spread * rand(*lead, batch, queries + SLOTS, 10)).view(*lead, batch, queries + SLOTS, 10)
        values = {"logits": rand(*lead, batch, queries + SLOTS, CLASSES) * 3 - 1, "box": boxes}
        values["features"] = rand(*lead, batch, queries + SLOTS, DIM)
        return {k: torch.where(rows[..., None], v, torch.nan).requires_grad_() for k, v in values.items()}

    head, parallel, refined = output(LAYERS), output(LAYERS), _first(output(1))
    reference = torch.zeros(batch, queries + SLOTS, 3)
    history = torch.zeros(batch, queries + SLOTS, 3, DIM)
    raw = torch.where(rows[..., None], rand(LAYERS, batch, queries + SLOTS, DIM), torch.nan).requires_grad_()
    observation = Observation(
        memory=None,
        state=None,
        track_id=track_id,
        valid=rows,
        head=HeadOutput(**head, reference=reference),
        parallel=HeadOutput(**parallel, reference=reference, raw=raw),
        refined=Refined(**refined, history=history, history_valid=history[..., 0] > 1),
    )
    return observation, targets


def _first(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach()[0].clone().requires_grad_() for name, value in values.items()}


def leaves(observation: Observation) -> dict[str, torch.Tensor]:
    """Everything that gets a gradient, by name."""
    parts = {"head": observation.head, "parallel": observation.parallel, "refined": observation.refined}
    values = {f"{p}.{n}": getattr(v, n) for p, v in parts.items() if v for n in ("logits", "box", "features")}
    return values | ({"parallel.raw": observation.parallel.raw} if observation.parallel else {})


def doubled(observation: Observation) -> Observation:
    """The same numbers as float64 leaves of their own."""
    parts = {
        part: dataclasses.replace(
            value,
            **{n: getattr(value, n).detach().double().requires_grad_() for n in ("logits", "box", "features")},
        )
        for part in ("head", "parallel", "refined")
        if (value := getattr(observation, part)) is not None
    }
    raw = observation.parallel.raw.detach().double().requires_grad_()
    parts["parallel"] = dataclasses.replace(parts["parallel"], raw=raw)
    return dataclasses.replace(observation, **parts)


def scene_objects(targets: Targets, b: int) -> list[dict]:
    return [
        {
            "identity": int(targets.identity[b, g]),
            "label": int(targets.label[b, g]),
            "box": targets.box[b, g].double(),
            "motion": targets.motion[b, g].double(),
            "motion_valid": targets.motion_valid[b, g].tolist(),
        }
        for g in range(targets.valid.shape[1])
        if targets.valid[b, g]
    ]


def make_strategy(values: dict) -> StrategyConfig:
    values = {"enabled": True} | values
    values["contrastive"] = {"ffn_dim": 12, "mlp_dim": 9} | values.get("contrastive", {})
    strategy = config_from_dict(StrategyConfig, values)
    check_strategy(strategy)
    return strategy


def make_criterion(strategy: StrategyConfig, framework: str = "pf_track") -> Criterion:
    """With parameters that all count."""
    torch.manual_seed(0)
    criterion = Criterion(loss_config(strategy, framework))
    with torch.no_grad():
        for value in criterion.parameters():
            value.add_(torch.rand_like(value) * 0.4 - 0.2)
    return criterion


@dataclasses.dataclass(frozen=True)
class Judged:
    """A frame judged by itself."""

    losses: dict[str, torch.Tensor]
    stats: dict[str, torch.Tensor]
    identity: torch.Tensor


def matched(criterion: Criterion, observation: Observation, targets: Targets) -> MatchedFrame:
    return MatchedFrame(observation=observation, targets=targets, assignment=criterion.match(observation, targets))


def judge(criterion: Criterion, observation: Observation, targets: Targets) -> Judged:
    frame = matched(criterion, observation, targets)
    result = criterion([frame])
    return Judged(losses=result.losses, stats=result.stats, identity=frame.assignment.identity)


def contrast_weights(criterion: Criterion) -> dict | None:
    if criterion.strategy is None or criterion.strategy.contrast is None:
        return None
    state = criterion.strategy.contrast.state_dict()
    return {name: value.detach().double().requires_grad_() for name, value in state.items()}


def filter_case(values: dict, seed: int = 0, train: bool = True, **case):
    """A filter and what it is called with, of a random frame."""
    config = config_from_dict(FilterConfig, values)
    observation, targets = make_case(seed, **case)
    targets = clean_targets(targets)
    rows = observation.valid & (observation.track_id < 0)
    logits, box = observation.parallel.logits.detach(), observation.parallel.box.detach()
    allowed = rows[:, :, None] & targets.valid[:, None]
    costs = matching_cost(logits, box, targets, LossConfig())
    module = QueryFilter(config, LossConfig(), logits.shape[0]).train(train)
    return module, (costs, allowed, logits, box, targets)
