import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.data.normalisation import IMAGENET
from clusterseg.errors import ClustersegError
from clusterseg.models import (
    auxiliary_weights,
    build_model,
    main_output,
    model_names,
    normalisation_of,
)
from tests.models.overfitting import remembered


def count(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


def test_registry_knows_the_networks_of_this_package():
    assert {"fastscnn", "unet"} <= set(model_names())


def test_fastscnn_has_the_published_number_of_parameters():
    model = build_model("fastscnn", 19, (64, 128))
    assert count(model.trainable_weights) == 1_138_051
    # The rest are moving means and variances of batch norm, and the dropout's generator state.
    moving = [w for w in model.non_trainable_weights if "moving_" in w.path]
    rest = [w.path for w in model.non_trainable_weights if "moving_" not in w.path]
    assert all("seed_generator" in path for path in rest)
    gamma = [w for w in model.trainable_weights if w.path.endswith("/gamma")]
    assert count(moving) == 2 * count(gamma)


def test_fastscnns_auxiliary_outputs_are_on_its_first_two_modules():
    model = build_model("fastscnn", 19, (33, 65), aux=True)
    heads = {"auxiliary_detail": 64, "auxiliary_context": 128}
    for name, channels in heads.items():
        assert model.get_layer(f"{name}_conv").kernel.shape == (3, 3, channels, 32)
    # A kernel, gamma and beta, and a classifier with a bias: what aux adds, and nothing else.
    added = sum(9 * channels * 32 + 2 * 32 + 33 * 19 for channels in heads.values())
    assert count(model.trainable_weights) == 1_138_051 + added == 1_194_729
    outputs = model(np.zeros((2, 33, 65, 3), np.float32))
    assert len(outputs) == 1 + len(auxiliary_weights("fastscnn"))
    for logits in outputs:
        assert logits.shape == (2, 33, 65, 19)
        assert logits.dtype == tf.float32
    plain = build_model("fastscnn", 19, (33, 65))
    assert [w.path for w in main_output(model).weights] == [w.path for w in plain.weights]


@pytest.mark.parametrize(("classes", "parameters"), [(19, 31_032_891), (20, 31_032_894)])
def test_unet_has_the_seeds_number_of_parameters(classes, parameters):
    assert count(build_model("unet", classes, (32, 32)).trainable_weights) == parameters


@pytest.mark.parametrize("size", [(360, 480), (769, 769), (33, 65), (1, 1), (31, 97)])
def test_fastscnn_takes_any_size(size):
    model = build_model("fastscnn", 5, size, width=0.25)
    logits = model(np.zeros((1, *size, 3), np.float32))
    assert logits.shape == (1, *size, 5)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


def test_unet_doubles_by_transposed_convolutions_with_as_many_weights():
    small = {"base_filters": 2, "head_filters": None}
    one = build_model("unet", 3, (16, 32), upsampling="transpose", **small)
    assert count(one.weights) == count(build_model("unet", 3, (16, 32), **small).weights)
    kinds = [type(layer) for layer in one.layers]
    assert kinds.count(keras.layers.Conv2DTranspose) == 4
    assert keras.layers.UpSampling2D not in kinds
    with pytest.raises(ClustersegError, match="nearest or transpose"):
        build_model("unet", 3, (16, 32), upsampling="bilinear")


def test_unet_gives_logits_at_input_size():
    model = build_model("unet", 4, (48, 80), base_filters=4, head_filters=None)
    assert model(np.zeros((2, 48, 80, 3), np.float32)).shape == (2, 48, 80, 4)


def test_unet_says_which_sizes_fit():
    with pytest.raises(ClustersegError) as caught:
        build_model("unet", 19, (360, 480))
    assert "360x480" in caught.value.message
    assert "divisible by 16" in caught.value.message
    assert "[352, 480]" in caught.value.help
    assert "[368, 480]" in caught.value.help


def test_unknown_model_names_the_nearest():
    with pytest.raises(ClustersegError, match="fastscn") as caught:
        build_model("fastscn", 19, (64, 64))
    assert caught.value.code == "unknown-model"
    assert "did you mean 'fastscnn'?" in caught.value.help


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"base_filter": 8}),
        ("unet", {"classes_": 8}),
        ("unet", {"base_filters": 0}),
        ("unet", {"head_filters": 0}),
        ("unet", {"dropout": 1.0}),
        ("fastscnn", {"backbone": "resnet"}),
        ("fastscnn", {"width": 0}),
        ("fastscnn", {"dropout": -0.1}),
        ("fastscnn", {"aux": True, "pyramid": "seed"}),
    ],
)
def test_wrong_options_are_refused(name, options):
    with pytest.raises(ClustersegError) as caught:
        build_model(name, 19, (64, 64), **options)
    assert next(iter(options)) in caught.value.message


