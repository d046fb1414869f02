"""Stamped messages -> frame sets -> tracks, live and from bags alike: no ROS, no thread, an injected clock."""
