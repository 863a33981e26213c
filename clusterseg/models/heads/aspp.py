"""Atrous spatial pyramid pooling (Chen et al., arXiv 1706.05587, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from keras import layers

from clusterseg.errors import ClustersegError
from clusterseg.models.dilated import depthwise_initializer
from clusterseg.models.layers import Dropout, Tensor, Upsample, batch_norm, conv_bn_relu

FILTERS = 256
# 6, 12, 18 at a stride of 16 (section 4.1); the same places of the picture at other strides.
_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


def rates_for(name: str, output_stride: int, given: Sequence[int] | None) -> tuple[int, ...]:
    """The rates `given`, or those that belong to the output stride.

    Raises ClustersegError (`name` is the network's) if one of them is not at least 1.
    """
    if given is None:
        return _RATES[output_stride]
    rates = tuple(given)
    if not rates or any(rate < 1 for rate in rates):
        raise ClustersegError(
            f"{name}: atrous_rates must be numbers from 1 on, not {list(rates)}",
            code="bad-option",
        )
    return rates


def aspp(
    x: Tensor,
    rates: Sequence[int],
    *,
    separable: bool = False,
    dropout: float = 0.1,
    name: str = "aspp",
) -> Tensor:
    """256 channels: a 1x1 convolution, one of 3x3 for each of the rates, and the mean of the map.

    `separable`: the 3x3 ones are separable, with bias, as the ImageSegmentation seed has them. With
    a batch of one picture, the branch of the mean is normalised over one value: it is its batch
    norm's beta then, whatever the picture, until sync_batch_norm or a larger batch helps.
    """
    mean = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    mean = conv_bn_relu(mean, FILTERS, 1, name=f"{name}_image")
    branches = [
        Upsample(x.shape[1:3], name=f"{name}_image_upsample")(mean),
        conv_bn_relu(x, FILTERS, 1, name=f"{name}_1x1"),
    ]
    for place, rate in enumerate(rates, start=1):
        branch = f"{name}_atrous_{place}"  # by place: rates change with the stride, weights stay
        if separable:
            branches.append(separable_bn_relu(x, FILTERS, dilation=rate, name=branch))
        else:
            branches.append(conv_bn_relu(x, FILTERS, 3, dilation=rate, name=branch))
    x = layers.Concatenate(name=f"{name}_concat")(branches)
    x = conv_bn_relu(x, FILTERS, 1, name=f"{name}_project")
    return Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x


def separable_bn_relu(x: Tensor, filters: int, *, dilation: int = 1, name: str) -> Tensor:
    """3x3 separable convolution with bias, batch norm, ReLU; `same` padding."""
    x = layers.SeparableConv2D(
        filters,
        3,
        dilation_rate=dilation,
        padding="same",
        depthwise_initializer=depthwise_initializer(),
        pointwise_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return layers.ReLU(name=f"{name}_relu")(batch_norm(x, name=f"{name}_bn"))
