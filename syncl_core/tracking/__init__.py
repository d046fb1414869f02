"""Tracks through time: state, life cycle and the step that joins them with the network."""
