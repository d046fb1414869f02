"""How fast a tracker is (measure) and how big (footprint), without any data set."""
