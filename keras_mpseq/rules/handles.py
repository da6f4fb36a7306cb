"""SEQ301 to SEQ305: files, connections and devices belong to the process that opened them."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class ArrayFileHandle(Rule):
    """An open HDF5, netCDF, Zarr or similar file is stored on the sequence.

    ## What it does
    Finds `h5py.File`, `netCDF4.Dataset`, `xarray.open_dataset`, `tables.open_file` and their like on `self`, directly, in a container, or handed in as an argument that is used like one.

    ## Why it matters
    Such an object does not pickle.
    In a forked worker it shares the position in the file with all other workers, so that batches come out wrong or the library crashes.

    ## Example
    ```python
    import h5py
    import keras


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.h5", **kwargs):
            super().__init__(**kwargs)
            self.file = h5py.File(path, "r")

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.file["x"][2 * index : 2 * index + 2]
    ```

    ## Use instead
    ```python
    import h5py
    import keras

    from keras_mpseq import per_worker


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.h5", **kwargs):
            super().__init__(**kwargs)
            self.path = path

        @per_worker
        def file(self):
            return h5py.File(self.path, "r")

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.file["x"][2 * index : 2 * index + 2]
    ```

    ## Known false alarms
    A file that `__getstate__` drops and that is opened anew on first use is not reported.
    An argument named like a file that is an array may be reported as `likely`.
    """

    code = "SEQ301"
    name = "array-file-handle"
    severity = "error"
    core = True
    why = "an open file belongs to one process: it does not pickle, and forked workers share its position"
    fix = "store the path, and open the file in each process with `keras_mpseq.per_worker`"


class DatabaseHandle(Rule):
    """A database connection is stored on the sequence.

    ## What it does
    Finds connections, cursors and clients of `sqlite3`, `psycopg2`, `pymysql`, `sqlalchemy`, `pymongo`, `redis`, `lmdb` and their like on `self`.

    ## Why it matters
    A connection does not pickle.
    Forked workers write to one socket at the same time, so that the answer to one goes to another; SQLite files can be damaged.

    ## Example
    ```python
    import sqlite3

    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.db", **kwargs):
            super().__init__(**kwargs)
            self.connection = sqlite3.connect(path)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            query = "select a, b from t limit 2 offset ?"
            return np.array(self.connection.execute(query, (2 * index,)).fetchall())
    ```

    ## Use instead
    ```python
    import sqlite3

    import keras
    import numpy as np

    from keras_mpseq import per_worker


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.db", **kwargs):
            super().__init__(**kwargs)
            self.path = path

        @per_worker
        def connection(self):
            return sqlite3.connect(self.path)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            query = "select a, b from t limit 2 offset ?"
            return np.array(self.connection.execute(query, (2 * index,)).fetchall())
    ```

    ## Known false alarms
    An object with `cursor()` or `execute()` that holds no connection is reported as `likely`.
    """

    code = "SEQ302"
    name = "database-handle"
    severity = "error"
    core = True
    why = "a connection belongs to one process: it does not pickle, and forked workers mix up its answers"
    fix = "store how to connect, and connect in each process with `keras_mpseq.per_worker`"


class FileOrSocketHandle(Rule):
    """An open file, archive, socket or video is stored on the sequence.

    ## What it does
    Finds `open`, `zipfile.ZipFile`, `tarfile.open`, `mmap`, `socket`, `cv2.VideoCapture` and their like on `self`.

    ## Why it matters
    They do not pickle.
    Forked workers share the position in the file: one seeks while another reads.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.bin", **kwargs):
            super().__init__(**kwargs)
            self.file = open(path, "rb")

        def __len__(self):
            return 4

        def __getitem__(self, index):
            self.file.seek(8 * index)
            return np.frombuffer(self.file.read(8), dtype="uint8")
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.bin", **kwargs):
            super().__init__(**kwargs)
            self.path = path

        def __len__(self):
            return 4

        def __getitem__(self, index):
            with open(self.path, "rb") as file:
                file.seek(8 * index)
                return np.frombuffer(file.read(8), dtype="uint8")
    ```

    ## Known false alarms
    A `requests.Session` pickles, and is reported as `warning`: forked workers share its sockets.
    A file that is read and closed in `__init__` is not reported.
    """

    code = "SEQ303"
    name = "file-or-socket-handle"
    severity = "error"
    core = True
    why = "an open file belongs to one process: it does not pickle, and forked workers share its position"
    fix = "store the path, and open it where it is read, or once for each process with `keras_mpseq.per_worker`"


class FrameworkRuntimeInWorker(Rule):
    """Building a batch computes with TensorFlow, Keras, JAX or torch.

    ## What it does
    Finds calls of `tf.*`, `keras.ops.*`, `torch.*` and `jax.*`, and calls of models, in `__getitem__` and in all that it calls.
    What only reads a setting or computes with NumPy, such as `keras.backend.floatx()` and `keras.utils.to_categorical`, is not reported.

    ## Why it matters
    These libraries start threads and hold locks; in a process that was forked from one that uses them they hang.
    A spawned worker loads the library, takes seconds for it, and reserves memory on the GPU for itself.

    ## Example
    ```python
    import keras
    import numpy as np
    import tensorflow as tf


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(288, dtype="float32").reshape(4, 2, 6, 6)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return tf.reverse(self.x[index], axis=[2]).numpy()
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(288, dtype="float32").reshape(4, 2, 6, 6)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index][:, :, ::-1].copy()
    ```

    ## Known false alarms
    `preprocess_input` of `keras.applications` computes with NumPy if it is given arrays.
    A sequence that is only ever used in one process, with threads, may call the framework.
    """

    code = "SEQ304"
    name = "framework-runtime-in-worker"
    severity = "error"
    core = True
    why = "the framework hangs in forked workers, and each spawned worker loads it and takes a share of the GPU"
    fix = "compute with NumPy in the sequence, and with the framework in layers of the model"


class AcceleratorContext(Rule):
    """Building a batch uses a GPU.

    ## What it does
    Finds `.cuda()`, `.to("cuda")`, CuPy, `jax.device_put` and `tf.config` in `__getitem__` and in all that it calls.

    ## Why it matters
    CUDA cannot be used in a forked process after its parent has used it.
    In spawned workers each has a context of its own, of several hundred MB of GPU memory, and the batch is copied back to be sent.

    ## Example
    ```python
    import keras
    import numpy as np
    import torch


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return torch.as_tensor(self.x[index]).to("cuda").sqrt().cpu().numpy()
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return np.sqrt(self.x[index])
    ```

    ## Known false alarms
    A device that is chosen at run time and is the CPU.
    """

    code = "SEQ305"
    name = "accelerator-context"
    severity = "error"
    stable = False
    why = "every worker opens a context on the GPU, which forked workers cannot"
    fix = "build batches on the CPU, and let the model bring them to the device"
