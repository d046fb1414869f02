"""MUTR3D once more, slowly: one scene, Python lists of tracks, loops over heads, cameras, levels and rows, float64.

Written from the formulas and from nothing of `syncl_core.models` or `syncl_core.tracking`; takes only a state dict.
There are no slots and no masks here: what is not there is left out.
"""

import math

import torch
from torch.nn import functional

PI2 = 2 * math.pi


def logit(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


def bilinear(pixels: torch.Tensor, down: float, right: float) -> torch.Tensor:
    """pixels [C, h, w] at the place (down, right) in units of pixel centres; zero beyond the border."""
    top, left = math.floor(down), math.floor(right)
    value = torch.zeros(pixels.shape[0], dtype=pixels.dtype)
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < pixels.shape[1] and 0 <= col < pixels.shape[2]:
                value += (1 - abs(down - row)) * (1 - abs(right - col)) * pixels[:, row, col]
    return value


def deformable_conv(x, offset, modulation, weight, stride: int, padding: int, dilation: int) -> torch.Tensor:
    """Modulated deformable convolution, one output number after the other."""
    batch, kernel = x.shape[0], weight.shape[-1]
    out = torch.zeros(batch, weight.shape[0], *offset.shape[-2:], dtype=x.dtype)
    for b in range(batch):
        for row in range(out.shape[2]):
            for col in range(out.shape[3]):
                for i in range(kernel):
                    for j in range(kernel):
                        k = i * kernel + j
                        down = row * stride - padding + i * dilation + offset[b, 2 * k, row, col].item()
                        right = col * stride - padding + j * dilation + offset[b, 2 * k + 1, row, col].item()
                        seen = bilinear(x[b], down, right) * modulation[b, k, row, col]
                        out[b, :, row, col] += weight[:, :, i, j] @ seen
    return out


class SlowMUTR3D:
    def __init__(self, config, weights: dict[str, torch.Tensor], backbone):
        self.config, self.backbone = config, backbone
        self.w = {name: value.double() for name, value in weights.items()}
        self.low, self.high = torch.tensor(config.model.pc_range, dtype=torch.float64).view(2, 3)
        self.dim = config.model.embed_dim
        self.tracks: list[dict] = []
        self.next_id = 0
        self.dropped = 0
        self.pose, self.t_ns = None, None

    # --- layers ---

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.w[name + ".weight"] + self.w[name + ".bias"]

    def mlp(self, name: str, x: torch.Tensor, linears: tuple[int, ...], norms: bool = False) -> torch.Tensor:
        for i in linears:
            x = self.linear(f"{name}.{i}", x)
            if i != linears[-1]:
                x = (self.norm(f"{name}.{i + 1}", x) if norms else x).clamp(min=0)
        return x

    def attention(self, name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        weights, biases = self.w[name + ".in_proj_weight"].chunk(3), self.w[name + ".in_proj_bias"].chunk(3)
        q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
        size = self.dim // self.config.model.num_heads
        heads = []
        for h in range(self.config.model.num_heads):
            part = slice(h * size, (h + 1) * size)
            heads.append((q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(-1) @ v[:, part])
        return self.linear(name + ".out_proj", torch.cat(heads, -1))

    # --- images ---

    def normed_conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = self.w[name + ".conv.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        column = {
            key: self.w[f"{name}.bn.{key}"].view(-1, 1, 1) for key in ("weight", "bias", "running_mean", "running_var")
        }
        x = (x - column["running_mean"]) / (column["running_var"] + 1e-5).sqrt()
        return x * column["weight"] + column["bias"]

    def pyramid(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        lateral = [self.normed_conv(f"img_neck.lateral_convs.{i}", x.double()) for i, x in enumerate(maps)]
        for i in range(len(lateral) - 1, 0, -1):
            rows, cols = lateral[i - 1].shape[-2:]
            coarse_rows, coarse_cols = lateral[i].shape[-2:]
            for r in range(rows):
                for c in range(cols):
                    lateral[i - 1][:, :, r, c] += lateral[i][:, :, r * coarse_rows // rows, c * coarse_cols // cols]
        levels = [self.normed_conv(f"img_neck.fpn_convs.{i}", x) for i, x in enumerate(lateral)]
        while len(levels) < self.config.model.detr3d.num_levels:
            source = levels[-1].clamp(min=0) if len(levels) > len(lateral) else levels[-1]
            levels.append(self.normed_conv(f"img_neck.fpn_convs.{len(levels)}", source, stride=2))
        return levels

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps [N, D, h, w] with their positions."""
        bgr = images[:, [2, 1, 0]].float()
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.config.image.mean, self.config.image.std))
        height, width = self.padded_size(images)
        padded = torch.zeros(images.shape[0], 3, height, width)
        padded[:, :, : images.shape[2], : images.shape[3]] = (bgr - mean) / std
        levels = self.pyramid(list(self.backbone(padded)))
        for i, level in enumerate(levels):
            for n in range(level.shape[0]):
                level[n] += self.map_position(*level.shape[-2:])
                level[n] += self.w["pts_bbox_head.level_embeds"][i].view(-1, 1, 1)
                level[n] += self.w["pts_bbox_head.cam_embeds"][n].view(-1, 1, 1)
        return levels

    def padded_size(self, images: torch.Tensor) -> tuple[int, int]:
        multiple = self.config.model.detr3d.pad_multiple
        return tuple(math.ceil(n / multiple) * multiple for n in images.shape[-2:])

    def map_position(self, rows: int, cols: int) -> torch.Tensor:
        half = self.dim // 2
        position = torch.zeros(self.dim, rows, cols, dtype=torch.float64)
        for r in range(rows):
            for c in range(cols):
                places = ((r + 0.5) / (rows + 1e-6) * PI2, (c + 0.5) / (cols + 1e-6) * PI2)
                for block, place in enumerate(places):
                    for k in range(half):
                        angle = place / 10000 ** (2 * (k // 2) / half)
                        position[block * half + k, r, c] = math.cos(angle) if k % 2 else math.sin(angle)
        return position

    # --- decoder ---

    def metres(self, fractions: torch.Tensor) -> torch.Tensor:
        return self.low + fractions * (self.high - self.low)

    def sample(self, name: str, x, position, reference, levels, image_from_model, camera_valid, size) -> torch.Tensor:
        """Cross-attention of one query: x, position [D], reference [3]."""
        weights = self.linear(name + ".attention_weights", x + position).sigmoid()
        read = torch.zeros(self.dim, dtype=torch.float64)
        point = torch.cat([self.metres(reference), torch.ones(1, dtype=torch.float64)])
        for n in range(len(camera_valid)):
            if not camera_valid[n]:
                continue
            u, v, depth = (image_from_model[n] @ point)[:3].tolist()
            if depth <= 1e-5 or not (0 < u / depth < size[1] and 0 < v / depth < size[0]):
                continue
            for i, level in enumerate(levels):
                rows, cols = level.shape[-2:]
                seen = bilinear(level[n], v / depth / size[0] * rows - 0.5, u / depth / size[1] * cols - 0.5)
                read += weights[n * len(levels) + i] * seen
        where = self.linear(name + ".position_encoder.0", logit(reference))
        where = self.norm(name + ".position_encoder.1", where).clamp(min=0)
        where = self.norm(name + ".position_encoder.4", self.linear(name + ".position_encoder.3", where)).clamp(min=0)
        return self.linear(name + ".output_proj", read) + x + where

    def detect(self, rows: list[dict], levels, image_from_model, camera_valid, size) -> None:
        """Every row gets its feature, logits, box and centre of the last layer."""
        x = torch.stack([row["content"] for row in rows])
        position = torch.stack([row["position"] for row in rows])
        reference = torch.stack([row["start"] for row in rows])
        log_size = torch.stack([row["log_size"] for row in rows])
        for i in range(self.config.model.num_layers):
            layer = f"pts_bbox_head.transformer.decoder.layers.{i}"
            attended = self.attention(f"{layer}.attentions.0.attn", x + position, x + position, x)
            x = self.norm(f"{layer}.norms.0", x + attended)
            views = (levels, image_from_model, camera_valid, size)
            sampled = [
                self.sample(f"{layer}.attentions.1", *row, *views) for row in zip(x, position, reference, strict=True)
            ]
            x = self.norm(f"{layer}.norms.1", torch.stack(sampled))
            hidden = self.linear(f"{layer}.ffns.0.layers.0.0", x).clamp(min=0)
            x = self.norm(f"{layer}.norms.2", x + self.linear(f"{layer}.ffns.0.layers.1", hidden))
            raw = self.mlp(f"pts_bbox_head.reg_branches.{i}", x, (0, 2, 4))
            reference = (raw[:, [0, 1, 4]] + logit(reference)).sigmoid()
            log_size = log_size + raw[:, [2, 3, 5]]
        logits = self.mlp(f"pts_bbox_head.cls_branches.{i}", x, (0, 3, 6), norms=True)
        direction = self.mlp(f"pts_bbox_head.direction_branches.{i}", x, (0, 2, 4))
        velocity = self.mlp(f"pts_bbox_head.velo_branches.{i}", x, (0, 2, 4))
        for m, row in enumerate(rows):
            cx, cy, cz = self.metres(reference[m]).tolist()
            width, length, height = log_size[m].tolist()
            code = [cx, cy, width, length, cz, height, *direction[m].tolist(), *velocity[m].tolist()]
            row.update(feature=x[m], logits=logits[m], box=torch.tensor(code, dtype=torch.float64))
            row.update(reference=self.metres(reference[m]), log_size=log_size[m])

    # --- a frame ---

    def step(self, images, image_from_model, camera_valid, pose, t_ns) -> list[dict]:
        """Returns what is output of this frame."""
        self.carry_over(pose, t_ns)
        rows = self.new_rows() + self.tracks
        self.detect(rows, self.encode(images), image_from_model, camera_valid, self.padded_size(images))
        survivors = [row for row in rows if self.survives(row)]
        best = sorted(survivors, key=lambda row: -row["score"])[: self.config.track.slots]
        self.dropped += len(survivors) - len(best)
        self.tracks = [row for row in survivors if any(row is one for one in best)]
        for row in self.tracks:
            if row["id"] is None:
                row["id"], self.next_id = self.next_id, self.next_id + 1
            fraction = (row["reference"] - self.low) / (self.high - self.low)
            row["reference"] = self.metres(logit(fraction).sigmoid())
            self.remember(row)
        if self.tracks:
            self.interact(self.tracks)
        return [row for row in self.tracks if self.is_output(row)]

    def is_output(self, row: dict) -> bool:
        low, high = self.config.model.position_range[:3], self.config.model.position_range[3:]
        inside = all(a <= x <= b for a, x, b in zip(low, row["reference"].tolist(), high, strict=True))
        return inside and row["score"] >= self.config.track.filter_threshold

    def carry_over(self, pose: torch.Tensor, t_ns: int) -> None:
        for track in self.tracks:
            seconds = (t_ns - self.t_ns) * 1e-9
            ahead = torch.tensor([track["box"][8] * seconds, track["box"][9] * seconds, 0.0], dtype=torch.float64)
            in_global = self.pose[:3, :3] @ (track["reference"] + ahead) + self.pose[:3, 3]
            moved = torch.linalg.inv(pose[:3, :3]) @ (in_global - pose[:3, 3])
            track["start"] = logit((moved - self.low) / (self.high - self.low)).sigmoid()
        self.pose, self.t_ns = pose, t_ns

    def new_rows(self) -> list[dict]:
        rows = []
        for query in self.w["query_embedding.weight"]:
            position, content = query[: self.dim], query[self.dim :]
            row = dict(id=None, misses=0, age=0, past=[], wait=0, position=position, content=content)
            start, log_size = (self.linear(name, position) for name in ("reference_points", "bbox_size_fc"))
            rows.append(row | dict(start=start.sigmoid(), log_size=log_size))
        return rows

    def survives(self, row: dict) -> bool:
        track = self.config.track
        scores = row["logits"].sigmoid()
        row["score"], row["label"] = scores.max().item(), scores.argmax().item()
        if row["score"] >= track.score_threshold:
            row["misses"] = 0
        if row["id"] is None:
            return row["score"] >= track.score_threshold
        row["age"] += 1
        if row["score"] < track.filter_threshold:
            row["misses"] += 1
            return row["misses"] < track.max_age
        return True

    def remember(self, row: dict) -> None:
        options = self.config.model.mutr3d
        x = row["feature"]
        if row["past"]:
            past = torch.stack(row["past"])
            attended = self.attention("memory_bank.temporal_attn", x[None], past, past)[0]
            x = self.norm("memory_bank.temporal_norm1", x + attended)
            hidden = self.linear("memory_bank.temporal_fc1", x).clamp(min=0)
            x = self.norm("memory_bank.temporal_norm2", x + self.linear("memory_bank.temporal_fc2", hidden))
            row["feature"] = x
        if row["wait"] > 0:
            row["wait"] -= 1
        else:
            row["past"] = [*row["past"], self.linear("memory_bank.save_proj", x)][-options.memory_length :]
            row["wait"] = options.memory_period

    def interact(self, rows: list[dict]) -> None:
        name = "query_interact"
        features, position, content = (
            torch.stack([row[key] for row in rows]) for key in ("feature", "position", "content")
        )
        located = position + features
        x = self.norm(f"{name}.norm1", features + self.attention(f"{name}.self_attn", located, located, features))
        x = self.norm(f"{name}.norm2", x + self.two(f"{name}.linear", x))
        position = self.norm(f"{name}.norm_pos", position + self.two(f"{name}.linear_pos", x))
        content = self.norm(f"{name}.norm_feat", content + self.two(f"{name}.linear_feat", x))
        for m, row in enumerate(rows):
            row.update(position=position[m], content=content[m])

    def two(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.linear(f"{name}2", self.linear(f"{name}1", x).clamp(min=0))
