"""The rules of the whole source tree: imports between modules, public names, contents of the packages."""

import ast
import graphlib
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import vqcodec
from vqcodec import errors

ROOT = Path(__file__).resolve().parents[1]
LINT_IMPORTS = "from importlinter.cli import lint_imports_command as main; main(['--no-cache', '--no-logo'])"
LIGHT = [
    "errors",
    "config",
    "forks",
    "geometry",
    "files",
    "files.alpha",
    "files.atomic",
    "files.container",
    "files.colour",
    "files.exif",
    "files.extras",
    "files.images",
    "files.kinds",
    "files.metadata",
    "files.pictures",
    "files.streams",
    "files.suited",
    "pillow_plugin",
    "workers",
    "metrics",
    "cli",
    "cli.jobs",
    "cli.batch",
    "cli.commands",
    "cli.looking",
    "cli.main",
    "cli.messages",
    "cli.options",
    "cli.progress",
    "cli.study",
    "cli.tools",
    "__main__",
]
WITHOUT_TORCH = ["vqcodec", *(f"vqcodec.{name}" for name in LIGHT)]
WITH_PILLOW = {
    f"vqcodec.files.{name}" for name in ("alpha", "colour", "extras", "images", "metadata", "pictures", "suited")
} | {"vqcodec.pillow_plugin"}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted((ROOT / "vqcodec").rglob("*.py"))}


def _imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The modules of vqcodec and the top-level names of others that ``nodes`` import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            assert node.module is not None
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        else:
            continue
        yield from (name if name.startswith("vqcodec") else name.split(".")[0] for name in names)


def _at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        waiting += ast.iter_child_nodes(node)


def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def test_imports_go_one_way() -> None:
    """The contracts of pyproject.toml hold: ``[tool.importlinter]``."""
    result = subprocess.run([sys.executable, "-c", LINT_IMPORTS], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_package_itself_imports_only_the_errors() -> None:
    ours = {name for name in _imports(_at_import(_tree("vqcodec"))) if name.startswith("vqcodec")}
    assert ours == {"vqcodec.errors"}


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {module: {name for name in _imports(ast.walk(_tree(module))) if name in MODULES} for module in MODULES}
    graph["vqcodec"] = {"vqcodec.errors"}  # it imports codec only when asked
    for module in graph:
        graph[module] -= {"vqcodec"}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_no_torch_at_module_level(module: str) -> None:
    assert {"torch", "safetensors", "constriction"}.isdisjoint(_imports(_at_import(_tree(module))))


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (WITHOUT_TORCH, {"torch"}),
        ([name for name in WITHOUT_TORCH if name not in WITH_PILLOW], {"torch", "numpy", "PIL", "tqdm"}),
    ],
)
def test_importing_stays_light(modules: list[str], unwanted: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(sorted({unwanted!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout == "[]\n"


def _public_order(name: str) -> tuple[int, str]:
    """Constants, classes, the rest; each by name."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("module", list(MODULES))
def test_all_is_sorted_and_true(module: str) -> None:
    loaded = importlib.import_module(module)
    public: list[str] = loaded.__all__
    assert public == sorted(set(public), key=_public_order)
    for name in public:
        assert hasattr(loaded, name)
        home = getattr(getattr(loaded, name), "__module__", module)
        assert not home.startswith("vqcodec") or home == module or module in ("vqcodec", "vqcodec.train")


def test_lazy_names_of_the_package() -> None:
    from vqcodec import api, codec
    from vqcodec.files import images

    assert (vqcodec.Codec, vqcodec.compress, vqcodec.decompress) == (codec.Codec, api.compress, api.decompress)
    assert (vqcodec.read_image, vqcodec.write_image) == (images.read_image, images.write_image)
    assert dir(vqcodec) == sorted(vqcodec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'codecs'"):
        _ = vqcodec.codecs


def test_every_error_is_exported() -> None:
    defined = {name for name in errors.__all__ if name[0].isupper()}
    assert defined <= set(vqcodec.__all__)
    assert all(getattr(vqcodec, name) is getattr(errors, name) for name in defined)


def test_every_module_has_a_docstring_and_no_vague_name() -> None:
    for module in MODULES:
        assert ast.get_docstring(_tree(module)), f"{module} has no docstring"
        assert module.split(".")[-1] not in {"utils", "util", "helpers", "misc", "common"}


def _project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_the_version_is_the_newest_in_the_changelog() -> None:
    versions = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions[0] == vqcodec.__version__


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    project = _project()
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *(text for extra in extras.values() for text in extra)]:
        requirement = Requirement(text)
        assert pins[requirement.name.lower()] in requirement.specifier


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree and unpacked as an installer would; at most 32 MB."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    assert built.stat().st_size <= 32 * 10**6
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_carries_modules_weights_and_licence_and_nothing_else(wheel: Path) -> None:
    files = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    info = f"vqcodec-{vqcodec.__version__}.dist-info"
    sources = {path.relative_to(ROOT).as_posix() for path in MODULES.values()} | {"vqcodec/py.typed"}
    weights = {f"vqcodec/models/{path.name}" for path in (ROOT / "weights").glob("*.safetensors")}
    assert weights == {
        f"vqcodec/models/{name}.{side}.safetensors" for name in ("compact", "visual") for side in ("decoder", "encoder")
    }
    weights.add("vqcodec/models/SHA256SUMS")
    assert sources | weights | {f"{info}/licenses/LICENSE"} <= files
    data = f"vqcodec-{vqcodec.__version__}.data"
    shared = {path.relative_to(ROOT).as_posix() for path in (ROOT / "share").glob("*/**/*") if path.is_file()}
    assert {name.removeprefix(f"{data}/data/") for name in files if name.startswith(data)} == shared
    assert {name.split("/")[0] for name in files} == {"vqcodec", info, data}


@pytest.mark.slow
def test_an_installed_wheel_finds_its_weights(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import vqcodec, numpy; print(vqcodec.__file__);"
        "codec = vqcodec.Codec.load(device='cpu'); data = codec.compress(numpy.zeros((9, 7, 3), numpy.uint8));"
        "print(vqcodec.Codec.for_file(data, device='cpu').decompress(data).shape)"
    )
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(wheel), "PATH": ""}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [str(wheel / "vqcodec" / "__init__.py"), "(9, 7, 3)"]
