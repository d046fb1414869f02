"""Image backbones. Each maps [B*N, 3, H, W] to feature maps at stride (8,) 16 and 32 and tells their `out_channels`."""
