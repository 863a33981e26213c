"""Encoders, by name; networks take their maps. Layers are named as Keras' applications name them,
so that Keras' own files of weights fit by name."""
