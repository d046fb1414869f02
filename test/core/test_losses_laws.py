"""Laws of the criterion that need no twin of it all: padding, batches, faults, precision, and the forecast's loss."""

import dataclasses

import pytest
import torch
from loss_cases import judge, leaves, make_case, make_criterion, make_strategy, scene_objects
from slow_losses import forecast

from syncl_core.errors import InputError


def test_unused_entries_change_nothing():
    """More empty rows of ground truth, more free slots, other garbage in them: the same numbers."""
    criterion = make_criterion(make_strategy({"contrastive": {"anchor": "symmetric"}}))
    observation, targets = make_case(3)
    expected = judge(criterion, observation, targets)

    def widen(x: torch.Tensor, dim: int, fill) -> torch.Tensor:
        shape = list(x.shape)
        shape[dim] = 4
        return torch.cat([x, x.new_full(shape, fill)], dim=dim)

    fills = {"valid": False, "identity": int(observation.track_id.max()), "label": 10**6, "motion_valid": True}
    fields = dataclasses.fields(targets)
    more = type(targets)(
        **{f.name: widen(getattr(targets, f.name), 1, fills.get(f.name, float("inf"))) for f in fields}
    )
    wide = dataclasses.replace(
        observation, track_id=widen(observation.track_id, 1, 100), valid=widen(observation.valid, 1, False)
    )
    for part, dim in (("head", 2), ("parallel", 2), ("refined", 1)):
        value = getattr(observation, part)
        names = ("logits", "box", "features")
        rows = {n: widen(getattr(value, n).detach(), dim, float("nan")).requires_grad_() for n in names}
        wide = dataclasses.replace(wide, **{part: dataclasses.replace(value, **rows)})
    result = judge(criterion, wide, more)
    for name, value in expected.losses.items():
        torch.testing.assert_close(result.losses[name], value, atol=1e-6, rtol=1e-6)
    assert torch.equal(result.identity[:, : expected.identity.shape[1]], expected.identity)
    assert (result.identity[:, expected.identity.shape[1] :] == -1).all()
    for name in ("delta", "kept", "left_out"):
        torch.testing.assert_close(result.stats[name], expected.stats[name])
    sum(result.losses.values()).backward()
    assert wide.parallel.features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in criterion.parameters())


def _scene(value, b: int):
    """Scene b alone; layers in front where there are any."""
    if isinstance(value, torch.Tensor):
        return value[b : b + 1]
    parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    layered = {"logits", "box", "features"} if type(value).__name__ == "HeadOutput" else set()
    return type(value)(
        **{n: x[:, b : b + 1] if n in layered else None if x is None else _scene(x, b) for n, x in parts.items()}
    )


def test_a_batch_is_the_mean_of_its_scenes():
    """Box losses share one divisor: there the mean is weighted by the scenes' positives."""
    criterion = make_criterion(make_strategy({}))
    observation, targets = make_case(11, objects=(5, 2, 4), tracks=(2, 1, 3), vanished=(0, 1, 1))
    whole = judge(criterion, observation, targets)
    singles = [judge(criterion, _scene(observation, b), _scene(targets, b)) for b in range(3)]
    for name, value in whole.losses.items():
        values = torch.stack([single.losses[name] for single in singles])
        if name == "box":  # all objects find a row, so that positives are objects
            positives = targets.valid.sum(dim=1)
            values = values * positives / positives.float().mean()
        if name != "parallel_box":
            torch.testing.assert_close(values.mean(), value)
    assert torch.equal(torch.cat([single.identity for single in singles]), whole.identity)


@pytest.mark.parametrize("mean", ["annotated", "as_released"])
def test_forecast_equals_the_slow_one(mean):
    strategy = make_strategy({"loss": {"forecast_mean": mean}})
    _, targets = make_case(5, objects=(5, 4, 0), tracks=(3, 0, 0), vanished=(0, 0, 0))
    state = dataclasses.make_dataclass("State", ["motion", "track_id"])(
        motion=torch.randn(3, 6, 8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(),
        track_id=torch.full((3, 6), -1),
    )
    state.track_id[0, [1, 4]] = targets.identity[0][targets.valid[0]][:2]
    state.track_id[1, 2] = targets.identity[1][targets.valid[1]][0]
    state.track_id[1, 3] = 12345
    result = make_criterion(strategy).forecast(state, targets)["forecast"]
    twin = state.motion.detach().double().requires_grad_()
    slow = [
        forecast(twin[b], state.track_id[b].tolist(), scene_objects(targets, b), mean == "as_released")
        for b in range(3)
    ]
    expected = 0.5 * sum(slow) / 3
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    result.backward()
    torch.testing.assert_close(state.motion.grad.double(), twin.grad, atol=1e-7, rtol=1e-5)
    assert (state.motion.grad != 0).any() and not make_criterion(strategy, "none").forecast(state, targets)


@pytest.mark.parametrize(
    "part, name, says",
    [("head", "box", "boxes are"), ("head", "logits", "logits are"), ("parallel", "box", "parallel boxes")]
    + [("refined", "logits", "refined logits")],
)
def test_what_is_not_finite_is_named(part, name, says):
    observation, targets = make_case(1)
    value = getattr(observation, part)
    broken = getattr(value, name).detach().clone()
    layer = 0 if part == "refined" else 1
    (broken if part == "refined" else broken[layer])[1, 4, 3] = float("inf" if name == "box" else "nan")
    observation = dataclasses.replace(observation, **{part: dataclasses.replace(value, **{name: broken})})
    with pytest.raises(InputError) as error:
        judge(make_criterion(make_strategy({})), observation, targets)
    assert says in str(error.value) and f"decoder layer {layer}, scene 1 of the batch, row 4" in str(error.value)
    assert "\n" not in str(error.value)


def test_losses_stay_float32_under_autocast():
    observation, targets = make_case(2)
    criterion = make_criterion(make_strategy({}))
    expected = judge(criterion, observation, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = judge(criterion, observation, targets)
    for name, value in expected.losses.items():
        assert torch.equal(result.losses[name], value)
        assert value.dtype == torch.float32


def test_unknown_velocities_do_not_count():
    observation, targets = make_case(4)
    criterion = make_criterion(make_strategy({"enabled": False}))
    unknown = targets.box.clone()
    unknown[..., 8:] = float("nan")
    result = judge(criterion, observation, dataclasses.replace(targets, box=unknown))
    weights = make_strategy({"enabled": False, "loss": {"code_weights": [1.0] * 8 + [0.0] * 2}})
    expected = judge(make_criterion(weights), observation, targets)
    for name, value in expected.losses.items():
        torch.testing.assert_close(result.losses[name], value)
    sum(result.losses.values()).backward()
    assert leaves(observation)["head.box"].grad.isfinite().all()


def test_a_detector_has_no_second_pass_and_no_strategy():
    criterion = make_criterion(make_strategy({}), framework="none")
    observation, targets = make_case(6, tracks=(0, 0), vanished=(0, 0))
    result = judge(criterion, dataclasses.replace(observation, parallel=None), targets)
    assert set(result.losses) == {"class", "box"}
    assert ((result.identity >= 0).sum(dim=1) == targets.valid.sum(dim=1)).all()
    assert not list(criterion.parameters())
