"""Archives that may not be loaded, and that they never are: `torch.jit.load` explodes in all of these tests."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from service.bundle import BundleError, verify
from service.operators import MAX_CODE_BYTES, MAX_MEMBERS, forbidden_operators, repacked
from tests.builders import replace_file, save_torchscript

CODE = "generator/code/__torch__/training/data.py"
Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def _never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: object, **options: object) -> None:
        raise AssertionError("torch.jit.load was called")

    monkeypatch.setattr(torch.jit, "load", explode)


@pytest.fixture
def members(tiny_models: Path) -> Members:
    """Return the members of the tiny bundle's archive."""
    with zipfile.ZipFile(tiny_models / "tiny/1/generator.pt") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def few_members() -> Members:
    """Return members of which nothing is forbidden; judged sooner than those of a whole generator."""
    lrelu = b"def lrelu(x: Tensor) -> Tensor:\n  return torch.leaky_relu(x, 0.20000000000000001)\n"
    return {
        "generator/version": b"3\n",
        "generator/data.pkl": b"\x80\x02).",
        "generator/code/__torch__/training/networks/layers.py": lrelu,
        CODE: in_a_function("pass").encode(),
    }


def archive_of(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return content.getvalue()


@pytest.fixture
def refusal(tiny_copy: Path) -> Callable[[bytes], str]:
    """Return a function that puts an archive into a bundle, digest and all, and returns why it is refused."""

    def refused(archive: bytes) -> str:
        replace_file(tiny_copy, "generator.pt", archive)
        with pytest.raises(BundleError, match=r"^generator\.pt is refused: ") as error:
            verify(tiny_copy)
        return str(error.value)

    return refused


def with_code(members: Members, code: str, name: str = CODE) -> bytes:
    return archive_of(members | {name: code.encode()})


def in_a_function(*lines: str) -> str:
    """Return a function `to_uint8`, as torch would write it, with further lines at its start."""
    body = [*lines, "return torch.to(images, 0)"]
    return "def to_uint8(images: Tensor) -> Tensor:\n" + "".join(f"  {line}\n" for line in body)


def test_exported_archive_is_allowed(tiny_models: Path, members: Members, tmp_path: Path) -> None:
    """The archive of a real export has nothing that is forbidden, nor has its copy, member by member."""
    (tmp_path / "copy.pt").write_bytes(archive_of(members))

    assert forbidden_operators(tiny_models / "tiny/1/generator.pt") == []
    assert forbidden_operators(tmp_path / "copy.pt") == []


@pytest.mark.parametrize(
    "lines",
    [
        ("x = torch.permute(images, [0, 2, 3, 1])", "y = torch.add(x, 1, alpha=2)"),
        ("f = __torch__.training.networks.layers.lrelu", "y = f(images, )"),
        ("x = unchecked_cast(Tensor, images)", "y = annotate(List[Optional[Tensor]], [x])"),
        ("for _0 in range(3):", "  x = [_0, -1]"),
        ("x = (torch.size(images))[0]", "if torch.gt(x, 1):", "  pass", "else:", "  ops.prim.RaiseException('no')"),
        ("x = CONSTANTS.c0",),
        ('x = "torch.from_file(1) # not called"',),
        ("pass",),
    ],
)
def test_harmless_code_is_allowed(few_members: Members, tmp_path: Path, lines: tuple[str, ...]) -> None:
    """The allow-list has what torch writes for networks: operators, own functions, casts, branches and loops."""
    path = tmp_path / "archive.pt"
    path.write_bytes(with_code(few_members, in_a_function(*lines)))

    assert forbidden_operators(path) == []


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        # Operators that are not on the list, in each of the two namespaces, and further down in them.
        (("torch.from_file('/etc/passwd')",), "torch.from_file"),
        (("torch.save(images, 'x.pt')",), "torch.save"),
        (("x = torch.rand([1])",), "torch.rand"),
        (("x = torch._index_put_impl_(images, [], images, False, True)",), "torch._index_put_impl_"),
        (("x = torch.ops.aten.from_file('x')",), "torch.ops.aten.from_file"),
        (("x = torch.add.from_file('x')",), "torch.add.from_file"),
        (("x = torch.classes.shop.Door()",), "torch.classes.shop.Door"),
        (("x = ops.custom.run(images)",), "ops.custom.run"),
        (("x = ops.aten.from_file('x')",), "ops.aten.from_file"),
        (("x = ops.prim.RaiseException.run('x')",), "ops.prim.RaiseException.run"),
        (("ops.run('x')",), "ops.run"),
        # The namespaces and their operators under another name.
        (("t = torch", "x = t.from_file('x')"), "names torch,"),
        (("o = ops", "x = o.aten.from_file('x')"), "names ops,"),
        (("o = ops.aten", "x = o.from_file('x')"), "names ops.aten,"),
        (("f = torch.from_file", "x = f('x')"), "names torch.from_file,"),
        (("f = torch.add", "x = f(images, 1)"), "names torch.add,"),
        (("x = getattr(torch, 'from_file')('x')",), "getattr(torch, 'from_file')"),
        (("f = getattr(torch, 'from_file')",), "names torch,"),
        (("x = [torch.from_file][0]('x')",), "torch.from_file"),
        (("x = (torch.from_file if True else torch.add)('x')",), "torch.from_file"),
        (("x = fork(torch.from_file, 'x')",), "calls fork,"),
        (("f = fork", "x = f(images)"), "names fork,"),
        # Operators as methods, which they are of every tensor and text.
        (("x = images.set_(images)",), "calls images.set_,"),
        (("x = images._index_put_impl_([], images, False, True)",), "calls images._index_put_impl_,"),
        (("f = images.set_", "x = f(images)"), "calls f,"),
        (("f = getattr(images, 'set_')", "x = f(images)"), "calls f,"),
        (("x = getattr(images, 'set_')(images)",), "calls getattr(images, 'set_'),"),
        (("x = 'name'.format(images)",), "calls 'name'.format,"),
        # An alias of an own function that stands for something else as well.
        (("f = __torch__.training.networks.layers.lrelu", "f = images.set_", "x = f(images)"), "calls f,"),
        (("f = __torch__.training.networks.layers.lrelu", "for f in [images.set_]:", "  x = f(images)"), "calls f,"),
        # Own functions that are none.
        (("x = __torch__.torch.classes.shop.Door()",), "__torch__.torch.classes.shop.Door"),
        (("x = annotate(__torch__.torch.classes.shop.Door, images)",), "__torch__.torch.classes.shop.Door"),
        (("n = __torch__", "x = n.torch.classes.shop.to_uint8()"), "names __torch__,"),
        (("n = __torch__.torch", "x = n.classes.shop.to_uint8()"), "names __torch__.torch,"),
        (("x = __torch__.nowhere(images)",), "__torch__.nowhere"),
        # Names with a meaning of their own, given another.
        (("torch = images",), "gives torch another meaning"),
        (("annotate = images.set_", "x = annotate(images)"), "gives annotate another meaning"),
        (("for ops in [1]:", "  pass"), "gives ops another meaning"),
        # Python that torch does not write.
        (("print(images)",), "calls print,"),
        (("x = eval('1')",), "calls eval,"),
        (("x = f'{images}'",), CODE),
        (("while True:", "  pass"), "While"),
        (("with images as x:", "  pass"), "With"),
        (("x = [y for y in images]",), "ListComp"),
        (("x = lambda: 1",), "Lambda"),
        (("(x := images)",), "NamedExpr"),
        (("import os",), "Import"),
        (("from os import system",), "ImportFrom"),
        (("del images",), "Delete"),
        (("global images",), "Global"),
        (("x = 1 # torch reads this in another way",), "cannot be parsed"),
        (("x = r'raw'",), "cannot be parsed"),
        (("x = 1\x0c",), "cannot be parsed"),
        (("x = 'ü'",), "cannot be parsed"),
        (("x = \x00",), "cannot be parsed"),
        (("x = (",), "cannot be parsed"),
        (("x = " + "(" * 5000 + ")" * 5000,), "cannot be parsed"),
    ],
    ids=lambda value: "; ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_code_that_is_not_on_the_allow_list_is_refused(
    few_members: Members, refusal: Callable[[bytes], str], lines: tuple[str, ...], named: str
) -> None:
    """What is called is named in the reason, however the code gets hold of it."""
    assert named in refusal(with_code(few_members, in_a_function(*lines)))


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("def set_(self: Tensor) -> Tensor:\n  return self.set_(self)\n", "calls self.set_,"),
        ("def f(torch: Tensor) -> Tensor:\n  return torch\n", "gives torch another meaning"),
        (
            "def f(g: Tensor) -> Tensor:\n  g = __torch__.training.networks.layers.lrelu\n  return g(1, )\n",
            "calls g,",
        ),
        ("def annotate(x: Tensor) -> Tensor:\n  return x\n", "defines annotate"),
        ("def f(x: Tensor=torch.from_file('x')) -> Tensor:\n  return x\n", "calls torch.from_file,"),
        ("def f(x: __torch__.torch.classes.shop.Door) -> int:\n  return 1\n", "__torch__.torch.classes.shop.Door"),
        ("@torch.jit.unused\ndef f(x: Tensor) -> Tensor:\n  return x\n", "with a decorator"),
        ("async def f(x: Tensor) -> Tensor:\n  return x\n", "AsyncFunctionDef"),
        ("class A(Module):\n  def __setstate__(self, x: int) -> None:\n    pass\n", "defines __setstate__"),
        ("class A(Module):\n  x = ops.custom.run(1)\n", "calls ops.custom.run,"),
        ("torch.from_file('x')\n", "calls torch.from_file,"),
    ],
)
def test_definition_that_is_not_on_the_allow_list_is_refused(
    few_members: Members, refusal: Callable[[bytes], str], code: str, named: str
) -> None:
    """Signatures, default values, class bodies and decorators are judged like everything else."""
    allowed = "def to_uint8(images: Tensor) -> Tensor:\n  return images\n"

    assert named in refusal(with_code(few_members, allowed + code))


