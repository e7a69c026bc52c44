"""Which job specs are admitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from api.schemas.sources import FileSource
from worker.config.settings import Settings, load_settings
from worker.errors import Refused
from worker.jobs.admission import Admission, JobSpec

if TYPE_CHECKING:
    from pathlib import Path

STORES = """
[stores.main]
protocol = "cos-json"
endpoint = "https://COS.example.com/"
appid = "1250000000"
bucket = "media"
secret_id = "fake-secret-id"
secret_key = "fake-secret-key"
tenants = ["acme"]

[roots.media]
path = "/srv/media"
tenants = ["acme"]
"""


def a_file(path: str, root: str = "media") -> FileSource:
    return FileSource(kind="file", root=root, path=path)


SPEC = JobSpec(
    source=a_file("video/a.mp4"),
    store="main",
    key="a.mp4",
    overwrite=False,
    slice_bytes=None,
    verify="auto",
    priority=5,
    attributes=None,
    labels={"a": "1"},
    retry_for_s=None,
    idempotency_key=None,
    digest=None,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "stores.toml"
    file.write_text(STORES)
    given = {
        "DATABASE_URL": "postgresql://h/d",
        "BROKER_URL": "redis://h",
        "STORES_FILE": str(file),
        "RETRY_FOR_S": "60",
    }
    return load_settings({f"SLICEWAY_{name}": value for name, value in given.items()})


@pytest.fixture
def admission(settings: Settings) -> Admission:
    return Admission(settings)


def test_a_spec_becomes_a_job_with_its_target(admission: Admission, settings: Settings) -> None:
    job = admission.new_job(SPEC, "acme")
    assert (
        job.target
        == settings.profiles.stores["main"].target("a.mp4")
        == "cos-json://cos.example.com/1250000000/media/a.mp4"
    )
    assert job.source == {"kind": "file", "root": "media", "path": "video/a.mp4"}
    assert (job.tenant, job.store, job.key, job.labels) == ("acme", "main", "a.mp4", {"a": "1"})
    assert job.id.version == 7


def test_the_time_to_retry_is_the_requested_one_or_else_the_settings(admission: Admission) -> None:
    assert admission.new_job(SPEC, "acme").retry_for_s == 60
    assert admission.new_job(SPEC._replace(retry_for_s=0), "acme").retry_for_s == 0


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (SPEC._replace(store="other"), "unknown_store"),
        (SPEC._replace(source=a_file("a", root="other")), "unknown_root"),
        (SPEC._replace(key="a//b"), "bad_key"),
        (SPEC._replace(source=a_file("/a")), "bad_path"),
        (SPEC._replace(source=a_file("a/")), "bad_path"),
        (SPEC._replace(source=a_file("./a")), "bad_path"),
        (SPEC._replace(source=a_file("..")), "bad_path"),
        (SPEC._replace(verify="slice"), "bad_verify"),
        (SPEC._replace(slice_bytes=1), "bad_slice_size"),
        (SPEC._replace(verify="file", slice_bytes=512 * 1024), "bad_slice_size"),
    ],
)
def test_a_spec_that_breaks_a_rule_is_refused(admission: Admission, spec: JobSpec, code: str) -> None:
    with pytest.raises(Refused) as refused:
        admission.new_job(spec, "acme")
    assert refused.value.code == code


def test_a_key_outside_the_tenants_prefix_is_refused_by_its_name(settings: Settings) -> None:
    profiles = settings.profiles
    below = profiles.stores["main"].model_copy(update={"prefix": "in/{tenant}/", "tenants": ("*",)})
    settings.live_profiles.profiles = profiles.model_copy(update={"stores": {"main": below}})
    admission = Admission(settings)
    assert admission.new_job(SPEC._replace(key="in/acme/a.mp4"), "acme").key == "in/acme/a.mp4"
    for key in ("a.mp4", "in/acme.mp4", "in/acme2/a.mp4", "IN/acme/a.mp4", "in/umbrella/a.mp4", "x/in/acme/a.mp4"):
        with pytest.raises(Refused, match="'in/acme/'") as refused:
            admission.new_job(SPEC._replace(key=key), "acme")
        assert (refused.value.code, refused.value.advice) == ("bad_key", "Begin the key with 'in/acme/'.")


def test_another_tenant_cannot_see_that_a_store_exists(admission: Admission) -> None:
    with pytest.raises(Refused) as of_others:
        admission.new_job(SPEC, "umbrella")
    with pytest.raises(Refused) as of_none:
        admission.new_job(SPEC._replace(store="nowhere"), "umbrella")
    assert of_others.value.message.replace("'main'", "'nowhere'") == of_none.value.message
