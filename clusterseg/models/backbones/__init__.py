"""Encoders that several networks share, with the layer names of Keras' applications."""
