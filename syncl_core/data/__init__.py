"""Data sets: nuScenes over the devkit's tables; clips with targets and augmentation for training."""
