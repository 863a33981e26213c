"""TFRecord files without TensorFlow: records at their places, and the Examples in them."""
