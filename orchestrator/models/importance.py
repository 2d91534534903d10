"""How much each input of a weight matrix matters on the user's own rows, so that quantisation spares what does.

llama.cpp's `llama-imatrix` measures it: over the tokens of some text, the sum of squares of what each column of a
matrix is multiplied with (tools/imatrix/imatrix.cpp). That is a program of its own, which the Python package does not
have, so the same is done here through the callback that it uses. What is written is its file format.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.lib.errors import StageError
from orchestrator.models.gguf import GgufModel

MULTIPLIED, BY_EXPERT = "MUL_MAT", "MUL_MAT_ID"
FLOAT = 0
"""GGML_TYPE_F32."""
Sums = dict[str, "Sum"]


class Tensor(ctypes.Structure):
    """`struct ggml_tensor` of the llama.cpp that is installed (ggml/include/ggml.h); `look_at` checks that it is."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Sum:
    """Of one matrix, or of each expert's: sums of squares (experts × columns) and how many tokens went into them."""

    def __init__(self, experts: int, columns: int) -> None:
        self.squares: NDArray[np.float64] = np.zeros((experts, columns))
        self.counts: NDArray[np.int64] = np.zeros(experts, dtype=np.int64)

    def add(self, expert: int, rows: NDArray[np.float32], times: int) -> None:
        """Add what some tokens (tokens × columns) give, as if there were so many times as many."""
        self.squares[expert] += times * np.square(rows).sum(axis=0, dtype=np.float64)
        self.counts[expert] += times * len(rows)

    @property
    def means(self) -> NDArray[np.float32]:
        """Mean squares, experts × columns; 1 for an expert that no token went to, so that nothing is spared there."""
        counts = np.maximum(self.counts, 1)[:, None]
        return np.where(self.counts[:, None] > 0, self.squares / counts, 1.0).astype(np.float32)


class Collector:
    """What llama.cpp calls before and after it computes each node of its graph."""

    def __init__(self, times: int) -> None:
        self.times = times
        """How many times what is computed now is counted."""
        self.sums: Sums = {}
        self.failure: Exception | None = None
        """What went wrong in the callback, where nothing can be raised."""

    def __call__(self, node: int, asked: bool, _: Any) -> bool:
        """Whether a node is of interest, when asked; else add up what it was given. False would end the computation."""
        try:
            tensor = look_at(node)
            if asked:
                return _is_of_interest(tensor)
            self._add(tensor)
        except Exception as error:
            self.failure = self.failure or error
            return not asked
        return True

    def _add(self, node: Tensor) -> None:
        weights, inputs = node.src[0].contents, node.src[1].contents
        rows = contents(inputs)
        sum_ = self.sums.setdefault(weights.name.decode(), Sum(weights.ne[2] * weights.ne[3], weights.ne[0]))
        if _operation(node) == BY_EXPERT:
            chosen = contents(node.src[2].contents, np.int32)[0, 0]  # tokens × experts used
            given = np.broadcast_to(rows[0], (*chosen.shape, rows.shape[-1]))
            for expert in np.unique(chosen):
                sum_.add(int(expert), given[chosen == expert], self.times)
            return
        for at, matrix in enumerate(rows.reshape(-1, *rows.shape[-2:])):
            sum_.add(at % len(sum_.counts), matrix, self.times)


def collect(model: GgufModel, texts: Sequence[Sequence[int]]) -> Sums:
    """The sums over the tokens of some texts, by the name of the matrix. Raises StageError when llama.cpp fails."""
    collector = Collector(times=len(texts))
    for done in model.observed(texts, collector):
        collector.times = 1  # what all begin with was computed for all of them
        print(f"{done}/{len(texts)}", flush=True)
    if collector.failure:
        raise StageError(
            f"llama.cpp's computation could not be watched: {collector.failure}", "Set export.importance to off."
        )
    if lost := [name for name, of in collector.sums.items() if not np.isfinite(of.squares).all()]:
        raise StageError(f"{lost[0]} is multiplied with what is no number", "Is the merged model sound?")
    return collector.sums


def write(file: Path, sums: Mapping[str, Sum], source: str) -> None:
    """Write the sums as `llama-imatrix` does, for `llama-quantize --imatrix` to read, too."""
    import gguf

    writer = gguf.GGUFWriter(file, arch="", use_temp_file=False)
    writer.kv_data[0].pop("general.architecture", None)
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [source])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", int(max(of.counts.max() for of in sums.values())))
    for name, of in sorted(sums.items()):
        writer.add_tensor(f"{name}.in_sum2", of.squares.astype(np.float32))
        writer.add_tensor(f"{name}.counts", of.counts.astype(np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(file: Path) -> dict[str, NDArray[np.float32]]:
    """The mean squares of each matrix, experts × columns."""
    import gguf

    arrays = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(file).tensors}
    found = {}
    for name in (name.removesuffix(".in_sum2") for name in arrays if name.endswith(".in_sum2")):
        sum_ = Sum(*arrays[f"{name}.in_sum2"].shape)
        sum_.squares, sum_.counts = arrays[f"{name}.in_sum2"], arrays[f"{name}.counts"][:, 0].astype(np.int64)
        found[name] = sum_.means
    return found


def as_argument(matrices: Mapping[str, NDArray[np.float32]]) -> Any:
    """What `llama_model_quantize_params.imatrix` points to; the array keeps alive what it refers to."""
    import llama_cpp

    entries = (llama_cpp.llama_model_imatrix_data * (len(matrices) + 1))()
    entries.kept = [np.ascontiguousarray(of, dtype=np.float32).ravel() for of in matrices.values()]
    for entry, name, numbers in zip(entries, matrices, entries.kept, strict=False):
        entry.name, entry.size = name.encode(), numbers.size
        entry.data = numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


def look_at(node: int) -> Tensor:
    """The tensor at an address. Raises StageError where its fields do not lie where we take them to."""
    tensor = Tensor.from_address(node)
    if _library().ggml_get_name(node) != tensor.name:
        raise StageError("this llama.cpp lays its tensors out differently", "Set export.importance to off.")
    return tensor


def contents(tensor: Tensor, kind: Any = np.float32) -> NDArray[Any]:
    """A copy of a tensor's numbers, outermost dimension first, from wherever it lies."""
    size = _library().ggml_nbytes(ctypes.byref(tensor))
    buffer = np.empty(size, dtype=np.uint8)
    _library().ggml_backend_tensor_get(ctypes.byref(tensor), buffer.ctypes.data_as(ctypes.c_void_p), 0, size)
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    return np.lib.stride_tricks.as_strided(buffer.view(kind), shape, strides)


def _is_of_interest(node: Tensor) -> bool:
    if _operation(node) not in (MULTIPLIED, BY_EXPERT):
        return False
    weights, inputs = node.src[0].contents, node.src[1].contents
    return bool(weights.name.startswith(b"blk.") and weights.name.endswith(b".weight") and inputs.type == FLOAT)


def _operation(node: Tensor) -> str:
    return str(_library().ggml_op_name(node.op).decode())


@functools.cache
def _library() -> Any:
    """llama.cpp's ground, where tensors are."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("*ggml-base.[sd]*"))))
    library.ggml_get_name.restype, library.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    library.ggml_op_name.restype, library.ggml_op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    library.ggml_nbytes.restype, library.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    library.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    return library
