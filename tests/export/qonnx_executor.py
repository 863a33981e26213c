"""Runs a QONNX file by QONNX' own executor, in the environment that has it.

Run by FOLDER/python -S (tools/qonnx.sh), never imported: arguments are the folder of packages, the
file, and .npy files of the input and of the output to write.
"""

import sys

sys.path.insert(0, sys.argv[1])

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

_, _, file, taken, given = sys.argv
model = ModelWrapper(file)
del model.model.functions[:]  # the quantisers by ONNX' own operators: these are to be QONNX'
model = cleanup_model(model)
(image,) = model.graph.input
(logits,) = execute_onnx(model, {image.name: np.load(taken)}).values()
np.save(given, logits)
