"""The names a job.yaml may hold: models, losses, optimizers, ..., each with its options.

A name that is known and not `ready` is read like any other and refused by the planner
(`clusterseg.spec.pending`). Options are described as struct fields, so that the reader and the
JSON Schema treat them like the other keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

from msgspec import Meta

from clusterseg.spec.fields import Fraction, Line, Positive, about


@dataclass(frozen=True)
class Known:
    """One name. `options`: key -> annotated type.

    `value` is the type of an augmentation's setting; None: a mapping of its options. `resizes`:
    it gives pictures another size, as only one augmentation of a list may. `divides_size`: what
    a model needs height and width to be divisible by. `variables`: required key of the section ->
    the environment variable that stands for it where it is left out.
    """

    summary: str
    ready: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None
    resizes: bool = False
    divides_size: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)


Table = Mapping[str, Known]

_AboveZero = Annotated[float, Meta(gt=0)]
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
_Dropout = Annotated[Annotated[float, Meta(ge=0, lt=1)], about("fraction dropped while training")]
_Auxiliary = Annotated[bool, about("add auxiliary outputs, and their loss, while training")]
_Probability = Annotated[Fraction, about("probability of a flip")]
_Change = Annotated[Fraction, about("largest change, as a fraction")]
_OUTPUT_STRIDE = "size of the input divided by that of the encoder's output"

_DEEPLAB = {
    "atrous_rates": Annotated[
        tuple[Positive, ...],
        about("rates of the pyramid's branches; by default those of the output stride"),
    ],
    "dropout": _Dropout,
    "aux": _Auxiliary,
}

_WIDTH = Annotated[
    Annotated[float, Meta(ge=0.1, le=8)],
    about("multiplies every channel count (multiples of 8)"),
]
_UNET = {
    "base_filters": Annotated[Positive, about("filters at full size; doubled below")],
    "head_filters": Annotated[
        Positive | None,
        about("filters of the last convolution before the classes; null: none"),
    ],
    "dropout": _Dropout,
}

MODELS: Table = MappingProxyType(
    {
        "fastscnn": Known(
            "Fast-SCNN (Poudel 2019): small and fast, any size",
            ready=True,
            options={
                "width": _WIDTH,
                "dropout": _Dropout,
                "pyramid": Annotated[
                    Literal["paper", "seed"],
                    about("the paper's network, or that of the ImageSegmentation seed"),
                ],
                "aux": _Auxiliary,
            },
        ),
        "unet": Known(
            "U-Net (Ronneberger 2015); height and width divisible by 16",
            ready=True,
            options=_UNET,
            divides_size=16,
        ),
        "separable_unet": Known(
            "U-Net of separable convolutions; height and width divisible by 16",
            ready=True,
            options=_UNET,
            divides_size=16,
        ),
        "segnet": Known(
            "SegNet (Badrinarayanan 2015): VGG16 encoder, any size",
            ready=True,
            options={"width": _WIDTH},
        ),
        "bayes_segnet": Known(
            "Bayesian SegNet (Kendall 2015): SegNet with Monte Carlo dropout",
            ready=True,
            options={"width": _WIDTH, "dropout": _Dropout},
        ),
        "vgg_segnet": Known(
            "VGG-SegNet of Habana's recipe at full output size, any size",
            ready=True,
            options={
                "width": _WIDTH,
                "encoder_level": Annotated[
                    Literal[1, 2, 3, 4], about("VGG16's block, from 0, that ends the encoder")
                ],
                "upsampling": Annotated[
                    Literal["transpose", "nearest"],
                    about("doubling by frozen transposed convolutions, or without weights"),
                ],
            },
        ),
        "deeplabv3": Known(
            "DeepLabV3 (Chen 2017), TF-slim's ResNet-101; any size",
            ready=True,
            options={
                "backbone": Annotated[Literal["resnet101", "resnet101_beta"], about("encoder")],
                "output_stride": Annotated[Literal[8, 16], about(_OUTPUT_STRIDE)],
                "multi_grid": Annotated[
                    tuple[Positive, Positive, Positive], about("rates within the last block")
                ],
                **_DEEPLAB,
            },
        ),
        "deeplabv3+": Known(
            "DeepLabV3+ (Chen 2018), any size",
            ready=True,
            options={
                "backbone": Annotated[
                    Literal["mobilenetv2", "xception", "resnet50", "resnet101"], about("encoder")
                ],
                "output_stride": Annotated[Literal[8, 16, 32], about(_OUTPUT_STRIDE)],
                "separable": Annotated[bool, about("separable convolutions behind the encoder")],
                "decoder": Annotated[bool, about("refine with the encoder's map of stride 4")],
                **_DEEPLAB,
            },
        ),
        "fastfcn": Known(
            "FastFCN (Wu 2019): joint pyramid upsampling; any size",
            ready=True,
            options={
                "backbone": Annotated[Literal["resnet50", "resnet101"], about("encoder")],
                "head": Annotated[Literal["deeplab", "psp", "encnet"], about("head")],
                "dropout": _Dropout,
                "aux": _Auxiliary,
            },
        ),
        "hrnetv2_ocr": Known(
            "HRNetV2 with object-contextual representations (Yuan 2020), any size",
            ready=True,
            options={
                "width": Annotated[Positive, about("channels of the finest map: 18, 32, 40 or 48")],
                "ocr": Annotated[bool, about("with the context of objects")],
                "dropout": _Dropout,
                "aux": _Auxiliary,
            },
        ),
        "lmsegnet": Known(
            "LmSegNet of Blueoil: quantised for FPGAs; height and width divisible by 8",
            ready=True,
            options={
                "quantize": Annotated[bool, about("1-bit weights, 2-bit activations")],
                "quantize_first": Annotated[bool, about("quantise the first layer's weights too")],
                "quantize_last": Annotated[bool, about("quantise the last layer too")],
                "max_value": Annotated[_AboveZero, about("largest activation")],
            },
            divides_size=8,
        ),
    }
)

_SMOOTHING = {
    "label_smoothing": Annotated[
        Annotated[float, Meta(ge=0, lt=1)],
        about("part of each label that is spread over all classes"),
    ]
}

LOSSES: Table = MappingProxyType(
    {
        "cross_entropy": Known(
            "cross entropy over the labelled pixels", ready=True, options=_SMOOTHING
        ),
        "ohem": Known(
            "cross entropy of the hardest pixels of each picture",
            ready=True,
            options={
                "top_k": Annotated[
                    Annotated[float, Meta(gt=0, le=1)],
                    about("fraction of the labelled pixels that count"),
                ],
                "mining_steps": Annotated[
                    Annotated[int, Meta(ge=0)],
                    about("optimizer steps over which the fraction goes from 1 to top_k"),
                ],
                **_SMOOTHING,
            },
        ),
        "focal": Known(
            "focal loss (Lin 2017)",
            ready=True,
            options={
                "gamma": Annotated[_AboveZero, about("how much easy pixels are played down")],
                "alpha": Annotated[_AboveZero, about("factor of the loss")],
            },
        ),
        "dice": Known(
            "soft Dice loss",
            ready=True,
            options={
                "smooth": Annotated[
                    Annotated[float, Meta(ge=0)], about("added above and below, in pixels")
                ]
            },
        ),
        "lovasz": Known("Lovász-softmax (Berman 2018)", ready=True),
    }
)

OPTIMIZERS: Table = MappingProxyType(
    {
        "sgd": Known("stochastic gradient descent with momentum", ready=True),
        "sgd_nesterov": Known("the same with Nesterov's momentum", ready=True),
        "adam": Known("Adam", ready=True),
        "adamw": Known("Adam with decoupled weight decay", ready=True),
        "adamax": Known("AdaMax", ready=True),
        "nadam": Known("Nadam", ready=True),
        "adadelta": Known("AdaDelta", ready=True),
        "adagrad": Known("AdaGrad", ready=True),
        "rmsprop": Known("RMSprop", ready=True),
        "ftrl": Known("FTRL", ready=True),
    }
)

_MIN_LEARNING_RATE = {
    "min_learning_rate": Annotated[
        Annotated[float, Meta(ge=0)],
        about("learning rate that the schedule never goes below, of one rank"),
    ]
}

SCHEDULES: Table = MappingProxyType(
    {
        "constant": Known("the same learning rate throughout", ready=True),
        "polynomial": Known(
            "down along (1 - progress) ** power", ready=True, options=_MIN_LEARNING_RATE
        ),
        "cosine": Known("down along half a cosine", ready=True, options=_MIN_LEARNING_RATE),
        "cyclic": Known(
            "triangles between the lowest and the highest learning rate",
            ready=True,
            options={
                "cycle_epochs": Annotated[_AboveZero, about("length of a triangle in epochs")],
                **_MIN_LEARNING_RATE,
            },
        ),
        "step": Known(
            "multiplied by a factor every so many epochs",
            ready=True,
            options={
                "every_epochs": Annotated[Positive, about("epochs between two steps")],
                "factor": Annotated[Annotated[float, Meta(gt=0, lt=1)], about("the factor")],
            },
        ),
        "three_step_decay": Known(
            "divided by 10 at 1/3, at 2/3 and one epoch before the end", ready=True
        ),
    }
)

_Names = Annotated[tuple[Line, ...], about("names of the classes, class 0 first")]
_Byte = Annotated[int, Meta(ge=0, le=255)]

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
                Annotated[tuple[_Pixels, _Pixels], Meta(extra={"ordered": True})],
                about("[shorter side, longest that the longer one may be] in pixels"),
            ],
            resizes=True,
        ),
    }
)

LAUNCHERS: Table = MappingProxyType(
    {
        "auto": Known("what this machine has", ready=True),
        "openmpi4": Known("mpirun of Open MPI 4", ready=True),
        "openmpi5": Known("mpirun of Open MPI 5", ready=True),
        "mpich": Known("mpiexec of MPICH (Hydra)", ready=True),
        "intelmpi": Known("mpiexec of Intel MPI (Hydra)", ready=True),
        "spectrum": Known("mpirun of IBM Spectrum MPI, untested", ready=True),
        "srun": Known("srun of Slurm", ready=True),
        "horovodrun": Known("horovodrun, which calls an mpirun", ready=True),
        "local": Known("plain processes on this machine", ready=True),
    }
)

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "models": MODELS,
        "losses": LOSSES,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "data_formats": DATA_FORMATS,
        "augmentations": AUGMENTATIONS,
        "launchers": LAUNCHERS,
    }
)
