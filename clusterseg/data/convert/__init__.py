"""Writes a data set as TFRecord shards."""
