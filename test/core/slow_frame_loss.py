"""The losses of a whole frame, slowly: padding is taken out, then every scene goes through slow_losses alone."""

import torch
from loss_cases import scene_objects
from slow_losses import cheapest_pairs, contrastive, cost, one_to_many, set_loss, threshold

from syncl_core.strategy_config import StrategyConfig
from syncl_core.tensors import Targets
from syncl_core.tracking.base import Observation


class SlowFrame:
    """The losses of one frame, scene by scene."""

    def __init__(self, observation: Observation, targets: Targets, strategy: StrategyConfig, weights: dict | None):
        self.strategy, self.weights = strategy, weights
        self.scenes = [self._scene(observation, targets, b) for b in range(targets.valid.shape[0])]

    def losses(self) -> dict[str, torch.Tensor]:
        config, scenes = self.strategy, self.scenes
        factors = {"": 1.0, "parallel_": config.parallel.weight}
        result = {}
        for kind in [k for k in factors if k in scenes[0]]:
            of_class = of_box = 0.0
            for layer in range(len(scenes[0][kind])):
                sums = [scene[kind][layer] for scene in scenes]
                of_class = of_class + sum(s[0] / max(s[2], 1) for s in sums) / len(sums)
                of_box = of_box + sum(s[1] for s in sums) / max(sum(s[2] for s in sums), len(sums))
            result[kind + "class"] = factors[kind] * 2.0 * of_class
            result[kind + "box"] = factors[kind] * 0.25 * of_box
        memory = [scene["memory"] for scene in scenes]
        result["memory_class"] = 2.0 * sum(s[0] / max(s[2], 1) for s in memory) / len(memory)
        result["memory_box"] = 0.25 * sum(s[1] / max(s[2], 1) for s in memory) / len(memory)
        if self.weights is not None:
            result["contrastive"] = config.contrastive.weight * sum(s["contrastive"] for s in scenes) / len(scenes)
        return result

    def _scene(self, observation: Observation, targets: Targets, b: int) -> dict:
        objects = scene_objects(targets, b)
        alive = [m for m in range(observation.valid.shape[1]) if observation.valid[b, m]]
        ids = [int(observation.track_id[b, m]) for m in alive]
        by_id = {o["identity"]: g for g, o in enumerate(objects)}
        tracks = {m: by_id.get(i) for m, i in enumerate(ids) if i >= 0}
        owned = {g for g in tracks.values() if g is not None}
        queries = [m for m, i in enumerate(ids) if i < 0]
        newborn = [g for g in range(len(objects)) if g not in owned]
        ranges = {"persistent": sorted(owned), "new_born": newborn, "all": list(range(len(objects)))}
        many_objects = ranges[self.strategy.matching.objects]
        scene = {"": [], "owners": [], "kept": [], "delta": []}
        layers = observation.head.logits.shape[0]
        for layer in range(layers):
            logits, box = (x[layer, b][alive] for x in (observation.head.logits, observation.head.box))
            costs = self._costs(logits, box, objects)
            found = cheapest_pairs(costs, queries, newborn)
            owners = [tracks[m] if m in tracks else found.get(m) for m in range(len(alive))]
            scene["owners"].append(owners)
            learned = owners
            if self.strategy.enabled and self.strategy.matching.decoder == "serial":
                more, _, _ = one_to_many(costs, queries, many_objects, self.strategy)
                learned = [more.get(m) if owner is None and m in queries else owner for m, owner in enumerate(owners)]
            scene[""].append(set_loss(logits, box, learned, [True] * len(alive), objects, self.strategy.loss))
        logits, box = (x[b][alive] for x in (observation.refined.logits, observation.refined.box))
        scene["memory"] = set_loss(logits, box, scene["owners"][-1], [True] * len(alive), objects, self.strategy.loss)
        if self.strategy.needs_parallel:
            self._parallel(scene, observation.parallel, b, alive, objects, tracks, queries, many_objects)
        last = scene["owners"][-1]
        identity = [-1] * observation.valid.shape[1]
        for m, owner in zip(alive, last, strict=True):
            identity[m] = -1 if owner is None else objects[owner]["identity"]
        return scene | {"identity": identity}

    def _costs(self, logits, box, objects) -> dict[tuple[int, int], float]:
        ground = self.strategy.loss.ground_cost
        return {
            (m, g): cost(logits[m].tolist(), box[m].tolist(), o["label"], o["box"].tolist(), ground)
            for m in range(len(logits))
            for g, o in enumerate(objects)
        }

    def _parallel(self, scene, output, b, alive, objects, tracks, queries, many_objects) -> None:
        config = self.strategy.parallel
        owned = [g for g in tracks.values() if g is not None]
        some = (bool(many_objects) and config.object_loss) or (bool(owned) and config.track_loss)
        layers = output.logits.shape[0]
        outputs = [(output.logits[i, b][alive], output.box[i, b][alive]) for i in range(layers)]
        costs = [self._costs(*o, objects) for o in outputs]
        delta = None
        if self.strategy.filter.pool == "all_blocks":
            count = self.strategy.filter.candidates
            pool = [x for c in costs for g in many_objects for x in sorted(c[m, g] for m in queries)[:count]]
            delta = threshold(pool, self.strategy.filter.iterations) if pool else None
        scene["parallel_"], blocks = [], []
        for layer in range(layers):
            source = layer if self.strategy.matching.every_block else layers - 1
            many, refused, used = one_to_many(costs[source], queries, many_objects, self.strategy, delta)
            owners, counts = [], []
            for m in range(len(alive)):
                owners.append(tracks[m] if m in tracks else many.get(m))
                count = config.track_loss if m in tracks else config.object_loss
                if config.empty_frames == "skip" and not some:
                    count = False
                if m in queries and m not in many:
                    if config.new_born == "ignore" and scene["owners"][layer][m] is not None:
                        count = False
                    if config.rejected == "ignore" and m in refused:
                        count = False
                counts.append(count)
            of_class, of_box, positives = set_loss(*outputs[layer], owners, counts, objects, self.strategy.loss)
            if config.normalizer == "serial":
                positives = scene[""][layer][2]
            scene["parallel_"].append((of_class, of_box, positives))
            scene["kept"].append(many)
            scene["delta"].append(used)
            blocks.append(many)
        if self.weights is not None:
            track_of = {g: m for m, g in tracks.items() if g is not None}
            gone = [m for m, g in tracks.items() if g is None]
            features = output.raw if self.strategy.contrastive.features == "raw" else output.features
            chosen = range(layers) if self.strategy.contrastive.blocks == "all" else [layers - 1]
            terms = [
                contrastive(self.weights, features[i, b][alive], blocks[i], track_of, gone, self.strategy.contrastive)
                for i in chosen
            ]
            scene["contrastive"] = sum(terms) / len(terms)
