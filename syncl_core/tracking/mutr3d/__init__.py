"""MUTR3D (Zhang et al. 2022): tracks are queries with a memory, moved by their own velocity."""
