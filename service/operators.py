"""What a TorchScript archive's code may call, judged from its text, before any of it is loaded.

An allow-list: arithmetic, shapes, and the layers of image generators. Nothing that reads or writes files, nothing from
a custom library.
"""

import ast
import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

MAX_MEMBERS = 4096
MAX_CODE_BYTES = 4 << 20

_ARITHMETIC = """
    __contains__ __is__ __isnot__ __not__ __and__ __or__ __xor__ abs add add_ addmm all any bmm ceil clamp clamp_ cos
    div div_ eq exp floor floordiv ge gt le log lt matmul max maximum mean min minimum mm mul mul_ ne neg pow reciprocal
    remainder round rsqrt sigmoid sign sin sqrt square sub sub_ sum tanh var where format floor_divide
"""
_SHAPES = """
    arange append cat chunk clone contiguous detach device dim dtype embedding expand expand_as flatten flip full
    full_like gather index index_select is_floating_point len numel ones ones_like permute repeat
    repeat_interleave reshape select size slice split squeeze stack t tensor to transpose type_as unbind unflatten
    unsqueeze view zeros zeros_like list IntImplicit Bool Float Int FloatImplicit ScalarImplicit item
"""
_LAYERS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool2d batch_norm conv2d conv_transpose2d dropout
    elu gelu group_norm hardtanh instance_norm layer_norm leaky_relu leaky_relu_ linear max_pool2d pad pixel_shuffle
    pixel_unshuffle relu relu_ selu silu softmax softplus upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d
"""
ALLOWED_TORCH = frozenset((_ARITHMETIC + _SHAPES + _LAYERS).split())
ALLOWED_OPS = frozenset({"ops.prim.RaiseException", "ops.prim.NumToTensor", "ops.prim.min", "ops.prim.max"})
_PICKLE_MODULES = ("__torch__.", "torch._utils", "torch.jit._pickle", "collections", "torch")


def forbidden_operators(archive: Path) -> list[str]:
    """Return what in an archive may not run, one sentence each; an empty list means nothing.

    Args:
        archive: A TorchScript file. Its bytes have been checked against the manifest's digest.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return list(_findings(opened))
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, UnicodeDecodeError, EOFError) as error:
        return [f"it is not a readable TorchScript archive ({error})"]


def _findings(archive: zipfile.ZipFile) -> Iterator[str]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        yield f"it has {len(members)} members, more than {MAX_MEMBERS}"
        return
    code_bytes = 0
    for member in members:
        parts = member.filename.split("/")
        if member.filename.startswith(("/", "\\")) or ".." in parts:
            yield f"member {member.filename!r} leaves the archive"
        elif member.filename.endswith((".py", ".pkl")):
            code_bytes += member.file_size
            if code_bytes > MAX_CODE_BYTES:
                yield f"its code is longer than {MAX_CODE_BYTES} bytes"
                return
            content = archive.read(member)
            if member.filename.endswith(".py"):
                yield from _findings_in_code(member.filename, content.decode())
            else:
                yield from _findings_in_pickle(member.filename, content)


def _findings_in_code(name: str, text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{name} cannot be parsed ({error.msg}, line {error.lineno})"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in ("__setstate__", "__getstate__"):
            yield f"{name} defines {node.name}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield f"{name} imports"
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        dotted = _dotted(node)
        root, _, rest = dotted.partition(".")
        if (root == "torch" and rest and "." not in rest and rest not in ALLOWED_TORCH) or (
            root == "ops" and dotted.count(".") == 2 and dotted not in ALLOWED_OPS
        ):
            yield f"{name} calls {dotted}, which is not on the allow-list"


def _dotted(node: ast.Attribute | ast.Name) -> str:
    """Return `a.b.c` for such an expression, and an empty string for any other."""
    names: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        names.append(current.attr)
        current = current.value
    if not isinstance(current, ast.Name):
        return ""
    return ".".join([current.id, *reversed(names)])


def _findings_in_pickle(name: str, content: bytes) -> Iterator[str]:
    """Yield globals that are neither classes of the archive nor torch's own rebuilders."""
    for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
        if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            yield f"{name} uses pickle opcode {opcode.name}"
        elif opcode.name == "GLOBAL":
            module = str(argument).split(" ", 1)[0]
            if not module.startswith(_PICKLE_MODULES):
                yield f"{name} refers to {argument}"
