"""llama.cpp's library: loading it, its log, its devices, and a loaded model with its vocabulary.

What both the engine and the tools for weights need of llama.cpp, through its low-level interface.
This module loads a model and turns text into ids and back; it makes no context and computes nothing.

llama.cpp writes its log to stderr by itself; here it is caught and kept, so that a failure can be
told with llama.cpp's own words and a screen is never overwritten.
"""

import ctypes
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from medlocal.errors import MedlocalError, RefusedError, UsageError

_LOG_LINES = 400
_BUSY_CORES = 0.5
"""From here on another process is taken to be at work."""
_DEBUG, _ERROR = 1, 4
"""ggml's own levels; llama_cpp's table of them is off by one."""
_OUT_OF_MEMORY = (
    r"(?i)failed to allocate|unable to allocate|cannot allocate memory|out of ?memory|malloc failed"
)
"""How ggml and its devices say that memory ran out."""
_MIB = 2**20
_BUFFER = re.compile(r"(\S+)\s+(model|KV|compute) buffer size =\s*([\d.]+) MiB")
_PARTS = {"model": "weights", "KV": "kv", "compute": "compute"}

SplitMode = Literal["none", "layer", "row"]
"""How several GPUs share a model: not at all, whole layers each, or every matrix by its rows."""


class OutOfMemoryError(MedlocalError):
    """Memory ran out, on a device or beside it: the same may work with less."""


class Log:
    """The last lines that llama.cpp logged, with their level."""

    def __init__(self) -> None:
        self.lines: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES)
        self.listener: Callable[[int, str], None] | None = None
        """Told of all that is logged, as it comes: the level and a piece, which may be part of a
        line; None = nobody is. Called from C, so what it raises is lost."""
        self._callback: Any = None

    def install(self, lib: Any) -> None:
        """Have llama.cpp log here, from now on."""
        if self._callback is None:
            self._callback = lib.llama_log_callback(self._take)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _user: object) -> None:
        piece = text.decode("utf-8", "replace")
        if self.listener is not None:
            self.listener(level, piece)
        line = piece.rstrip("\n")
        if level != _DEBUG and line.strip(". "):
            self.lines.append((level, line))

    def errors(self) -> str:
        """The last errors it logged, in one line; "" where there are none."""
        return "; ".join(line for level, line in self.lines if level == _ERROR)[-500:]

    @property
    def is_out_of_memory(self) -> bool:
        """Whether one of the lines says that memory ran out."""
        return self.search(_OUT_OF_MEMORY) is not None

    def search(self, pattern: str) -> re.Match[str] | None:
        """The last line that fits."""
        for _, line in reversed(self.lines):
            if found := re.search(pattern, line):
                return found
        return None


LOG = Log()
"""Of all that happens in this process."""


def library() -> Any:
    """llama_cpp, with its log caught and its backends ready. Imported on first use: 0.5 s."""
    if LOG._callback is None:
        _choose_waiting()
    import llama_cpp

    if LOG._callback is None:
        LOG.install(llama_cpp)
        llama_cpp.llama_backend_init()
    return llama_cpp


def _choose_waiting() -> None:
    """Tell OpenMP how its threads wait for each other, before its library is loaded.

    Spinning is 20 to 40 % faster as long as every thread has a core to itself. With anything else
    at work on one of the cores it is 6 times slower than sleeping, because all threads spin until
    the one that was put aside comes back. So the machine is looked at first, for a tenth of a second.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if _num_busy_cores(0.1) > _BUSY_CORES:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _num_busy_cores(seconds: float) -> float:
    """Cores' worth of work that other processes do now; 0 where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    first = _idle_and_total(stat)
    time.sleep(seconds)
    idle, total = (b - a for a, b in zip(first, _idle_and_total(stat), strict=True))
    return (1 - idle / total) * (os.cpu_count() or 1) if total else 0.0


