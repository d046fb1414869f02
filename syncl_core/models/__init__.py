"""The network: images and queries in, boxes and features out. Knows nothing of losses, data or the life of tracks."""
