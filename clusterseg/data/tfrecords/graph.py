"""Reads one record of a TFRecord file in a TensorFlow graph."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.data.tfrecords.shard import IMAGE, MASK


def read_pair(shard: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes of the picture's and of the mask's file in the record that begins at byte `offset`
    (a string, in decimal) of the file `shard`.

    TensorFlow's own reader does it, set to that byte, so data are checked against their checksum:
    tf.errors.DataLossError where they don't match.
    """
    opened = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.expand_dims(shard, 0),
        compression_type="",
        buffer_size=0,  # else it reads ahead, for nothing
        byte_offsets=tf.expand_dims(tf.strings.to_number(offset, tf.int64), 0),
    )
    records = tf.data.experimental.from_variant(opened, tf.TensorSpec([], tf.string))
    wanted = {key: tf.io.FixedLenFeature([], tf.string) for key in (IMAGE, MASK)}
    found = tf.io.parse_single_example(records.take(1).get_single_element(), wanted)
    return found[IMAGE], found[MASK]