def _idle_and_total(stat: Path) -> tuple[int, int]:
    ticks = [int(n) for n in stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def ggml(name: str) -> ctypes.CDLL:
    """One of the libraries that llama_cpp ships, such as "ggml-base", for what it does not bind."""
    folder = Path(library().__file__).parent / "lib"
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    return ctypes.CDLL(str(folder / f"lib{name}.{suffix}"))


@dataclass(frozen=True, slots=True)
class Device:
    """A device that this build of llama.cpp can compute on."""

    name: str
    description: str
    kind: str
    """`cpu`, `gpu`, `igpu` or `accel`."""
    free_bytes: int
    total_bytes: int


def devices() -> list[Device]:
    """The devices that llama.cpp sees, with their memory."""
    registry, base = ggml("ggml"), ggml("ggml-base")
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("name", "description"):
        getattr(base, f"ggml_backend_dev_{name}").restype = ctypes.c_char_p
        getattr(base, f"ggml_backend_dev_{name}").argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p] + [
        ctypes.POINTER(ctypes.c_size_t)
    ] * 2
    found = []
    for number in range(registry.ggml_backend_dev_count()):
        device = registry.ggml_backend_dev_get(number)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        kind = ("cpu", "gpu", "igpu", "accel")[min(base.ggml_backend_dev_type(device), 3)]
        name = base.ggml_backend_dev_name(device).decode()
        description = base.ggml_backend_dev_description(device).decode()
        found.append(Device(name, description, kind, free.value, total.value))
    return found


@dataclass(frozen=True, slots=True)
class Buffer:
    """One that llama.cpp made."""

    name: str
    """Of its kind and device: "CPU_Mapped", "CUDA0", …"""
    part: str
    """What it holds: "weights", "kv" or "compute"."""
    num_bytes: int

    @property
    def is_host(self) -> bool:
        """Whether it lies in the CPU's memory: pinned memory for a GPU does, too."""
        return self.name.startswith("CPU") or self.name.endswith("_Host")


def read_buffers(lines: Iterable[str]) -> tuple[Buffer, ...]:
    """The buffers that llama.cpp's log tells of, in MiB with two decimals."""
    found = (match for line in lines if (match := _BUFFER.search(line)))
    return tuple(Buffer(m[1], _PARTS[m[2]], round(float(m[3]) * _MIB)) for m in found)


