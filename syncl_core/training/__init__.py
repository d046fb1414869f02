"""The training loop and its parts. `run.train` is the whole of it; the model knows nothing of processes or files."""
