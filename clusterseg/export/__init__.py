"""A trained network as a file for other programs: SavedModel, Keras, ONNX, QONNX, TFLite."""