def test_code_may_not_hide_among_the_custom_classes(few_members: Members, refusal: Callable[[bytes], str]) -> None:
    """An own file of that name does not make a custom C++ class one of the archive's own."""
    added = few_members | {"generator/code/__torch__/torch/classes/shop.py": b"class Door(Module):\n  pass\n"}

    code = in_a_function("x = __torch__.torch.classes.shop.Door()")
    assert "__torch__.torch.classes.shop.Door" in refusal(with_code(added, code))


class FromFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_file("secret.bin", False, 4)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Printer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print(x)
        return x


class WithState(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return 1, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.training = state[1]


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (FromFile(), "torch.from_file"),
        (Noise(), "torch.randn_like"),
        (Printer(), "calls print,"),
        (WithState(), "defines __setstate__"),
    ],
)
def test_scripted_module_that_does_more_than_draw_is_refused(
    refusal: Callable[[bytes], str], tmp_path: Path, module: nn.Module, named: str
) -> None:
    """Files, random numbers, output and code that runs while loading are not for us, though torch would script them."""
    save_torchscript(module, tmp_path / "module.pt")

    assert named in refusal((tmp_path / "module.pt").read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "generator/../../etc/cron.d/x",
        "/etc/passwd",
        "generator\\code\\__torch__\\x.py",
        "generator/code/__torch__/a b.py",
        "generator/code/__torch__/x.PY",
        "generator/code/x.py",
        "generator/model.json",
        "generator/attributes.pkl",
        "generator/extra/x.py",
        "generator/data/weights.py",
        "data.pkl",
    ],
)
def test_member_that_torch_does_not_write_is_refused(
    few_members: Members, refusal: Callable[[bytes], str], name: str
) -> None:
    """No paths out of the archive, no code under names that nobody judges, none of the formats of old."""
    assert f"member {name!r} is none that torch writes" in refusal(archive_of(few_members | {name: b""}))