def available_memory() -> int | None:
    """Bytes of memory that programs can have without swapping; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    found = re.search(r"^MemAvailable: +(\d+) kB", meminfo.read_text(encoding="ascii"), re.M)
    return int(found[1]) * 1024 if found else None


def build_info() -> dict[str, str]:
    """Which llama.cpp this is: the commit identifies it, its build number does not."""
    lib, base = library(), ggml("ggml-base")
    base.ggml_commit.restype = base.ggml_version.restype = ctypes.c_char_p
    return {
        "llama_cpp_python": lib.__version__,
        "ggml": base.ggml_version().decode(),
        "commit": base.ggml_commit().decode(),
        "system": " ".join(lib.llama_print_system_info().decode().split()),
        "gpu_offload": "yes" if lib.llama_supports_gpu_offload() else "no",
    }


@dataclass
class LlamaModel:
    """A loaded model and its vocabulary."""

    path: Path
    repack: bool = True
    """Let llama.cpp repack weights for this processor. For K-quants the repacked kernels give
    other last bits when a prompt is split elsewhere, so exact mode does without."""
    gpu_layers: int = -1
    """Layers to offload, the output among them, from the last one on; -1 = all that there are, where
    there is a GPU."""
    split_mode: SplitMode = "layer"
    """How several GPUs share what is offloaded."""
    tensor_split: tuple[float, ...] = ()
    """For each GPU its part of what is offloaded, in llama.cpp's order; () = by their free memory."""
    main_gpu: int = 0
    """The GPU that holds all, where `split_mode` is "none"."""
    layers_offloaded: int = field(init=False, default=0)
    """Layers really on a GPU, as llama.cpp's log says."""
    buffers: tuple[Buffer, ...] = field(init=False, default=())
    """Where the weights really lie, as its log says."""
    handle: Any = field(init=False, repr=False, default=None)
    """llama.cpp's pointer; None once it is closed."""
    _vocab: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Load the file.

        Raises:
            OutOfMemoryError: there is not enough memory for the weights.
            RefusedError: llama.cpp cannot load it.
        """
        lib = library()
        LOG.lines.clear()
        params, splits = self._params(lib)
        self.handle = lib.llama_model_load_from_file(str(self.path).encode(), params)
        del splits  # llama.cpp has its own copy by now
        if not self.handle:
            raise self._failure()
        self._vocab = lib.llama_model_get_vocab(self.handle)
        found = LOG.search(r"offloaded (\d+)/(\d+) layers")
        self.layers_offloaded = int(found[1]) if found else 0
        self.buffers = read_buffers(line for _, line in LOG.lines)

    def _params(self, lib: Any) -> tuple[Any, Any]:
        """Parameters of the load, and an array that must live until it is done."""
        params = lib.llama_model_default_params()
        params.use_extra_bufts = self.repack
        params.n_gpu_layers = self.gpu_layers
        params.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{self.split_mode.upper()}")
        params.main_gpu = self.main_gpu
        most = int(lib.llama_max_devices())
        if len(self.tensor_split) > most:
            raise UsageError(
                f"{len(self.tensor_split)} parts for GPUs, and this llama.cpp knows {most} at most"
            )
        # llama.cpp reads as many as it could have devices, not as many as there are.
        splits = (ctypes.c_float * most)(*self.tensor_split)
        if self.tensor_split:
            params.tensor_split = ctypes.cast(splits, ctypes.POINTER(ctypes.c_float))
        return params, splits

    def _failure(self) -> MedlocalError:
        reason = LOG.errors() or "no reason given"
        if LOG.is_out_of_memory:
            return OutOfMemoryError(
                f"not enough memory for the weights of {self.path}: {reason}",
                hint="free memory, or take a smaller quantisation: `medlocal fit` says which",
            )
        return RefusedError(
            f"llama.cpp could not load {self.path}: {reason}",
            hint="check the file with `medlocal models verify`, or get it again",
        )

    def reload(self, gpu_layers: int, tensor_split: tuple[float, ...] = ()) -> None:
        """Load the same file again with its layers elsewhere; its contexts must be closed before.

        The vocabulary stays what it was, so that whoever holds this object need not know.

        Raises:
            OutOfMemoryError: there is not enough memory; the model is closed then.
        """
        self.close()
        self.gpu_layers, self.tensor_split = gpu_layers, tensor_split
        self.__post_init__()

    def close(self) -> None:
        """Free the weights. Contexts must be closed before."""
        if self.handle:
            library().llama_model_free(self.handle)
            self.handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def num_vocab(self) -> int:
        """Size of the vocabulary."""
        return int(library().llama_vocab_n_tokens(self._vocab))

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(library().llama_model_size(self.handle))

    @cached_property
    def bos(self) -> int | None:
        """Beginning-of-sequence token; None where the vocabulary has none."""
        token = int(library().llama_vocab_bos(self._vocab))
        return token if token >= 0 else None

    @cached_property
    def ends(self) -> frozenset[int]:
        """End-of-generation tokens."""
        is_end = library().llama_vocab_is_eog
        return frozenset(t for t in range(self.num_vocab) if is_end(self._vocab, t))

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        """Text of every token that can stand in a text, control tokens left out."""
        lib = library()
        hidden = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        hidden |= lib.LLAMA_TOKEN_ATTR_UNUSED
        pieces = {}
        for token in range(self.num_vocab):
            if token in self.ends or lib.llama_vocab_get_attr(self._vocab, token) & hidden:
                continue
            pieces[token] = self.piece(token)
        return pieces

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """How the control tokens are spelled: texts that no question may hold."""
        lib = library()
        texts = []
        for token in range(self.num_vocab):
            if lib.llama_vocab_get_attr(self._vocab, token) & lib.LLAMA_TOKEN_ATTR_CONTROL:
                text = lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
                texts.append(text)
        return tuple(text for text in texts if text)

    def piece(self, token: int) -> bytes:
        """The bytes of one token; b"" for a control token."""
        lib = library()
        buffer = ctypes.create_string_buffer(64)
        n = lib.llama_token_to_piece(self._vocab, token, buffer, 64, 0, False)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = lib.llama_token_to_piece(self._vocab, token, buffer, -n, 0, False)
        return buffer.raw[:n]

    def tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        """Token ids of a text, without BOS.

        Args:
            text: UTF-8.
            special: read `<|im_start|>` and its like as control tokens. Chat templates need it;
                text that comes from a question or a user must not have it.
        """
        lib = library()
        size = len(text) + 8
        buffer = (lib.llama_token * size)()
        n = lib.llama_tokenize(self._vocab, text, len(text), buffer, size, False, special)
        if n < 0:
            buffer = (lib.llama_token * -n)()
            n = lib.llama_tokenize(self._vocab, text, len(text), buffer, -n, False, special)
        return list(buffer[:n])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens; bytes that are no UTF-8 become U+FFFD.

        A SentencePiece vocabulary writes a space before the first word of any text: it is not
        part of the answer.
        """
        raw = b"".join(self.piece(t) for t in tokens)
        if self.is_sentencepiece:
            raw = raw.removeprefix(b" ")
        return raw.decode("utf-8", "replace")

    @cached_property
    def is_sentencepiece(self) -> bool:
        """True for the vocabularies of Llama 2 and Mistral 7B."""
        lib = library()
        return bool(lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_SPM)
