"""The networks."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta

from clusterseg.spec.fields import AboveZero, Positive, about
from clusterseg.spec.tables.known import Known, Table

_Dropout = Annotated[Annotated[float, Meta(ge=0, lt=1)], about("fraction dropped while training")]
_Auxiliary = Annotated[bool, about("add auxiliary outputs, and their loss, while training")]
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
            options={
                **_UNET,
                "upsampling": Annotated[
                    Literal["nearest", "transpose"],
                    about("doubling by the nearest pixel and a convolution, or a transposed one"),
                ],
            },
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
                **_DEEPLAB,
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
                "max_value": Annotated[AboveZero, about("largest activation")],
            },
            divides_size=8,
        ),
    }
)
