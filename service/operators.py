"""What a TorchScript archive's code may call, judged from its text, before any of it is loaded.

An allow-list: arithmetic, shapes, and the layers of image generators. Nothing that reads or writes files, nothing from
a custom library. The same goes for the archive's members, for the syntax of its code, and for its pickles: only what
torch itself writes, so that there is one way to read it.
"""

import ast
import io
import pickletools
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import torch

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
_FORMS = "annotate unchecked_cast uninitialized getattr int float bool str isinstance range"
_BUILTINS = frozenset(_FORMS.split())
_NAMESPACES = {"torch", "ops", "__torch__", "fork", "awaitable"}
_RESERVED = {*_BUILTINS, *_NAMESPACES, "CONSTANTS"}
_SYNTAX = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword),
    *(ast.Assign, ast.AnnAssign, ast.Expr, ast.Return, ast.If, ast.For, ast.Pass),
    *(ast.Call, ast.Attribute, ast.Name, ast.Constant, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Dict),
    *(ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare),
    *(ast.unaryop, ast.operator, ast.boolop, ast.cmpop, ast.expr_context),
)
_MEMBER = re.compile(
    r"[\w-]+/(?:version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
    r"|(?:data|constants)/\d+|(?P<pickle>(?:data|constants)\.pkl|code/__torch__(?:/\w+)*\.py\.debug_pkl)"
    r"|(?P<code>code/__torch__(?:/\w+)*\.py))",
    re.ASCII,
)
_CUSTOM_CLASSES = "__torch__.torch.classes"
_PICKLE_GLOBAL = re.compile(
    r"torch\._utils _rebuild_tensor_v2|torch (?:\w+Storage|device)|collections OrderedDict"
    r"|torch\.jit\._pickle (?:build_(?:int|double|bool|tensor)list|build_tensor_from_id|restore_type_tag)",
    re.ASCII,
)
_OPCODES = """
    PROTO STOP MARK POP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_TUPLE TUPLE TUPLE1
    TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL
    NEWOBJ REDUCE BUILD BINPERSID
"""
_PICKLE_OPCODES = frozenset(_OPCODES.split())


def forbidden_operators(archive: Path) -> list[str]:
    """Return what in an archive may not run.

    Args:
        archive: A TorchScript file. Its bytes have been checked against the manifest's digest.

    Returns:
        One sentence each; none if it may be loaded.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return list(_findings(opened, archive.stat().st_size))
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, RuntimeError, ValueError, EOFError) as error:
        return [f"it is not a readable TorchScript archive ({error})"]


def repacked(content: bytes) -> io.BytesIO:
    """Return an archive anew, with the members that `zipfile` sees in it and nothing else.

    A zip file can be made so that two readers find different members in it. Of a copy, torch's reader gets what was
    judged here.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(copy, "w") as target:
        for member in source.infolist():
            target.writestr(zipfile.ZipInfo(member.filename), source.read(member))
    copy.seek(0)
    return copy


def _findings(archive: zipfile.ZipFile, archive_bytes: int) -> Iterator[str]:
    members = archive.infolist()
    kinds = {member.orig_filename: _MEMBER.fullmatch(member.orig_filename) for member in members[: MAX_MEMBERS + 1]}
    judged = [member for member in members if (kind := kinds.get(member.orig_filename)) and kind.lastgroup]
    if len(members) > MAX_MEMBERS:
        yield f"it has {len(members)} members, more than {MAX_MEMBERS}"
    elif strange := [name for name, kind in kinds.items() if kind is None]:
        yield from (f"member {name!r} is none that torch writes" for name in strange)
    elif len({member.filename.lower() for member in members}) < len(members):  # torch looks them up without case
        yield "two of its members have the same name"
    elif len({member.filename.partition("/")[0] for member in members}) > 1:
        yield "its members lie in more than one folder"
    elif sum(member.file_size for member in judged) > MAX_CODE_BYTES:
        yield f"its code is longer than {MAX_CODE_BYTES} bytes"
    elif sum(member.file_size for member in members) > archive_bytes + MAX_CODE_BYTES:
        yield "its members are longer than itself"
    else:
        yield from _findings_in_members({member.filename: archive.read(member) for member in judged})


