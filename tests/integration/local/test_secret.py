from __future__ import annotations

from typing import TYPE_CHECKING

from worker.local.secret import remembered_secret, write_secret

if TYPE_CHECKING:
    from pathlib import Path


def test_secret_is_made_once_and_readable_by_us_alone(tmp_path: Path) -> None:
    first = remembered_secret(tmp_path / "one")
    assert remembered_secret(tmp_path / "one") == first
    assert remembered_secret(tmp_path / "other") != first
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    assert len(first) >= 32


def test_secret_needs_no_quoting_in_a_url_or_a_configuration(tmp_path: Path) -> None:
    secrets = [remembered_secret(tmp_path / str(number)) for number in range(50)]
    assert all(secret.replace("-", "").replace("_", "").isalnum() for secret in secrets)


def test_secret_replaces_a_file_that_others_could_read(tmp_path: Path) -> None:
    file = tmp_path / "open"
    file.write_text("old")
    file.chmod(0o644)
    write_secret(file, "fake-secret-new")
    assert file.read_text() == "fake-secret-new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["open"]
