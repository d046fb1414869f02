"""All losses of a frame once more, slowly: one scene, lists without padding, loops over rows and objects, float64.

Written from the formulas and from nothing of `syncl_core.losses`. The results keep their gradients.
"""

import itertools
import math

import torch

from syncl_core.strategy_config import LossConfig

ALPHA, GAMMA = 0.25, 2.0
CODE_WEIGHTS = [1.0] * 8 + [0.2] * 2


def focal_loss(logits: torch.Tensor, label: int | None, wanted: float = 1.0) -> torch.Tensor:
    """Of one row of logits; label None = background. `wanted`: what the label's score should be."""
    total = logits.new_zeros(())
    for c in range(len(logits)):
        p = 1 / (1 + torch.exp(-logits[c]))
        if c == label:
            entropy = -wanted * torch.log(p) - (1 - wanted) * torch.log(1 - p)
            total = total + (ALPHA * wanted + (1 - ALPHA) * (1 - wanted)) * abs(wanted - p) ** GAMMA * entropy
        else:
            total = total - (1 - ALPHA) * p**GAMMA * torch.log(1 - p)
    return total


def focal_cost(logits: list[float], label: int) -> float:
    p = 1 / (1 + math.exp(-logits[label]))
    positive = ALPHA * (1 - p) ** GAMMA * -math.log(p + 1e-12)
    negative = (1 - ALPHA) * p**GAMMA * -math.log(1 - p + 1e-12)
    return positive - negative


def cost(logits: list[float], box: list[float], label: int, target: list[float], ground: float = 1.0) -> float:
    away = [abs(box[i] - target[i]) for i in range(8)]
    return 2.0 * focal_cost(logits, label) + 0.25 * (ground * (away[0] + away[1]) + sum(away[2:]))