@pytest.mark.parametrize(("name", "size"), [("fastscnn", (64, 96)), ("unet", (32, 32))])
def test_names_do_not_depend_on_what_was_built_before(name, size):
    small = {"fastscnn": {"width": 0.25}, "unet": {"base_filters": 2}}[name]
    first = build_model(name, 3, size, **small)
    keras.layers.Conv2D(3, 3)  # advances Keras' process-wide counter
    second = build_model(name, 3, size, **small)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    paths = [w.path for w in first.weights]
    assert paths == [w.path for w in second.weights]
    assert len(set(paths)) == len(paths)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize(("name", "size"), [("fastscnn", (33, 47)), ("unet", (16, 32))])
def test_a_saved_model_is_the_same_when_loaded(tmp_path, name, size):
    small = {"fastscnn": {"width": 0.25}, "unet": {"base_filters": 2}}[name]
    model = build_model(name, 3, size, **small)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(images), loaded(images))
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]


def test_pyramid_pool_is_torchs_adaptive_average():
    from clusterseg.models.layers import PyramidPool

    random = np.random.default_rng(0)
    for height, width, bins in [(7, 5, 3), (12, 16, 6), (2, 3, 6), (1, 1, 2)]:
        x = random.normal(size=(2, height, width, 4)).astype(np.float32)
        expected = np.empty((2, bins, bins, 4), np.float32)
        for i in range(bins):
            for j in range(bins):
                rows = slice(i * height // bins, int(np.ceil((i + 1) * height / bins)))
                columns = slice(j * width // bins, int(np.ceil((j + 1) * width / bins)))
                expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
        np.testing.assert_allclose(PyramidPool(bins)(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["fastscnn", "unet"])
def test_logits_are_float32_under_every_policy(name, policy):
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        small = {"fastscnn": {"width": 0.25}, "unet": {"base_filters": 2}}[name]
        model = build_model(name, 3, (32, 32), **small)
        assert model(np.zeros((1, 32, 32, 3), np.float32)).dtype == tf.float32
    finally:
        keras.mixed_precision.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "steps", "rate"),
    [
        ("fastscnn", {"width": 0.5, "dropout": 0.0}, 60, 0.01),
        ("unet", {"base_filters": 8, "head_filters": None, "dropout": 0.0}, 80, 0.005),
    ],
)
def test_overfits_two_pictures(name, options, steps, rate):
    """A network that can learn remembers two noisy pictures in its own moving statistics too."""
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(3)
    labels = np.zeros((2, 48, 64), np.int32)
    labels[0, 16:32], labels[0, 32:] = 1, 2
    labels[1, :, 32:] = 3
    colors = random.normal(size=(4, 3))
    images = (colors[labels] + 0.3 * random.normal(size=(2, 48, 64, 3))).astype(np.float32)

    model = build_model(name, 4, (48, 64), **options)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    first = float(step())
    for _ in range(steps):
        step()
    predictions = np.argmax(model(images, training=False), axis=-1)
    assert first > 0.5
    assert (predictions == labels).mean() > 0.97


@pytest.mark.proof
def test_fastscnn_with_auxiliary_outputs_overfits_two_pictures():
    options = {"aux": True, "width": 0.5, "dropout": 0.0}
    assert remembered("fastscnn", options, steps=60, rate=0.01) > 0.97


def test_the_main_output_alone_has_the_same_weights():
    image = keras.Input((4, 6, 3))
    main = keras.layers.Conv2D(2, 1, name="main")(image)
    auxiliary = keras.layers.Conv2D(2, 1, name="auxiliary")(main)
    both = keras.Model(image, [main, auxiliary])
    alone = main_output(both)
    assert [one.path for one in alone.variables] == ["main/kernel", "main/bias"]
    assert alone.variables[0] is both.variables[0]
    assert main_output(alone) is alone


@pytest.mark.parametrize("name", model_names())
def test_a_network_says_how_its_pictures_are_normalised(name):
    assert len(auxiliary_weights(name)) >= 1
    assert min(normalisation_of(name, {}).deviation) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"upsampling": "transpose"}),
        ("separable_unet", {}),
        ("fastscnn", {"pyramid": "seed"}),
        ("lmsegnet", {}),
    ],
)
def test_the_seeds_own_networks_see_pictures_as_the_seeds_trained_them(name, options):
    """Or a file of their weights would predict from numbers that it has never seen."""
    factors, offsets = normalisation_of(name, options).linear()
    assert np.multiply(255, factors) + offsets == pytest.approx([1, 1, 1])
    assert offsets == [0, 0, 0]
    assert normalisation_of(name, options).order == "rgb"
    assert normalisation_of("fastscnn", {}) == IMAGENET