def test_two_members_of_one_name_are_refused(few_members: Members, refusal: Callable[[bytes], str]) -> None:
    """Members are looked up without regard to case, so torch might find another one than was judged."""
    other_case = CODE.replace("training/data", "training/DATA")

    assert "two of its members have the same name" in refusal(archive_of(few_members | {other_case: few_members[CODE]}))

    content = io.BytesIO(archive_of(few_members))
    with zipfile.ZipFile(content, "a") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr(zipfile.ZipInfo(CODE), few_members[CODE])
    assert "two of its members have the same name" in refusal(content.getvalue())


def test_second_folder_is_refused(few_members: Members, refusal: Callable[[bytes], str]) -> None:
    """An archive is one folder; torch takes the first member's for it."""
    assert "more than one folder" in refusal(archive_of({"other/version": b"3\n"} | few_members))


def test_too_many_members_are_refused(few_members: Members, refusal: Callable[[bytes], str]) -> None:
    """The number of members is bounded before they are looked at."""
    many = {f"generator/data/{1000 + number}": b"" for number in range(MAX_MEMBERS)}

    assert f"more than {MAX_MEMBERS}" in refusal(archive_of(few_members | many))


def test_too_much_code_is_refused_unread(few_members: Members, refusal: Callable[[bytes], str]) -> None:
    """Code is not unpacked beyond a bound, however well it is compressed."""
    bomb = archive_of(few_members | {CODE: bytes(MAX_CODE_BYTES)}, zipfile.ZIP_DEFLATED)

    assert len(bomb) < MAX_CODE_BYTES
    assert f"its code is longer than {MAX_CODE_BYTES} bytes" in refusal(bomb)


