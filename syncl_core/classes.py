"""Object classes and cameras of nuScenes, in the order the public checkpoints use."""

TRACKING_CLASSES = ("car", "truck", "bus", "trailer", "motorcycle", "bicycle", "pedestrian")
"""The seven classes of the nuScenes tracking task, in PF-Track's order."""

DETECTION_CLASSES = (*TRACKING_CLASSES, "construction_vehicle", "traffic_cone", "barrier")
"""The ten detection classes in PF-Track's order; the first seven are tracked."""

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""The nuScenes cameras in PF-Track's order, which is part of a checkpoint: its position embedding counts cameras."""
