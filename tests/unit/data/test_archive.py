from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from skdtune.data.archive import Archive
from skdtune.data.data_set import PartRequest
from skdtune.data.download import file_md5
from skdtune.errors import DataError


@pytest.mark.parametrize(
    ("held", "unpacked"),
    [
        (("pets/a.txt", "pets/more/b.txt"), ("a.txt", "more/b.txt")),
        (("other/a.txt",), ("a.txt",)),
        (("a.txt", "more/b.txt"), ("a.txt", "more/b.txt")),
        (("a.txt",), ("a.txt",)),
        # As CUB-200-2011 has it: a file beside the folder that is wanted.
        (("pets/a.txt", "attributes.txt"), ("a.txt",)),
    ],
)
def test_what_it_holds_lies_in_one_folder(
    held: tuple[str, ...], unpacked: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "pets.tar"
    with tarfile.open(path, "w") as tar:
        for name in held:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    archive = Archive(url="none", filename=path.name, md5=file_md5(path), folder="data/pets")
    request = PartRequest(name="pets", split="train", root=tmp_path, download=False)
    folder = archive.unpacked(request)
    assert folder == tmp_path / "data" / "pets"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {file.relative_to(folder).as_posix() for file in files} == set(unpacked)
    path.unlink()
    assert archive.unpacked(request) == folder


def put(root: Path, content: bytes) -> tuple[Archive, PartRequest]:
    (root / "pets.zip").write_bytes(content)
    archive = Archive(url="http://a/pets.zip", filename="pets.zip", md5=None, folder="pets")
    return archive, PartRequest(name="pets", split="train", root=root, download=False)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()


def test_a_zip_archive_is_unpacked(tmp_path: Path) -> None:
    archive, request = put(tmp_path, zipped("other/a.txt", "other/b/c.txt"))
    folder = archive.unpacked(request)
    assert (folder / "a.txt").read_text() == (folder / "b/c.txt").read_text() == "content"


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    archive, request = put(root, zipped("pets/a.txt", "../../../../escaped.txt", "/escaped.txt"))
    archive.unpacked(request)
    assert not list(tmp_path.glob("escaped*"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../../escaped.txt"), io.BytesIO())
    (root / "pets").rename(root / "moved")
    archive, request = put(root, buffer.getvalue())
    with pytest.raises(DataError, match="is damaged, incomplete or no archive"):
        archive.unpacked(request)
    assert not list(tmp_path.glob("escaped*"))
    assert not (root / "pets").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not here</html>", zipped("pets/a.txt")[:-30]])
def test_what_is_no_archive_is_one_line_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    archive, request = put(tmp_path, content)
    with pytest.raises(
        DataError, match=r"pets\.zip is damaged, incomplete or no archive"
    ) as caught:
        archive.unpacked(request)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pets").exists()