def box_loss(box: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    total = box.new_zeros(())
    for i, weight in enumerate(CODE_WEIGHTS):
        if math.isfinite(float(target[i])):
            total = total + weight * (box[i] - target[i]).abs()
    return total


def quality(box: torch.Tensor, target: torch.Tensor, half: float) -> float:
    """Of a row's box: one half at the distance `half`."""
    away = math.hypot(*(box[:2] - target[:2]).tolist())
    return 0.5 ** ((away / half) ** 2) if half else 1.0


def importance(labels: list[int], exponent: float) -> list[float]:
    """Of every object of a scene, by how many have its class; one in the mean."""
    raw = [labels.count(label) ** -exponent for label in labels]
    return [x * len(raw) / sum(raw) for x in raw]


def set_loss(
    logits, box, owners: list, counts: list, objects: list[dict], config: LossConfig
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Sums of both losses over one layer's rows and the number of positives; owners: index into objects, or None."""
    weights = importance([o["label"] for o in objects], config.class_balance)
    of_class, of_box, positives = logits.new_zeros(()), logits.new_zeros(()), 0
    for m, owner in enumerate(owners):
        if not counts[m]:
            continue
        if owner is None:
            of_class = of_class + focal_loss(logits[m], None)
        else:
            wanted = quality(box[m], objects[owner]["box"], config.quality_distance)
            of_class = of_class + weights[owner] * focal_loss(logits[m], objects[owner]["label"], wanted)
            of_box = of_box + weights[owner] * box_loss(box[m], objects[owner]["box"])
            positives += 1
    return of_class, of_box, positives


def cheapest_pairs(costs: dict[tuple[int, int], float], rows: list[int], columns: list[int]) -> dict[int, int]:
    """Row -> column of the least total cost, by trying everything."""
    if not rows or not columns:
        return {}
    if len(rows) >= len(columns):
        options = [dict(zip(pick, columns, strict=True)) for pick in itertools.permutations(rows, len(columns))]
    else:
        options = [dict(zip(rows, pick, strict=True)) for pick in itertools.permutations(columns, len(rows))]
    return min(options, key=lambda pairs: sum(costs[pair] for pair in pairs.items()))


def mixture_means(values: list[float], iterations: int, floor: float) -> tuple[float, float]:
    """Two Gaussians by expectation-maximisation, from the extremes."""
    count, middle = len(values), sum(values) / len(values)
    spread = max(sum((v - middle) ** 2 for v in values) / count, floor)
    weight, mean, variance = [0.5, 0.5], [min(values), max(values)], [spread, spread]
    for _ in range(iterations):
        shares = []
        for v in values:
            logs = [
                math.log(max(weight[i], 1e-12)) - 0.5 * ((v - mean[i]) ** 2 / variance[i] + math.log(variance[i]))
                for i in (0, 1)
            ]
            top = max(logs)
            densities = [math.exp(x - top) for x in logs]
            shares.append([d / sum(densities) for d in densities])
        for i in (0, 1):
            mass = max(sum(s[i] for s in shares), 1e-12)
            weight[i] = mass / count
            mean[i] = sum(s[i] * v for s, v in zip(shares, values, strict=True)) / mass
            squares = sum(s[i] * (v - mean[i]) ** 2 for s, v in zip(shares, values, strict=True))
            variance[i] = max(squares / mass, floor)
    return mean[0], mean[1]


def threshold(values: list[float], iterations: int = 30, floor: float = 1e-3) -> float:
    if len(values) < 4 or max(values) - min(values) < math.sqrt(floor):
        return max(values)
    return max(min(mixture_means(values, iterations, floor)), min(values))


def one_to_many(costs, rows: list[int], columns: list[int], strategy, delta: float | None = None):
    """Row -> object, refused rows, and the threshold; the mixture's filter, or the one with a fixed threshold."""
    candidates = {g: sorted(rows, key=lambda m: costs[m, g])[: strategy.filter.candidates] for g in columns}
    pool = [costs[m, g] for g in columns for m in candidates[g]]
    if strategy.filter.pool == "all_pairs":
        pool = [costs[m, g] for g in columns for m in rows]
    if not pool:
        return {}, set(), None
    if delta is None:
        delta = threshold(pool, strategy.filter.iterations, strategy.filter.variance_floor)
        if strategy.filter.method == "top_k":
            delta = math.inf
        elif strategy.filter.method == "deta":
            delta = strategy.filter.threshold
    owners = {}
    for g in columns:
        for rank, m in enumerate(candidates[g]):
            passes = costs[m, g] <= delta or (strategy.filter.force_best and rank == 0)
            if passes and (m not in owners or costs[m, g] < costs[m, owners[m]]):
                owners[m] = g
    considered = {m for g in columns for m in candidates[g]}
    return owners, considered - set(owners), delta


def score(weights: dict, obj: torch.Tensor, trk: torch.Tensor) -> torch.Tensor:
    """MLP(FFN(obj) * trk), before temperature."""

    def linear(name: str, x):
        return torch.stack([(row * x).sum() for row in weights[f"{name}.weight"]]) + weights[f"{name}.bias"]

    x = obj + linear("ffn.2", linear("ffn.0", obj).clamp(min=0))
    centred = x - x.mean()
    x = centred / ((centred**2).mean() + 1e-5).sqrt() * weights["norm.weight"] + weights["norm.bias"]
    if "mlp.weight" in weights:
        return linear("mlp", x * trk)[0]
    return linear("mlp.2", linear("mlp.0", x * trk).clamp(min=0))[0]


def contrastive(weights, features, owners: dict[int, int], track_of: dict[int, int], vanished: list[int], config):
    """One block: owners = object query -> object, track_of = object -> track query."""
    tau, pairs = config.temperature, [(m, g) for m, g in owners.items() if g in track_of]

    def s(m: int, k: int) -> torch.Tensor:
        obj = features[m].detach() if config.stop_gradient == "object" else features[m]
        return score(weights, obj, features[k]) / tau

    negatives = vanished if config.vanished_negatives else []
    forward = [
        -torch.log(torch.exp(s(m, track_of[g])) / sum(torch.exp(s(m, k)) for k in [*track_of.values(), *negatives]))
        for m, g in pairs
        if len(track_of) + len(negatives) > 1
    ]
    backward = []
    for m, g in pairs:
        others = [s(j, track_of[g]) for j, h in owners.items() if h != g]
        own = torch.exp(s(m, track_of[g]))
        if others:
            backward.append(-torch.log(own / (own + sum(torch.exp(x) for x in others))))
    terms = {"object": [forward], "track": [backward], "symmetric": [forward, backward]}[config.anchor]
    means = [sum(t) / len(t) if t else features.new_zeros(()) for t in terms]
    return sum(means) / len(means)


def forecast(motion, ids: list[int], objects: list[dict], as_released: bool) -> torch.Tensor:
    """One scene: mean absolute error of its tracks' predicted steps."""
    total, known, steps = motion.new_zeros(()), 0, 0
    for k, identity in enumerate(ids):
        for o in objects:
            if o["identity"] != identity or identity < 0:
                continue
            for f in range(motion.shape[1]):
                steps += 2
                if o["motion_valid"][f]:
                    known += 2
                    total = total + (motion[k, f] - o["motion"][f]).abs().sum()
    return total / max(steps if as_released else known, 1)
