"""PETRv2 once more, slowly, for the twin of PF-Track: tokens of two frames, view by view and one by one, in float64.

Written from the formulas; takes only a state dict. Views that are not there are left out.
"""

import torch
from slow_pftrack import SlowPFTrack


class SlowPETRv2(SlowPFTrack):
    """PF-Track whose detector also sees the frame before."""

    def __init__(self, *args):
        super().__init__(*args)
        self.before: tuple | None = None  # (tokens, image_from_model, camera_valid, pose, t_ns) of the last frame
        self.seconds = 0.0

    def memory(self, images, image_from_model, camera_valid) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and positions of the cameras that are there, now and then before; `step` has set pose and time."""
        tokens = self.view_tokens(images)
        now = (tokens, image_from_model, camera_valid, self.pose, self.t_ns)
        before, self.seconds = now, 1.245
        if self.before is not None:
            before, self.seconds = self.before, (self.t_ns - self.before[4]) * 1e-9
        self.before = now
        height, width = images.shape[-2:]
        contents, positions = [], []
        for which, (views, matrices, valid, pose, _) in enumerate((now, before)):
            then_from_now = torch.linalg.inv(pose) @ self.pose
            for n, view in enumerate(views):
                rows, cols = len(view), len(view[0])
                for r in range(rows if valid[n] else 0):
                    for c in range(cols):
                        ray = self.ray(matrices[n] @ then_from_now, c * width / cols, r * height / rows)
                        number = self.token_number(which * len(views) + n, r, c, (2 * len(views), rows, cols))
                        contents.append(view[r][c])
                        positions.append(
                            self.mlp("pts_bbox_head.position_encoder", ray, (0, 2)) * self.gate(view[r][c])
                            + self.mlp("pts_bbox_head.adapt_pos3d", number, (0, 2))
                        )
        return torch.stack(contents), torch.stack(positions)

    def view_tokens(self, images) -> list[list[list[torch.Tensor]]]:
        """The token of view n, row r and column c."""
        features = self.features(images)
        _, _, rows, cols = features.shape
        return [
            [[self.linear("pts_bbox_head.input_proj", view[:, r, c]) for c in range(cols)] for r in range(rows)]
            for view in features
        ]

    def gate(self, token: torch.Tensor) -> torch.Tensor:
        hidden = self.linear("pts_bbox_head.fpe.conv_reduce", token).clamp(min=0)
        return 1 / (1 + torch.exp(-self.linear("pts_bbox_head.fpe.conv_expand", hidden)))

    def raw_boxes(self, features: torch.Tensor, layer: int = -1) -> torch.Tensor:
        layer = range(self.config.model.num_layers)[layer]
        branch = f"pts_bbox_head.reg_branches.{layer}"
        hidden = self.mlp(f"{branch}.reg_branch", features, (0, 3)).clamp(min=0)
        parts = [self.mlp(f"{branch}.task_heads.{i}", hidden, (0, 2)) for i in range(5)]
        raw = torch.cat(parts, dim=1)
        raw[:, 8:] /= self.seconds
        return raw

    def logits(self, features: torch.Tensor, layer: int) -> torch.Tensor:
        return self.mlp(f"pts_bbox_head.cls_branches.{layer}", features, (0, 3, 6), norms=(1, 4))

    def layer_outputs(self, parallel: bool, tokens, positions) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(logits, box codes) of the object queries after every layer; parallel: no query knows of another."""
        name, points = "pts_bbox_head.transformer", self.w["reference_points.weight"]
        content = self.w.get("query_feat_embedding.weight", torch.zeros(len(points), tokens.shape[1]).double())
        outputs = []
        for layer in range(self.config.model.num_layers):
            arguments = (name, layer + 1, content, self.embed(points), tokens, positions)
            features = self.parallel_decoder(*arguments) if parallel else self.decoder(*arguments)
            raw = self.raw_boxes(features, layer)
            codes = [self.box(code, point)[0] for code, point in zip(raw, points, strict=True)]
            outputs.append((self.logits(features, layer), torch.stack(codes)))
        return outputs

    def parallel_decoder(self, name: str, layers: int, x, pos, memory, memory_pos) -> torch.Tensor:
        for i in range(layers):
            layer = f"{name}.decoder.layers.{i}"
            attended = self.attention(f"{layer}.attentions.1.attn", x + pos, memory + memory_pos, memory)
            x = self.norm(f"{layer}.norms.1", x + attended)
            hidden = self.linear(f"{layer}.ffns.0.layers.0.0", x).clamp(min=0)
            x = self.norm(f"{layer}.norms.2", x + self.linear(f"{layer}.ffns.0.layers.1", hidden))
        return self.norm(f"{name}.decoder.post_norm", x)
