"""The house rules that a machine can check: sizes, names, imports, guards, and the cost of an import."""

import ast
import importlib
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# rglob does not follow links: worldvae/envs and worldvae/agents appear once, as envs and agents.
FILES = sorted(path for folder in ("worldvae", "envs", "agents", "tests") for path in (ROOT / folder).rglob("*.py"))
TOP_LEVEL = {"worldvae", "envs", "agents", "configs", "tests", "pyproject.toml", "README.md", "LICENSE"}
ON_DEMAND = {"gymnasium", "pygame", "omegaconf", "yaml", "typer", "rich", "tensorboard", "PIL", "safetensors", "av"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_above_400_lines() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in FILES}
    assert len(lengths) > 10
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_function_is_above_60_lines() -> None:
    too_long = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    too_long[f"{name(path)}:{node.name}"] = length
    assert too_long == {}


def test_the_top_level_holds_what_the_design_says() -> None:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {entry for entry in found if not any(fnmatch(entry, pattern) for pattern in ignored)} == TOP_LEVEL


@pytest.mark.parametrize("folder", ["envs", "agents", "configs"])
def test_the_links_of_the_library_point_to_the_top_level(folder: str) -> None:
    link = ROOT / "worldvae" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..", folder)


def test_no_postponed_annotations() -> None:
    """Annotations with shapes are checked when they are evaluated; a string never is."""
    postponed = [
        name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert postponed == []


def test_only_the_vae_and_what_is_about_it_read_the_parts_of_its_states() -> None:
    """A state is opaque: other code reads its `features` (mypy checks that, too, but a test does not run it)."""
    inside = ("models", "memory", "priors", "posteriors", "diagnostics", "studies")
    reads = {
        name(path)
        for path in FILES
        if path.relative_to(ROOT).parts[0] != "tests" and path.relative_to(ROOT).parts[1] not in inside
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("memory", "latent", "past")
    }
    assert reads == set()


def test_every_file_is_named_after_its_concept() -> None:
    vague = {"utils", "util", "common", "helpers", "misc"}
    assert [name(path) for path in FILES if vague & {path.stem, path.parent.name}] == []


def test_modules_have_different_names() -> None:
    """A name that stands in two folders has to be read with its folder to be understood."""
    reasons = {"flow": "a normalising flow in both: as a posterior and as a prior"}
    modules = [path for path in FILES if path.relative_to(ROOT).parts[0] != "tests" and path.stem != "__init__"]
    folders: dict[str, list[str]] = {}
    for path in modules:
        folders.setdefault(path.stem, []).append(name(path.parent))
    assert {stem for stem, found in folders.items() if len(found) > 1} == set(reasons), folders


def test_imports_only_go_down() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.parametrize("folder", ["envs", "agents"])
def test_a_folder_imported_under_a_foreign_name_says_how_to_import_it(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delitem(sys.modules, folder, raising=False)
    with pytest.raises(ImportError, match=f"import it as 'worldvae.{folder}'"):
        importlib.import_module(folder)


def test_import_worldvae_is_light() -> None:
    """torch's own imports are accepted; an `import worldvae` for a single distribution must not load anything else."""
    script = "import sys, torch; before = set(sys.modules); import worldvae; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    modules = {module.partition(".")[0] for module in loaded.stdout.split()}
    assert "worldvae" in modules
    assert modules & ON_DEMAND == set()