def test_compressed_weights_are_refused_unread(few_members: Members, refusal: Callable[[bytes], str]) -> None:
    """Weights that unpack to far more than the archive would fill the memory."""
    bomb = archive_of(few_members | {"generator/data/0": bytes(2 * MAX_CODE_BYTES)}, zipfile.ZIP_DEFLATED)

    assert "its members are longer than itself" in refusal(bomb)


def test_damaged_member_is_refused(members: Members, refusal: Callable[[bytes], str]) -> None:
    """A member that does not unpack is no reason to crash."""
    content = archive_of(members, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = archive.getinfo("generator/data.pkl")
    start = member.header_offset + 30 + len(member.filename)
    damaged = content[:start] + b"\xff" * member.compress_size + content[start + member.compress_size :]

    assert "not a readable TorchScript archive" in refusal(damaged)


def a_call_of(module: str, name: str) -> bytes:
    """Return a pickle, as torch writes them, that calls a function without arguments."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R."


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (a_call_of("os", "system"), "refers to os system"),
        (a_call_of("builtins", "eval"), "refers to builtins eval"),
        (a_call_of("torch.classes", "run"), "refers to torch.classes run"),
        (a_call_of("torchvision.io", "read_file"), "refers to torchvision.io read_file"),
        (a_call_of("torch", "load"), "refers to torch load"),
        (a_call_of("collections", "deque"), "refers to collections deque"),
        (a_call_of("torch._utils", "_rebuild_qtensor"), "refers to torch._utils _rebuild_qtensor"),
        (a_call_of("__torch__.torch.classes.shop", "Door"), "refers to __torch__.torch.classes.shop Door"),
        (a_call_of("__torch__.training.export", "Nowhere"), "refers to __torch__.training.export Nowhere"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.", "uses pickle opcode STACK_GLOBAL"),
        (b"\x80\x02(ios\nsystem\n.", "uses pickle opcode INST"),
        (b"\x80\x02\x82\x01.", "uses pickle opcode EXT1"),
        (b"\x80\x02\xff.", "not a readable TorchScript archive"),
        (b"", "not a readable TorchScript archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl", "code/__torch__/training/data.py.debug_pkl"])
def test_pickle_that_refers_to_anything_else_is_refused(
    few_members: Members, refusal: Callable[[bytes], str], name: str, content: bytes, named: str
) -> None:
    """Pickles name classes of the archive and torch's own rebuilders, by one opcode."""
    assert named in refusal(archive_of(few_members | {f"generator/{name}": content}))


def test_loader_is_given_what_was_judged(members: Members) -> None:
    """A second archive in front of the judged one, for a reader that searches from there, does not reach the loader."""
    hidden, judged = archive_of({"generator/evil.py": b"evil"}), archive_of(members)

    copy = repacked(hidden + judged)

    assert b"evil" not in copy.getvalue()
    with zipfile.ZipFile(copy) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == members
        assert archive.namelist() == list(members)
