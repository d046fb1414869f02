"""StreamPETR (Wang et al. 2023): a detector with a queue of past objects, and a tracker made of it."""
