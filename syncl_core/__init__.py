"""SynCL-ROS without ROS: networks, trackers, training, data, and all that the node computes (docs/design.md)."""
