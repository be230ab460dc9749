from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from skdtune.data.archive import Archive
from skdtune.data.data_set import PartRequest
from skdtune.data.download import file_md5


@pytest.mark.parametrize(
    ("held", "unpacked"),
    [
        (("pets/a.txt", "pets/more/b.txt"), ("a.txt", "more/b.txt")),
        (("other/a.txt",), ("a.txt",)),
        (("a.txt", "more/b.txt"), ("a.txt", "more/b.txt")),
        (("a.txt",), ("a.txt",)),
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
