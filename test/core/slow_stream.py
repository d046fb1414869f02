"""StreamPETR once more, slowly: one scene, Python lists of entries and rows, poses and times as they came, float64.

Written from the formulas and from nothing of `syncl_core.models` or `syncl_core.tracking`; takes only a state dict.
Every entry keeps the global pose and the time of its frame and its centre in the global frame; what the network needs
is worked out anew in every frame. Only the layers shared with PETR come from `slow_pftrack`.
"""

import math

import torch
from slow_pftrack import PI2, SlowPFTrack, logit, sine

HEAD = "pts_bbox_head"
AT_REST = torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], dtype=torch.float64)


class SlowStream(SlowPFTrack):
    """`tracks` True: StreamPETR in the MUTR3D framework; False: the detector."""

    def __init__(self, config, weights: dict[str, torch.Tensor], backbone):
        super().__init__(config, weights, backbone)
        self.with_tracks = config.model.framework == "mutr3d"
        self.queue: list[dict] = []

    # --- layers ---

    def plain_norm(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def motion_norm(self, name: str, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        hidden = self.linear(f"{HEAD}.{name}.reduce.0", code).clamp(min=0)
        gamma, beta = (self.linear(f"{HEAD}.{name}.{part}", hidden) for part in ("gamma", "beta"))
        return gamma * self.plain_norm(x) + beta

    @staticmethod
    def octaves(motion: torch.Tensor) -> torch.Tensor:
        values = []
        for k in range(6):
            values += [math.sin(x * 2**k) for x in motion.tolist()]
            values += [math.cos(x * 2**k) for x in motion.tolist()]
        return torch.tensor(values, dtype=torch.float64)

    def hybrid_decoder(self, x, pos, context, context_pos, memory, memory_pos) -> torch.Tensor:
        for i in range(self.config.model.num_layers):
            layer = f"{HEAD}.transformer.decoder.layers.{i}"
            keys = torch.cat([x + pos, context + context_pos])
            attended = self.attention(f"{layer}.attentions.0.attn", x + pos, keys, torch.cat([x, context]))
            x = self.norm(f"{layer}.norms.0", x + attended)
            attended = self.attention(f"{layer}.attentions.1.attn", x + pos, memory + memory_pos, memory)
            x = self.norm(f"{layer}.norms.1", x + attended)
            hidden = self.linear(f"{layer}.ffns.0.layers.0.0", x).clamp(min=0)
            x = self.norm(f"{layer}.norms.2", x + self.linear(f"{layer}.ffns.0.layers.1", hidden))
        return self.norm(f"{HEAD}.transformer.decoder.post_norm", x)

    # --- image tokens ---

    def memory(self, images, image_from_model, camera_valid) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(images)
        cameras, _, rows, cols = features.shape
        height, width = images.shape[-2:]
        focal = self.focal_lengths(image_from_model, camera_valid)
        tokens, positions, number = [], [], -1
        for n in range(cameras):
            for r in range(rows):
                for c in range(cols):
                    number += 1
                    if not camera_valid[n]:
                        continue
                    u, v = (c + 0.5) * width / cols, (r + 0.5) * height / rows
                    ray = self.ray_fractions(image_from_model[n], u, v)
                    token = self.mlp(f"{HEAD}.memory_embed", features[n, :, r, c], (0, 2))
                    # As released, the cameras take turns here.
                    cone = torch.cat([focal[number % cameras] / 1000, ray[-1], ray[-30]])
                    token = self.motion_norm("spatial_alignment", token, cone)
                    where = self.mlp(f"{HEAD}.position_encoder", logit(ray).flatten(), (0, 2))
                    gate = self.linear(f"{HEAD}.featurized_pe.conv_reduce", token).clamp(min=0)
                    gate = self.linear(f"{HEAD}.featurized_pe.conv_expand", gate).sigmoid()
                    tokens.append(token)
                    positions.append(where * gate)
        return torch.stack(tokens), torch.stack(positions)

    @staticmethod
    def focal_lengths(image_from_model: torch.Tensor, camera_valid: torch.Tensor) -> list[torch.Tensor]:
        """Row i of K [R t] is f_i times a unit vector plus c_i times the unit vector of the depth row."""
        found: list[torch.Tensor | None] = []
        for matrix, valid in zip(image_from_model, camera_valid, strict=True):
            depth = matrix[2, :3] / matrix[2, :3].norm()
            rows = [matrix[i, :3] / matrix[2, :3].norm() for i in (0, 1)]
            values = [math.sqrt(row @ row - (row @ depth) ** 2) for row in rows]
            found.append(torch.tensor(values, dtype=torch.float64) if valid else None)
        present = [value for value in found if value is not None]
        return [sum(present) / len(present) if value is None else value for value in found]

    def ray_fractions(self, image_from_model: torch.Tensor, u: float, v: float) -> torch.Tensor:
        model = self.config.model
        box = torch.tensor(model.position_range, dtype=torch.float64).view(2, 3)
        inverse = torch.linalg.inv(image_from_model)
        points = []
        for i in range(model.depth_bins):
            step = (model.position_range[3] - model.depth_start) / (model.depth_bins * (model.depth_bins + 1))
            d = model.depth_start + step * i * (i + 1)
            points.append((inverse @ torch.tensor([u * d, v * d, d, 1.0], dtype=torch.float64))[:3])
        return (torch.stack(points) - box[0]) / (box[1] - box[0])

    # --- queries ---

    def query(self, feature, center_fractions, motion, seconds) -> tuple[torch.Tensor, torch.Tensor]:
        """Content and position [D] of one row."""
        code, size = self.octaves(motion), self.config.model.embed_dim
        axes = sum((sine(center_fractions[a].item() * PI2, size // 2, blocked=False) for a in (1, 0, 2)), [])
        embedded = self.mlp(f"{HEAD}.query_embedding", torch.tensor(axes, dtype=torch.float64), (0, 2))
        time = torch.tensor(sine(seconds * PI2, size, blocked=False), dtype=torch.float64)
        time = self.norm(f"{HEAD}.time_embedding.1", self.linear(f"{HEAD}.time_embedding.0", time))
        position = self.motion_norm("ego_pose_pe", embedded, code) + time
        return self.motion_norm("ego_pose_memory", feature, code), position

    def see(self, entry: dict, pose: torch.Tensor, t_ns: int) -> dict:
        """An entry from this frame's model frame: centre, motion and seconds."""
        inverse = torch.linalg.inv(pose)
        relative = inverse @ entry["pose"]
        seconds = (t_ns - entry["t_ns"]) / 1e9
        motion = torch.cat([entry["velocity"], torch.tensor([seconds], dtype=torch.float64), relative[:3].flatten()])
        center = inverse[:3, :3] @ entry["center"] + inverse[:3, 3]
        return dict(feature=entry["feature"], center=center, motion=motion, seconds=seconds, pose=relative)

    def entry_query(
        self, entry: dict, pose: torch.Tensor, t_ns: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.see(entry, pose, t_ns)
        start = self.fractions(seen["center"])
        return (*self.query(seen["feature"], start, seen["motion"], seen["seconds"]), start)

    def begin(self, pose: torch.Tensor, t_ns: int) -> None:
        """The empty queue: zeros, the first ones at the pseudo reference points and with a pose."""
        stream, zeros = self.config.model.stream, torch.zeros(self.config.model.embed_dim, dtype=torch.float64)
        pseudo = self.w[f"{HEAD}.pseudo_reference_points.weight"]
        for i in range(stream.memory_length):
            local = torch.zeros(3, dtype=torch.float64)
            if i < stream.propagated:
                local = self.low + pseudo[i] * (self.high - self.low)
            self.queue.append(
                dict(
                    feature=zeros,
                    center=pose[:3, :3] @ local + pose[:3, 3],
                    velocity=torch.zeros(2, dtype=torch.float64),
                    t_ns=t_ns,
                    pose=pose if i < stream.propagated else torch.zeros(4, 4, dtype=torch.float64),
                )
            )

    # --- a frame ---

    def step(self, images, image_from_model, camera_valid, pose, t_ns) -> list[dict]:
        if not self.queue:
            self.begin(pose, t_ns)
        propagated = self.config.model.stream.propagated
        again = self.tracks if self.with_tracks else self.queue[:propagated]
        context = self.queue if self.with_tracks else self.queue[propagated:]
        rows = self.look(self.memory(images, image_from_model, camera_valid), again, context, pose, t_ns)
        best = sorted(rows, key=lambda row: -row["score"])[: self.config.model.stream.pushed]
        keep = self.live_and_die(rows) if self.with_tracks else self.detections(rows)
        self.queue = ([row["entry"] for row in best] + self.queue)[: self.config.model.stream.memory_length]
        chosen = sorted(keep, key=lambda row: -row["score"])[: self.config.track.slots]
        self.dropped += len(keep) - len(chosen)
        self.tracks = [row | row["entry"] for row in keep if any(row is one for one in chosen)]
        for row in self.tracks:
            if row["id"] is None:
                row["id"], self.next_id = self.next_id, self.next_id + 1
        limit = self.config.track.filter_threshold if self.with_tracks else -1.0
        return [
            row for row in self.tracks if row["score"] > self.config.track.output_threshold and row["score"] >= limit
        ]

    def look(self, tokens, again: list[dict], context: list[dict], pose, t_ns) -> list[dict]:
        objects = []
        zeros = torch.zeros(self.config.model.embed_dim, dtype=torch.float64)
        for point in self.w[f"{HEAD}.reference_points.weight"]:
            objects.append((*self.query(zeros, point, AT_REST, 0.0), point))
        queries = objects + [self.entry_query(entry, pose, t_ns) for entry in again]
        others = [self.entry_query(entry, pose, t_ns) for entry in context]
        x, pos = (torch.stack([query[i] for query in queries]) for i in (0, 1))
        other, other_pos = (torch.stack([query[i] for query in others]) for i in (0, 1))
        features = self.hybrid_decoder(x, pos, other, other_pos, *tokens)
        last = self.config.model.num_layers - 1
        logits = self.mlp(f"{HEAD}.cls_branches.{last}", features, (0, 3, 6), norms=(1, 4)).sigmoid()
        raw = self.mlp(f"{HEAD}.reg_branches.{last}", features, (0, 2, 4))
        rows = []
        for i, (feature, scores, code, query) in enumerate(zip(features, logits, raw, queries, strict=True)):
            box, centre = self.box(code, query[2])
            metres = self.low + centre * (self.high - self.low)
            entry = dict(
                feature=feature, velocity=box[8:10], t_ns=t_ns, pose=pose, center=pose[:3, :3] @ metres + pose[:3, 3]
            )
            old = again[i - len(objects)] if self.with_tracks and i >= len(objects) else dict(id=None, misses=0, age=-1)
            rows.append(
                dict(
                    id=old["id"],
                    misses=old["misses"],
                    age=old["age"] + 1,
                    score=scores.max().item(),
                    label=scores.argmax().item(),
                    box=box,
                    entry=entry,
                )
            )
        return rows

    def detections(self, rows: list[dict]) -> list[dict]:
        limit, tracked = self.config.track.score_threshold, self.config.num_tracking_classes
        return [row for row in rows if row["score"] > limit and row["label"] < tracked]

    def live_and_die(self, rows: list[dict]) -> list[dict]:
        track, kept = self.config.track, []
        for row in rows:
            tracked = row["label"] < self.config.num_tracking_classes
            if row["score"] >= track.score_threshold:
                row["misses"] = 0
                if tracked:
                    kept.append(row)
            elif row["id"] is not None and row["score"] >= track.filter_threshold:
                if tracked:
                    kept.append(row)
            elif row["id"] is not None:
                row["misses"] += 1
                if row["misses"] < track.max_age:
                    kept.append(row)
        return kept
