"""Metrics from one confusion matrix, summed over all images and ranks."""
