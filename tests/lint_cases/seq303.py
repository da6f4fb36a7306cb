# ruff: noqa
"""SEQ303: open files and sockets."""

import zipfile

from pathlib import Path

import cv2
import keras
import requests
from tqdm import tqdm


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class File(Base):
    def __init__(self, path):
        super().__init__([])
        self.f = open(path, "rb")  # error: SEQ303
        self.archive = zipfile.ZipFile(path)  # error: SEQ303
        self.session = requests.Session()  # error: SEQ303
        self.bar = tqdm(total=8)  # error: SEQ303

        self.text = Path(path).open()  # error: SEQ303

    def __getitem__(self, index):
        self.f.seek(8 * index)
        return self.f.read(8)


class PerCall(Base):
    def __init__(self, path):
        super().__init__([])
        self.path = path
        with open(path) as f:
            self.lines = f.readlines()  # safe
        self.size = len(open(path).read())  # safe
        self.all = list(open(path))  # safe
        self.some = [line for line in open(path)]  # safe

    def __getitem__(self, index):
        with open(self.path, "rb") as f:  # safe
            return f.read()[8 * index :]


class Counted(Base):
    def __init__(self, path):
        super().__init__([])
        self.counts = {}
        video = cv2.VideoCapture(path)
        self.rate = video.get(cv2.CAP_PROP_FPS)  # safe
        self.count(video, path)
        self.open = {"a": open(path)}.get("a")  # error: SEQ303

    def count(self, video, path):
        frames = video.get(cv2.CAP_PROP_FRAME_COUNT)
        self.counts[path] = frames  # safe

    def __getitem__(self, index):
        return index


class Video(cv2.VideoCapture, keras.utils.PyDataset):  # error: SEQ303
    def __getitem__(self, index):
        return self.read()[1][index:]
