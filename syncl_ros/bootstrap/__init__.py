"""A ROS 2 environment from nothing: wheels of a pinned list, and interfaces generated and compiled from .msg files."""
