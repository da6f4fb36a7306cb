# ruff: noqa
"""SEQ506: arguments that fit no longer has."""

import keras
import keras_mpseq


def train(model, data):
    model.fit(data, epochs=2, workers=4)  # error: SEQ506
    model.evaluate(data, use_multiprocessing=True)  # error: SEQ506
    model.predict(data, max_queue_size=4)  # error: SEQ506
    model.fit(data, epochs=2)  # safe
    model.fit_generator(data, 10, workers=2)  # error: SEQ506
    model.fit_generator(data, 10)  # error: SEQ506
    net = model
    net.evaluate_generator(data, steps=3)  # error: SEQ506
    net.predict_generator(data)  # safe
    keras_mpseq.fit(model, data, epochs=2, workers=4)  # safe
    Search().fit(data, workers=4)  # safe


class Search:
    def fit(self, data, workers):
        return data, workers

    def fit_generator(self, data, epochs):
        return data, epochs


def searched(search, data):
    search.fit_generator(data, epochs=2)  # safe
    search.fit_generator(data, epochs=2, workers=3)  # error: SEQ506


# file: old.py
import tf_keras


def train(data):
    tf_keras.Model().fit(data, epochs=2, workers=4, use_multiprocessing=True)  # safe


# file: wrapping.py
import keras


class Wrapper:
    def __init__(self):
        self.model = keras.Sequential()

    def evaluate(self, data, use_multiprocessing=True):
        return self.model.evaluate(data, use_multiprocessing=use_multiprocessing)  # error: SEQ506


# file: wrapped.py
import keras
from wrapping import Wrapper


def judge(data):
    ours = Wrapper()
    return ours.evaluate(data, use_multiprocessing=True)  # safe


# file: speaks.py
# tf_keras had these arguments.
def train(model, data):
    model.fit(data, epochs=2, workers=4)  # error: SEQ506


# file: compat.py
import tf_keras as keras

# file: through.py
from compat import keras


def train(data):
    keras.Sequential().fit(data, epochs=2, workers=4)  # safe


# file: environment.py
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf


def train(data):
    tf.keras.Sequential().fit(data, epochs=2, workers=4)  # safe
