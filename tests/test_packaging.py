"""What a user receives: the wheel's contents, where it finds its files, and rooms that import one way."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewrite_core.resources import resource_dir

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rewrite_core", "dissect", "dashboard")

# A room may import itself and the rooms before it.
ROOMS = ("rewrite_core", "dissect", "dashboard", "pages")
CORE_ROOMS = ("generators", "statistics", "memory", "directions", "rules")
CORE_LEAVES = {"errors", "files", "jobs", "pictures", "resources", "settings"}


def run_python(code: str, *path: Path, cwd: Path) -> str:
    """What `code` prints in a fresh interpreter that looks in `path` first, never in the current folder."""
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in path]}\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def build(source: Path, target: str, folder: Path) -> Path:
    """The file that hatchling builds from `source`; nothing is fetched."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


def project_files(*folders: str) -> list[str]:
    """Tracked files, and new ones that git would track, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with nothing but the wheel installed in it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def test_the_wheel_installs_three_packages_and_one_folder_of_files(contents):
    tops = {name.split("/")[0] for name in contents}
    assert tops == {*PACKAGES, "palimpsest", next(top for top in tops if top.endswith(".dist-info"))}


def test_the_wheel_holds_every_file_of_the_project_that_a_user_needs(contents):
    files = {f"palimpsest/{name}" for name in project_files("pages", "data")}
    assert {*project_files(*PACKAGES), *files} <= contents


@pytest.mark.parametrize("model", ["anime64-dcgan", "face32-dcgan"])
def test_the_wheel_holds_an_embedded_model_with_its_licence_and_provenance(contents, model):
    files = ("model.json", "model.safetensors", "LICENSE", "PROVENANCE.md")
    assert {f"palimpsest/data/models/{model}/{name}" for name in files} <= contents


def test_the_wheel_holds_the_face_networks_with_their_licence_and_provenance(contents):
    files = ("face_landmark.tflite", "hair_segmentation.tflite", "selfie_segmentation.tflite")
    there = {f"palimpsest/data/segmenters/faces/{name}" for name in (*files, "LICENSE", "PROVENANCE.md")}
    assert there <= contents


def test_the_wheel_holds_the_app_its_configuration_and_the_notices(contents):
    assert {"dashboard/.streamlit/config.toml", "dashboard/app.py", "dashboard/cli.py"} <= contents
    licences = {name.split("/licenses/")[1] for name in contents if ".dist-info/licenses/" in name}
    nested = {"data/models/anime64-dcgan/LICENSE", "data/segmenters/faces/LICENSE"}
    assert {"LICENSE", "THIRD_PARTY_NOTICES.md", *nested} <= licences


def test_a_wheel_built_from_the_source_distribution_is_the_same(contents, tmp_path):
    source = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build(tmp_path / source.name.removesuffix(".tar.gz"), "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(again) as archive:
        assert set(archive.namelist()) == contents


@pytest.mark.parametrize("name", ["data", "pages"])
def test_an_installed_wheel_finds_its_files_from_an_empty_folder(site, tmp_path, name):
    code = f"from rewrite_core.resources import resource_dir; print(resource_dir({name!r}))"
    assert Path(run_python(code, site, cwd=tmp_path)) == site / "palimpsest" / name


def test_an_installed_wheel_gives_the_palimpsest_command(site, tmp_path):
    (declared,) = site.glob("palimpsest-*.dist-info/entry_points.txt")
    assert "palimpsest = dashboard.cli:main" in declared.read_text()
    assert "Usage:" in run_python("from dashboard.cli import main; main(['--help'])", site, cwd=tmp_path)


def test_a_checkout_finds_its_own_files():
    assert resource_dir("data") == ROOT / "data"


def test_an_incomplete_installation_says_so(tmp_path):
    (tmp_path / "data").mkdir()  # some other distribution's
    (tmp_path / "rewrite_core").mkdir()
    for name in ("__init__.py", "errors.py", "resources.py"):
        shutil.copy(ROOT / "rewrite_core" / name, tmp_path / "rewrite_core" / name)
    code = (
        "from rewrite_core.errors import FileError\n"
        "from rewrite_core.resources import resource_dir\n"
        "try: resource_dir('data')\n"
        "except FileError as error: print(error)"
    )
    assert "Install Palimpsest again." in run_python(code, tmp_path, cwd=tmp_path)


def test_importing_the_engine_loads_nothing_heavy(tmp_path):
    code = "import rewrite_core, rewrite_core.resources; print(*sys.modules)"
    loaded = set(run_python(code, ROOT, cwd=tmp_path).split())
    assert loaded.isdisjoint({"streamlit", "torch", "matplotlib", "pandas", "sklearn", "numba"})


def test_the_constraints_pin_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = set(re.findall(r"^([a-z0-9-]+)==[0-9.]+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {re.split("[<>=~]", requirement)[0] for requirement in needed} <= pinned


def test_no_file_names_a_registry_or_a_path_of_one_machine():
    # Written with classes of one letter so that this file does not match itself.
    named = re.compile(
        rb"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|download[.]pytorch|deb[.]debian[.]org"
        rb"|(?<![\w.}])/(?:home|root|Users|work|farm|tmp)/\w|[.][.]/shared"
    )
    found = {}
    for name in project_files():
        text = (ROOT / name).read_bytes()
        if b"\0" not in text and (hits := named.findall(text)):
            found[name] = hits
    assert not found


def imports(path: Path) -> Iterator[str]:
    """Dotted names of every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def core_room(parts: list[str]) -> str:
    """Which part of the engine a dotted name or a path belongs to; "" is `rewrite_core` itself."""
    return parts[1] if len(parts) > 1 and parts[1] in {*CORE_ROOMS, *CORE_LEAVES} else ""


def test_rooms_import_one_way():
    wrong = [
        f"{name} imports {module}"
        for name in project_files(*ROOMS)
        if name.endswith(".py")
        for module in imports(ROOT / name)
        if (there := module.split(".")[0]) in ROOMS and ROOMS.index(there) > ROOMS.index(name.split("/")[0])
    ]
    assert not wrong


def test_within_the_engine_imports_go_one_way():
    wrong = []
    for name in project_files("rewrite_core"):
        here = core_room(name.removesuffix(".py").split("/"))
        if name == "rewrite_core/__init__.py" or not name.endswith(".py"):
            continue
        assert here, f"{name}: not a room of the engine"
        allowed = CORE_LEAVES | set(CORE_ROOMS[: CORE_ROOMS.index(here) + 1] if here in CORE_ROOMS else ())
        for module in imports(ROOT / name):
            if module.split(".")[0] == "rewrite_core" and core_room(module.split(".")) not in allowed:
                wrong.append(f"{name} imports {module}")
    assert not wrong


def test_the_engine_knows_no_user_interface():
    banned = {"streamlit", "streamlit_drawable_canvas", "altair", "plotly", "click", "dashboard"}
    for name in project_files("rewrite_core", "dissect"):
        if name.endswith(".py"):
            assert banned.isdisjoint(module.split(".")[0] for module in imports(ROOT / name)), name


def test_no_page_is_named_after_a_standard_library_module():
    assert not {path.stem for path in (ROOT / "pages").glob("*.py")} & sys.stdlib_module_names