def _findings_in_members(contents: Mapping[str, bytes]) -> Iterator[str]:
    """Yield what is not allowed in the code and the pickles of an archive."""
    trees: dict[str, ast.Module] = {}
    for name, content in contents.items():
        if name.endswith(".py"):
            try:
                trees[name] = _parsed(content.decode("ascii"))
            except (SyntaxError, ValueError, tokenize.TokenError, MemoryError) as error:
                yield f"{name} cannot be parsed ({error})"
    defined = {
        f"{module}.{node.name}"
        for name, tree in trees.items()
        if not (module := _module(name)).startswith(_CUSTOM_CLASSES)
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    methods = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for name, tree in trees.items():
        yield from (f"{name} {finding}" for finding in _findings_in_code(tree, defined, methods))
    for name, content in contents.items():
        if not name.endswith(".py"):
            yield from (f"{name} {finding}" for finding in _findings_in_pickle(content, defined))


def _module(member_name: str) -> str:
    """Return `__torch__.a.b` for the member `archive/code/__torch__/a/b.py`."""
    return member_name.split("/code/", 1)[1].removesuffix(".py").replace("/", ".")


def _parsed(text: str) -> ast.Module:
    """Return the syntax tree of a member's code.

    Raises:
        SyntaxError: If it is not Python.
        ValueError: If it has what torch does not write, and might read in another way than Python: control characters,
            comments, prefixes of strings.
    """
    if not text.replace("\n", "").isprintable():
        raise ValueError("characters that are not printable")
    tree = ast.parse(text)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string[0] not in "'\""):
            raise ValueError(f"{token.string[:20]} in line {token.start[0]}")
    return tree


def _findings_in_code(tree: ast.Module, defined: Set[str], methods: Set[str]) -> Iterator[str]:
    """Yield what is not allowed in one file.

    Args:
        tree: The file's syntax tree.
        defined: The dotted names of the archive's own classes and functions.
        methods: The last part of every function's and method's name.
    """
    nodes = list(ast.walk(tree))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    aliases = set[int]()
    for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
        aliases |= _aliases(function, defined)
    for node in nodes:
        if not isinstance(node, _SYNTAX):
            yield f"uses {type(node).__name__}, which is not on the allow-list"
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            if node.name in ("__setstate__", "__getstate__") or node.name in _RESERVED or node.decorator_list:
                yield f"defines {node.name}" + (" with a decorator" if node.decorator_list else "")
        elif isinstance(node, ast.arg):
            if node.arg in _RESERVED:
                yield f"gives {node.arg} another meaning"
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name | ast.Attribute):
                yield f"calls {ast.unparse(node.func)}, which is not on the allow-list"
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                if node.id in _RESERVED:
                    yield f"gives {node.id} another meaning"
            elif id(node) not in called:
                if not _may_be_named(_dotted(node), defined):
                    yield f"names {ast.unparse(node)}, which is not on the allow-list"
            elif id(node) not in aliases and not _may_be_called(node, defined, methods):
                yield f"calls {ast.unparse(node)}, which is not on the allow-list"


def _may_be_named(dotted: str, defined: Set[str]) -> bool:
    """Tell whether an expression that is not called is allowed: anything but operators and their namespaces."""
    root = dotted.partition(".")[0]
    return dotted in defined or root not in _NAMESPACES


def _may_be_called(function: ast.Name | ast.Attribute, defined: Set[str], methods: Set[str]) -> bool:
    dotted = _dotted(function)
    root, _, rest = dotted.partition(".")
    if root == "torch":
        return rest in ALLOWED_TORCH
    if root in ("ops", "__torch__"):
        return dotted in ALLOWED_OPS or dotted in defined
    if isinstance(function, ast.Name):
        return function.id in _BUILTINS
    # A method has to be one of the archive's own. Of a tensor, the same name would be an operator if there is one.
    return function.attr in methods and not hasattr(torch.ops.aten, function.attr)


def _aliases(function: ast.FunctionDef, defined: Set[str]) -> set[int]:
    """Return the ids of the names in a function that stand for one of the archive's own functions, and nothing else."""
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    assigned = [
        statement.targets[0].id
        for statement in ast.walk(function)
        if isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(statement.value, ast.Attribute)
        and _dotted(statement.value) in defined
    ]
    stored = [node.id for node in names if not isinstance(node.ctx, ast.Load)]
    arguments = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    certain = {name for name in assigned if stored.count(name) == assigned.count(name)} - arguments
    return {id(node) for node in names if node.id in certain}


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


def _findings_in_pickle(content: bytes, defined: Set[str]) -> Iterator[str]:
    """Yield globals that are neither classes of the archive nor torch's own rebuilders."""
    for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
        if opcode.name not in _PICKLE_OPCODES:
            yield f"uses pickle opcode {opcode.name}"
        elif opcode.name == "GLOBAL":
            name = str(argument)
            if not _PICKLE_GLOBAL.fullmatch(name) and name.replace(" ", ".") not in defined:
                yield f"refers to {name}"
