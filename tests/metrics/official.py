"""Scores label maps with the benchmark's own scripts, in the old environment that they need.

Run by FOLDER/python -S (tools/cityscapes.sh), never imported: arguments are the folder of packages
and lists of predictions and ground truths on stdin, as JSON; the scripts' results go to stdout.
"""

import json
import math
import sys

sys.path.insert(0, sys.argv[1])

import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as scripts

scripts.args.quiet = True
scripts.args.JSONOutput = False
for line in sys.stdin:
    predictions, truths = json.loads(line)
    found = scripts.evaluateImgLists(predictions, truths, scripts.args)
    del found["confMatrix"], found["priors"], found["labels"]
    plain = json.loads(json.dumps(found), parse_constant=lambda name: None)
    assert all(not isinstance(one, float) or math.isfinite(one) for one in plain.values())
    print(json.dumps(plain), flush=True)
