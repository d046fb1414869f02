"""How good tracks and detections are: the official metrics, the same by distance, and what faults of a rig cost."""
