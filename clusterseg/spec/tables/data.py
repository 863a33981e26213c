"""Layouts of data sets, and augmentations."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta, Struct

from clusterseg.spec.fields import Fraction, Line, about
from clusterseg.spec.tables.known import Known, Table

_Factor = Annotated[float, Meta(ge=0.05, le=20)]
_Factors = Annotated[tuple[_Factor, _Factor], Meta(extra={"ordered": True})]
_Gain = Annotated[float, Meta(ge=0, le=10)]
_Gains = Annotated[tuple[_Gain, _Gain], Meta(extra={"ordered": True})]
_Area = Annotated[float, Meta(ge=0.0001, le=1)]
_Areas = Annotated[tuple[_Area, _Area], Meta(extra={"ordered": True})]
_Ratio = Annotated[float, Meta(ge=0.01, le=100)]
_Ratios = Annotated[
    Annotated[tuple[_Ratio, _Ratio], Meta(extra={"ordered": True})],
    about("[min, max] of width divided by height"),
]
_Pixels = Annotated[int, Meta(ge=1, le=16384)]
_Sides = Annotated[tuple[_Pixels, _Pixels], about("[height, width] in pixels")]
_ShorterLonger = Annotated[tuple[_Pixels, _Pixels], Meta(extra={"ordered": True})]
_Probability = Annotated[Fraction, about("probability of a flip")]
_Change = Annotated[Fraction, about("largest change, as a fraction")]

_Names = Annotated[tuple[Line, ...], about("names of the classes, class 0 first")]
_Byte = Annotated[int, Meta(ge=0, le=255)]


class _ResizeRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """the same, with a factor"""

    sides: Annotated[
        _ShorterLonger, about("[shorter side, longest that the longer one may be] in pixels")
    ]
    factor: Annotated[_Pixels, about("both sides become 1 + a multiple of it")] = 1


DATA_FORMATS: Table = MappingProxyType(
    {
        "camvid": Known("CamVid: train.txt, train/, trainannot/, label_colors.txt", ready=True),
        "cityscapes": Known(
            "Cityscapes: leftImg8bit/, gtFine/ and gtCoarse/",
            ready=True,
            variables={"root": "CITYSCAPES_DATASET"},
        ),
        "voc2012": Known(
            "Pascal VOC 2012",
            ready=True,
            options={"augmented": Annotated[bool, about("train on trainaug.txt (SBD)")]},
        ),
        "coco_stuff": Known("COCO-Stuff, 171 classes", ready=True),
        "ade20k": Known("ADE20K, 150 classes", ready=True),
        "folder": Known(
            "folders of pictures and of masks with equal names",
            ready=True,
            options={
                "labels": Annotated[
                    Literal["blue", "palette", "grey"],
                    about("where a mask holds its classes; left out: in its one channel"),
                ],
                "images": Annotated[Line, about("folder of the training pictures, below root")],
                "masks": Annotated[Line, about("folder of the training masks")],
                "validation_images": Annotated[Line, about("folder of the validation pictures")],
                "validation_masks": Annotated[Line, about("folder of the validation masks")],
                "classes": Annotated[
                    Annotated[int, Meta(ge=1, le=65535)], about("number of classes in the masks")
                ],
                "names": _Names,
                "colors": Annotated[
                    tuple[tuple[_Byte, _Byte, _Byte], ...],
                    about("[red, green, blue] of each class"),
                ],
            },
        ),
        "tfrecord": Known(
            "TFRecord shards with the keys of research/deeplab",
            ready=True,
            options={
                "train": Annotated[str, about("pattern of the training part's shards")],
                "validation": Annotated[str, about("pattern of the validation part's shards")],
                "test": Annotated[str, about("pattern of the test part's shards")],
                "classes": Annotated[
                    Annotated[int, Meta(ge=2, le=256)],
                    about("number of classes, where label_colors.txt does not tell"),
                ],
                "ignore_value": Annotated[
                    Annotated[int, Meta(ge=0, le=255)], about("value in masks that is no class")
                ],
            },
        ),
    }
)

AUGMENTATIONS: Table = MappingProxyType(
    {
        "flip_horizontal": Known("mirror left and right", True, value=_Probability),
        "flip_vertical": Known("mirror top and bottom", True, value=_Probability),
        "scale": Known(
            "resize by a factor drawn from [min, max], then crop or pad to the size",
            True,
            value=Annotated[_Factors, about("[min, max] of the factor")],
            resizes=True,
        ),
        "brightness": Known(
            "add up to this much to all channels",
            True,
            value=Annotated[Fraction, about("largest change, as a fraction of full brightness")],
        ),
        "brightness_factor": Known(
            "multiply all channels by a number drawn from [min, max]",
            True,
            value=Annotated[_Gains, about("[min, max] of the factor")],
        ),
        "contrast": Known("change the contrast", True, value=_Change),
        "color": Known("change the saturation", True, value=_Change),
        "sharpness": Known("sharpen or soften", True, value=_Change),
        "hue": Known(
            "turn the hue",
            True,
            value=Annotated[Fraction, about("largest turn, as a fraction of the circle")],
        ),
        "rotate": Known(
            "rotate",
            True,
            value=Annotated[Annotated[float, Meta(gt=0, le=180)], about("largest angle, degrees")],
        ),
        "blur": Known(
            "Gaussian blur",
            True,
            value=Annotated[Annotated[float, Meta(gt=0, le=50)], about("largest sigma, in pixels")],
        ),
        "cutout": Known(
            "blank out a square",
            True,
            value=Annotated[Fraction, about("side, as a fraction of height")],
        ),
        "erase": Known(
            "fill a rectangle with one colour",
            True,
            options={
                "probability": Annotated[Fraction, about("how often")],
                "area": Annotated[_Areas, about("[min, max] of the area, as a fraction")],
                "ratio": _Ratios,
            },
        ),
        "pad": Known(
            "pixels without a label on each side, before what comes next",
            True,
            value=Annotated[_Pixels, about("pixels on each side")],
        ),
        "resize": Known("resize, before what comes next", True, value=_Sides),
        "center_crop": Known("crop the middle, before what comes next", True, value=_Sides),
        "random_crop": Known("crop anywhere, before what comes next", True, value=_Sides),
        "crop": Known(
            "crop both sides by a fraction drawn from [min, max], and resize to the size",
            True,
            value=Annotated[
                Annotated[
                    tuple[
                        Annotated[float, Meta(ge=0.01, le=1)], Annotated[float, Meta(ge=0.01, le=1)]
                    ],
                    Meta(extra={"ordered": True}),
                ],
                about("[min, max] of the fraction"),
            ],
            resizes=True,
        ),
        "random_resized_crop": Known(
            "crop an area drawn from [min, max] and resize it to the size",
            True,
            options={
                "scale": Annotated[_Areas, about("[min, max] of the area, as a fraction")],
                "ratio": _Ratios,
            },
            resizes=True,
        ),
        "scale_file": Known(
            "resize by a factor of the file's size, then crop or pad to the size",
            True,
            options={
                "factor": Annotated[_Factors, about("[min, max] of the factor")],
                "step": Annotated[
                    Annotated[float, Meta(ge=0, le=20)],
                    about("distance between the factors; 0: any between"),
                ],
            },
            resizes=True,
        ),
        "resize_range": Known(
            "resize by the sides, then crop or pad to the size",
            True,
            value=Annotated[
                _ShorterLonger | _ResizeRange,
                about("[shorter side, longest that the longer one may be] in pixels"),
            ],
            resizes=True,
            before=frozenset({"scale_file"}),
        ),
    }
)
