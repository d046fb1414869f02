"""PF-Track once more, slowly: one scene, Python lists of tracks, loops over heads, tokens and rows, float64.

Written from the formulas and from nothing of `syncl_core.models` or `syncl_core.tracking`; takes only a state dict.
There are no slots and no masks here: what is not there is left out.
"""

import copy
import math

import torch
from torch.nn import functional

PI2 = 2 * math.pi


def logit(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


def sine(x: float, count: int, blocked: bool) -> list[float]:
    angles = [x / 10000 ** (2 * (k // 2) / count) for k in range(count)]
    values = [math.cos(a) if k % 2 else math.sin(a) for k, a in enumerate(angles)]
    return values[0::2] + values[1::2] if blocked else values


class SlowPFTrack:
    def __init__(self, config, weights: dict[str, torch.Tensor], backbone):
        self.config, self.backbone = config, backbone
        self.w = {name: value.double() for name, value in weights.items()}
        self.low, self.high = torch.tensor(config.model.pc_range, dtype=torch.float64).view(2, 3)
        self.tracks: list[dict] = []
        self.next_id = 0
        self.dropped = 0
        self.pose, self.t_ns = None, None

    # --- layers ---

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w[name + ".weight"].flatten(1).T + self.w[name + ".bias"]

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.w[name + ".weight"] + self.w[name + ".bias"]

    def mlp(self, name: str, x: torch.Tensor, linears: tuple[int, ...], norms: tuple[int, ...] = ()) -> torch.Tensor:
        for i in linears:
            x = self.linear(f"{name}.{i}", x)
            if i + 1 in norms:
                x = self.norm(f"{name}.{i + 1}", x)
            if i != linears[-1]:
                x = x.clamp(min=0)
        return x

    def attention(self, name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        weights, biases = self.w[name + ".in_proj_weight"].chunk(3), self.w[name + ".in_proj_bias"].chunk(3)
        q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
        size = q.shape[-1] // self.config.model.num_heads
        heads = []
        for h in range(self.config.model.num_heads):
            part = slice(h * size, (h + 1) * size)
            heads.append((q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(-1) @ v[:, part])
        return self.linear(name + ".out_proj", torch.cat(heads, -1))

    def decoder(self, name: str, layers: int, x, pos, memory, memory_pos) -> torch.Tensor:
        for i in range(layers):
            layer = f"{name}.decoder.layers.{i}"
            attended = self.attention(f"{layer}.attentions.0.attn", x + pos, x + pos, x)
            x = self.norm(f"{layer}.norms.0", x + attended)
            attended = self.attention(f"{layer}.attentions.1.attn", x + pos, memory + memory_pos, memory)
            x = self.norm(f"{layer}.norms.1", x + attended)
            hidden = self.linear(f"{layer}.ffns.0.layers.0.0", x).clamp(min=0)
            x = self.norm(f"{layer}.norms.2", x + self.linear(f"{layer}.ffns.0.layers.1", hidden))
        return self.norm(f"{name}.decoder.post_norm", x)

    # --- image tokens ---

    def features(self, images: torch.Tensor) -> torch.Tensor:
        bgr = images[:, [2, 1, 0]].float()
        mean, std = torch.tensor([103.53, 116.28, 123.675]), torch.tensor([57.375, 57.12, 58.395])
        maps = self.backbone((bgr - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
        fine, coarse = (
            functional.conv2d(x.double(), *self.both(f"img_neck.lateral_convs.{i}.conv")) for i, x in enumerate(maps)
        )
        fine = fine + functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return functional.conv2d(fine, *self.both("img_neck.fpn_convs.0.conv"), padding=1)

    def both(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.w[name + ".weight"], self.w[name + ".bias"]

    def memory(self, images, image_from_model, camera_valid) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and positions [P, D] of the cameras that are there."""
        features = self.features(images)
        cameras, _, rows, cols = features.shape
        height, width = images.shape[-2:]
        tokens, positions = [], []
        for n in range(cameras):
            if not camera_valid[n]:
                continue
            for r in range(rows):
                for c in range(cols):
                    tokens.append(self.linear("pts_bbox_head.input_proj", features[n, :, r, c]))
                    ray = self.ray(image_from_model[n], c * width / cols, r * height / rows)
                    number = self.token_number(n, r, c, (cameras, rows, cols))
                    positions.append(
                        self.mlp("pts_bbox_head.position_encoder", ray, (0, 2))
                        + self.mlp("pts_bbox_head.adapt_pos3d", number, (0, 2))
                    )
        return torch.stack(tokens), torch.stack(positions)

    def ray(self, image_from_model: torch.Tensor, u: float, v: float) -> torch.Tensor:
        model = self.config.model
        box = torch.tensor(model.position_range, dtype=torch.float64).view(2, 3)
        inverse = torch.linalg.inv(image_from_model)
        values = []
        for i in range(model.depth_bins):
            step = (model.position_range[3] - model.depth_start) / (model.depth_bins * (model.depth_bins + 1))
            d = model.depth_start + step * i * (i + 1)
            point = inverse @ torch.tensor([u * d, v * d, d, 1.0], dtype=torch.float64)
            values.append(logit((point[:3] - box[0]) / (box[1] - box[0])))
        return torch.cat(values)

    def token_number(self, n: int, r: int, c: int, counts: tuple[int, int, int]) -> torch.Tensor:
        size = self.config.model.embed_dim // 2
        parts = [
            sine((i + 1) / (count + 1e-6) * PI2, size, blocked=True) for i, count in zip((n, r, c), counts, strict=True)
        ]
        return torch.tensor(sum(parts, []), dtype=torch.float64)

    # --- queries and boxes ---

    def embed(self, fractions: torch.Tensor) -> torch.Tensor:
        size = self.config.model.embed_dim // 2
        rows = [sum((sine(p[a].item() * PI2, size, blocked=False) for a in (1, 0, 2)), []) for p in fractions]
        return self.mlp("query_embedding", torch.tensor(rows, dtype=torch.float64), (0, 2))

    def times(self, count: int) -> torch.Tensor:
        size = self.config.model.embed_dim
        rows = [sine(i / (count - 1) * PI2, size, blocked=False) for i in range(count)]
        return self.mlp("STReasoner.ts_query_embed", torch.tensor(rows, dtype=torch.float64), (0, 2))

    def box(self, raw: torch.Tensor, fractions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        centre = torch.sigmoid(raw[[0, 1, 4]] + logit(fractions))
        code = raw.clone()
        code[[0, 1, 4]] = self.low + centre * (self.high - self.low)
        return code, centre

    def fractions(self, metres: torch.Tensor) -> torch.Tensor:
        return (metres - self.low) / (self.high - self.low)

    # --- a frame ---

    def step(self, images, image_from_model, camera_valid, pose, t_ns) -> list[dict]:
        """Returns the confident tracks of this frame."""
        self.carry_over(pose, t_ns)
        rows = self.detect(*self.memory(images, image_from_model, camera_valid))
        self.reason(rows)
        survivors = [row for row in rows if self.survives(row)]
        best = sorted(survivors, key=lambda row: -row["score"])[: self.config.track.slots]
        self.dropped += len(survivors) - len(best)
        self.tracks = [row for row in survivors if any(row is one for one in best)]
        for row in self.tracks:
            if row["id"] is None:
                row["id"], self.next_id = self.next_id, self.next_id + 1
            if row["seen"]:
                self.predict(row)
        return [row for row in self.tracks if row["score"] > self.config.track.output_threshold]

    def carry_over(self, pose: torch.Tensor, t_ns: int) -> None:
        exact = self.config.track.ego_update == "exact"
        steps = (t_ns - self.t_ns) * 1e-9 / self.config.track.step_seconds if self.t_ns is not None else 0.0
        relative = torch.linalg.inv(pose) @ self.pose if self.pose is not None else None
        for track in self.tracks:
            if exact:
                self.walk(track, steps)
            else:
                track["reference"] = track["reference"] + torch.cat([track["motion"][0], torch.zeros(1)])
                track["coast"] = track["future"][0]
                track["motion"], track["future"] = track["motion"][1:], track["future"][1:]
            for name in ("reference", "coast"):
                track[name] = relative[:3, :3] @ track[name] + relative[:3, 3]
            track["future"] = [relative[:3, :3] @ p + relative[:3, 3] for p in track["future"]]
            if exact:
                self.turn(track, math.atan2(relative[1, 0], relative[0, 0]))
        self.pose, self.t_ns = pose, t_ns

    def walk(self, track: dict, steps: float) -> None:
        path = [track["reference"], *track["future"]]

        def at(s: float) -> torch.Tensor:
            if s >= len(path) - 1:
                return path[-1]
            i = int(s)
            return path[i] + (s - i) * (path[i + 1] - path[i])

        track["future"] = [at(steps + k + 1) for k in range(len(path) - 1)]
        track["reference"] = track["coast"] = at(steps)

    @staticmethod
    def turn(track: dict, yaw: float) -> None:
        box = track["box"].clone()
        angle = math.atan2(box[6], box[7]) - yaw
        length = math.hypot(box[6], box[7])
        box[6], box[7] = length * math.sin(angle), length * math.cos(angle)
        velocity = complex(box[8], box[9]) * complex(math.cos(yaw), math.sin(yaw))
        box[8], box[9] = velocity.real, velocity.imag
        track["box"] = box

    def detect(self, tokens: torch.Tensor, positions: torch.Tensor) -> list[dict]:
        model = self.config.model
        rows = [
            dict(id=None, past=[], misses=0, age=0, query=feature, start=point)
            for feature, point in zip(
                self.w["query_feat_embedding.weight"], self.w["reference_points.weight"], strict=True
            )
        ]
        rows += [copy.copy(track) | dict(start=self.fractions(track["reference"])) for track in self.tracks]
        content = torch.stack([row["query"] for row in rows])
        pos = self.embed(torch.stack([row["start"] for row in rows]))
        features = self.decoder("pts_bbox_head.transformer", model.num_layers, content, pos, tokens, positions)
        for row, feature, code in zip(rows, features, self.raw_boxes(features), strict=True):
            row["feature"] = feature
            row["head_box"], row["centre"] = self.box(code, row["start"])
        return rows

    def raw_boxes(self, features: torch.Tensor) -> torch.Tensor:
        return self.mlp(f"pts_bbox_head.reg_branches.{self.config.model.num_layers - 1}", features, (0, 2, 4))

    def reason(self, rows: list[dict]) -> None:
        model, track = self.config.model, self.config.track
        times = self.times(model.history_length)
        updated = []
        for row in rows:
            row["past"] = [*row["past"], row["feature"]][-model.history_length :]
            past, when = torch.stack(row["past"]), times[-len(row["past"]) :]
            name = "STReasoner.hist_temporal_transformer"
            updated.append(self.decoder(name, model.reasoning_layers, row["feature"][None], times[-1:], past, when)[0])
        x, pos = torch.stack(updated), self.embed(torch.stack([row["centre"] for row in rows]))
        x = self.decoder("STReasoner.spatial_transformer", model.reasoning_layers, x, pos, x, pos)
        logits = self.mlp("STReasoner.track_cls", x, (0, 3, 6), norms=(1, 4))
        raw = self.mlp("STReasoner.track_reg", x, (0, 3, 6), norms=(1, 4))
        for row, feature, scores, code in zip(rows, x, logits.sigmoid(), raw, strict=True):
            row["past"] = [*row["past"][:-1], feature]
            row["raw_score"] = scores.max().item()
            row["seen"] = row["raw_score"] >= track.record_threshold
            if row["seen"]:
                row["box"], centre = self.box(code, row["centre"])
                row["reference"] = self.low + centre * (self.high - self.low)
                row.update(query=feature, score=row["raw_score"], label=scores.argmax().item())
            elif row["id"] is not None:
                row["reference"], row["score"] = row["coast"], 0.01
                row["box"] = row["box"].clone()
                row["box"][[0, 1, 4]] = row["coast"]

    def survives(self, row: dict) -> bool:
        track = self.config.track
        active = row["seen"] and row["raw_score"] > track.score_threshold
        if row["seen"] and row["label"] >= self.config.num_tracking_classes:
            return False
        if row["id"] is not None:
            row["age"] += 1
        row["misses"] = 0 if active else row["misses"] + 1
        return active or (row["id"] is not None and row["misses"] < track.max_age)

    def predict(self, row: dict) -> None:
        model = self.config.model
        times = self.times(model.history_length + model.future_steps)
        past = torch.stack(row["past"])
        start = model.history_length
        x = torch.zeros(model.future_steps, model.embed_dim, dtype=torch.float64)
        name = "STReasoner.fut_temporal_transformer"
        x = self.decoder(name, model.reasoning_layers, x, times[start:], past, times[start - len(past) : start])
        row["motion"] = list(self.mlp("STReasoner.future_reg", x, (0, 3, 6), norms=(1, 4))[:, :2])
        row["future"], point = [], row["reference"]
        for step in row["motion"]:
            point = point + torch.cat([step, torch.zeros(1)])
            row["future"].append(point)
