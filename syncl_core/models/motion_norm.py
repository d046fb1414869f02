"""Layer norms and gates whose numbers depend on a second input (StreamPETR, Wang et al. 2023, sec. 3.3)."""

import torch
from torch import nn


class MotionNorm(nn.Module):
    """Motion-aware layer normalisation: a layer norm whose scale and shift depend on a code c.

    gamma(h) * norm(x) + beta(h) with h = relu(reduce(c)). Untrained it is a plain layer norm.
    """

    def __init__(self, code_size: int, dim: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(code_size, dim), nn.ReLU())
        self.gamma = nn.Linear(dim, dim)
        self.beta = nn.Linear(dim, dim)
        self.ln = nn.LayerNorm(dim, elementwise_affine=False)
        for layer in (self.gamma, self.beta):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.ones_(self.gamma.bias)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """x [..., D] and code [..., c], broadcastable to one another -> [..., D]."""
        hidden = self.reduce(code)
        return self.gamma(hidden) * self.ln(x) + self.beta(hidden)


class FeatureGate(nn.Module):
    """x * sigmoid(expand(relu(reduce(features)))): positions weighed by what the image shows there."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv_reduce = nn.Linear(dim, dim)
        self.conv_expand = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """x and features [..., D] -> [..., D]."""
        return x * torch.sigmoid(self.conv_expand(torch.relu(self.conv_reduce(features))))
