"""The processor time of the benchmark's own scripts for the confusion matrix alone.

Run by FOLDER/python -S (tools/cityscapes.sh), never imported: the argument is the folder of
packages, stdin as of tests/metrics/official.py, with one picture. Its files are read beforehand.
"""

import json
import sys
import time

sys.path.insert(0, sys.argv[1])

import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as scripts

scripts.args.quiet = True
scripts.args.evalInstLevelScore = False
read = scripts.Image.open
for line in sys.stdin:
    (prediction,), (truth,) = json.loads(line)
    maps = {path: read(path) for path in (prediction, truth)}
    for one in maps.values():
        one.load()
    scripts.Image.open = maps.__getitem__
    matrix = scripts.generateMatrix(scripts.args)
    start = time.process_time()
    scripts.evaluatePair(prediction, truth, matrix, {}, {}, scripts.args)
    print(json.dumps({"seconds": time.process_time() - start}), flush=True)
