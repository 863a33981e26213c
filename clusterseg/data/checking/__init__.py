"""Looks into every file of a data set: what is wrong, and how often each class is there."""
