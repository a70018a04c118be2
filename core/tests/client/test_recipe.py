"""Image recipes, read and packed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from backendai.client.recipe import load_recipe, pack_recipe
from backendai.model.errors import Failure

KERNELS = Path(__file__).resolve().parents[3] / "kernels"


@pytest.mark.parametrize("name", ["base", "python"])
def test_our_own_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(KERNELS / name)
    assert recipe.name.startswith(f"backendai/{name}:")
    assert recipe.languages
    assert recipe.minimum


def write(folder: Path, metadata: str) -> Path:
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "recipe.toml").write_text(metadata)
    return folder


def test_everything_that_a_recipe_can_say_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, """
        name = "a/b:1"
        title = "T"
        languages = ["r 4"]
        [services.web]
        argv = ["serve", "--all"]
        port = 8080
        [minimum]
        cpu = 1
        mem = "1.5g"
    """))
    assert (recipe.name, recipe.title, recipe.languages) == ("a/b:1", "T", ("r 4",))
    assert recipe.services[0].argv == ("serve", "--all")
    assert recipe.services[0].port == 8080
    assert recipe.minimum == {"cpu": 1, "mem": "1.5g"}


@pytest.mark.parametrize(("metadata", "word"), [
    ("", "name"), ("name = 1", "name"), ('name = "a b"', "reference"), ('name = "a"\nnames = 1', "names"), ("name = ", "cannot be read"),
    ('name = "a"\ntitle = 1', "title"), ('name = "a"\nlanguages = "x"', "languages"), ('name = "a"\n[services.x]\nport = 1', "argv"),
    ('name = "a"\n[services.x]\nargv = ["a"]\nport = 70000', "port"), ('name = "a"\n[minimum]\nmem = "much"', "mem"),
    ('name = "a"\nminimum = 3', "minimum"), ('name = "a"\nservices = 3', "services"),
])
def test_what_is_wrong_is_named(tmp_path: Path, metadata: str, word: str) -> None:
    with pytest.raises(Failure) as caught:
        load_recipe(write(tmp_path, metadata))
    assert word in caught.value.message


@pytest.mark.parametrize("missing", ["Dockerfile", "recipe.toml"])
def test_a_folder_without_both_files_is_no_recipe(tmp_path: Path, missing: str) -> None:
    (write(tmp_path, 'name = "a"') / missing).unlink()
    with pytest.raises(Failure, match=missing):
        load_recipe(tmp_path)


def test_the_archive_has_every_file_the_labels_and_no_owner(tmp_path: Path) -> None:
    write(tmp_path, 'name = "a/b:1"\ntitle = "costs $5"\nlanguages = ["r 4"]')
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "large").write_bytes(b"x" * 1_000_000)
    (tmp_path / "files" / "link").symlink_to("large")
    (tmp_path / "__pycache__").mkdir()
    recipe = load_recipe(tmp_path)
    packed = b"".join(pack_recipe(recipe))
    assert packed == b"".join(pack_recipe(recipe))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == ["Dockerfile", "files", "files/large", "files/link", "recipe.toml"]
        assert {member.uid for member in archive} == {0}
        dockerfile = archive.extractfile("Dockerfile")
        assert dockerfile is not None
        text = dockerfile.read().decode()
    assert text.startswith("FROM scratch\n")
    assert 'LABEL ai.backendai.recipe.title="costs \\$5"' in text
    assert 'LABEL ai.backendai.recipe.languages="[\\"r 4\\"]"' in text
