"""Synthetic data sets: street-like scenes, written in the layout of a real data set."""
