"""How the pictures were normalised that published weights were trained with."""

from __future__ import annotations

from clusterseg.data.normalisation import Normalisation

# keras.applications, mode "tf": MobileNetV2, Xception; also the beta variant of TF-slim's ResNet.
MINUS_ONE_TO_ONE = Normalisation(mean=(127.5, 127.5, 127.5), deviation=(127.5, 127.5, 127.5))
# The ImageSegmentation seed, whatever the network (datasets.py), and Blueoil.
ZERO_TO_ONE = Normalisation(mean=(0.0, 0.0, 0.0), deviation=(255.0, 255.0, 255.0))
# keras.applications, mode "caffe": ResNet, VGG.
CAFFE = Normalisation(mean=(123.68, 116.779, 103.939), deviation=(1.0, 1.0, 1.0), order="bgr")
# TF-slim's ResNet v1 in research/deeplab (feature_extractor.py, _MEAN_RGB).
SLIM = Normalisation(mean=(123.15, 115.9, 103.06), deviation=(1.0, 1.0, 1.0))
