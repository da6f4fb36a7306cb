# ruff: noqa
"""SEQ304: the framework at work in a worker."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.keras import backend as K
from tensorflow.keras.applications.resnet50 import preprocess_input


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Ops(Base):
    def __getitem__(self, index):
        x = tf.image.resize(self.x[index], (8, 8))  # error: SEQ304
        x = ops.relu(x)  # error: SEQ304
        return self.embed(x)

    def embed(self, x):
        return K.sum(x)  # error: SEQ304


class Features(Base):
    def __init__(self, x):
        super().__init__(x)
        self.model = keras.models.load_model("m.keras")

    def __getitem__(self, index):
        return self.model.predict(self.x[index])  # error: SEQ304


class Plain(Base):
    def __getitem__(self, index):
        y = keras.utils.to_categorical(self.x[index], 3)  # safe
        z = np.zeros(3, dtype=K.floatx())  # safe
        image = tf.keras.preprocessing.image.load_img("a.png")  # safe
        return y, preprocess_input(z), np.asarray(image)  # safe

    def on_epoch_end(self):
        self.x = tf.random.shuffle(self.x).numpy()  # error: SEQ405


class Nested(Base):
    def __getitem__(self, index):
        if keras.__version__.startswith("3"):  # safe
            leaves = keras.tree.flatten(self.x[index])  # safe
            return keras.tree.map_structure(np.asarray, leaves)  # safe
        return tf.nest.map_structure(tf.convert_to_tensor, self.x[index])  # error: SEQ304
