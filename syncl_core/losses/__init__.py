"""What training minimises: the baseline's losses and the SynCL strategy. Nothing here is needed at inference.

Shape letters: L decoder layers, B scenes, M rows (object queries first, then track slots), G ground-truth rows,
C classes, F future steps.
"""
