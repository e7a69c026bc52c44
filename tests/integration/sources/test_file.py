"""`FileReader` on a real file system."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker.config.profiles import RootProfile
from worker.errors import RootUnavailable, SourceChanged, SourceError, SourceGone, SourceRefused
from worker.sources.file import _mapped, open_file, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = random.Random(0).randbytes(3 * 1024 * 1024 + 5)


@pytest.fixture
def root(tmp_path: Path) -> RootProfile:
    path = tmp_path / "root"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "f.bin").write_bytes(DATA)
    return RootProfile(name="media", path=path)


@pytest.fixture
def file(root: RootProfile) -> Path:
    return root.path / "sub" / "f.bin"


@pytest.fixture(autouse=True)
def _nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    yield
    opened = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert [link for link in opened if link.is_relative_to(tmp_path)] == []


def read(root: RootProfile, path: str, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    with open_file(root, path) as source:
        source.read_into(memoryview(buffer), offset)
    return bytes(buffer)


class TestReading:
    @pytest.mark.parametrize(
        ("offset", "size"),
        [(0, len(DATA)), (0, 0), (1, 1), (len(DATA) - 5, 5), (1024 * 1024, 1024 * 1024), (len(DATA), 0)],
    )
    def test_exactly_the_range(self, root: RootProfile, offset: int, size: int) -> None:
        assert read(root, "sub/f.bin", offset, size) == DATA[offset : offset + size]

    def test_into_a_part_of_a_larger_buffer(self, root: RootProfile) -> None:
        buffer = bytearray(b"x" * 20)
        with open_file(root, "sub/f.bin") as source:
            source.read_into(memoryview(buffer)[5:15], 7)
        assert bytes(buffer) == b"x" * 5 + DATA[7:17] + b"x" * 5

    def test_an_empty_file(self, root: RootProfile) -> None:
        (root.path / "sub" / "empty").touch()
        with open_file(root, "sub/empty") as source:
            assert source.size_bytes == 0
            source.read_into(memoryview(bytearray()), 0)
            source.verify_unchanged()

    @pytest.mark.parametrize("name", ["a b", "ü", "\u0001", "-", "...", "a\nb", "%41", "\udcff"])
    def test_any_name_that_a_file_can_have(self, root: RootProfile, name: str) -> None:
        (root.path / "sub" / name).write_bytes(b"abc")
        assert read(root, f"sub/{name}", 0, 3) == b"abc"

    def test_the_fingerprint_is_json_and_the_same_each_time(self, root: RootProfile, file: Path) -> None:
        with open_file(root, "sub/f.bin") as source:
            first = source.fingerprint
        found = file.stat()
        assert first == {"size": len(DATA), "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}
        with open_file(root, "sub/f.bin", expected=first) as source:
            assert (source.fingerprint, source.size_bytes) == (first, len(DATA))

    def test_closing_twice_is_harmless(self, root: RootProfile) -> None:
        source = open_file(root, "sub/f.bin")
        source.close()
        source.close()


class TestRefused:
    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/",
            ".",
            "..",
            "../root/sub/f.bin",
            "sub/../sub/f.bin",
            "sub/..",
            "./",
            ".//.",
            "sub/f.bin/..",
            "//etc/passwd",
            "/etc/passwd",
            "sub/f.bin\0",
            "a" * 300,
        ],
    )
    def test_a_path_that_is_none(self, root: RootProfile, path: str) -> None:
        with pytest.raises(SourceRefused):
            open_file(root, path)

    def test_the_absolute_path_of_the_very_file(self, root: RootProfile, file: Path) -> None:
        with pytest.raises(SourceRefused):
            open_file(root, str(file))

    @pytest.mark.parametrize(
        "make",
        [
            lambda at: at.mkdir(),
            os.mkfifo,
            lambda at: at.symlink_to("/dev/zero"),
            lambda at: at.symlink_to("loop"),
            lambda at: at.symlink_to("/etc/passwd"),
            lambda at: at.symlink_to("../../outside"),
            lambda at: at.symlink_to(".."),
        ],
        ids=["folder", "fifo", "device", "loop", "absolute-link", "relative-link", "link-to-the-root"],
    )
    def test_what_is_no_regular_file_of_the_root(self, root: RootProfile, make: Callable[[Path], Any]) -> None:
        (root.path.parent / "outside").write_bytes(b"theirs")
        make(root.path / "sub" / "loop")
        with pytest.raises(SourceRefused):
            open_file(root, "sub/loop")

    def test_a_fifo_is_not_opened(self, root: RootProfile) -> None:
        """Any open would wake a writer that waits for a reader."""
        fifo = root.path / "sub" / "fifo"
        os.mkfifo(fifo)
        with pytest.raises(SourceRefused):
            open_file(root, "sub/fifo")
        with pytest.raises(OSError, match="No such device") as caught:
            os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        assert caught.value.errno == errno.ENXIO

    def test_a_folder_whose_name_begins_like_the_root(self, root: RootProfile) -> None:
        (root.path.parent / "root2").mkdir()
        (root.path.parent / "root2" / "f").write_bytes(b"theirs")
        (root.path / "sub" / "link").symlink_to("../../root2")
        with pytest.raises(SourceRefused):
            open_file(root, "sub/link/f")

    def test_links_that_stay_inside_are_followed(self, root: RootProfile, file: Path) -> None:
        (root.path / "link").symlink_to("sub")
        (root.path / "absolute").symlink_to(file)
        assert read(root, "link/f.bin", 0, 9) == read(root, "absolute", 0, 9) == DATA[:9]

    @pytest.mark.parametrize(
        ("link", "rest"),
        [
            ("/etc/passwd", ""),
            ("/etc/{}", ""),
            ("/etc/shadow", ""),
            ("/etc", "passwd"),
            ("/etc", "{}"),
            ("/etc/passwd", "x"),
            ("../../outside", ""),
            ("../../{}", ""),
            ("../../loop", ""),
            ("../../closed/file", ""),
            ("../../outside/../root/sub/f.bin", ""),
            ("../../{}/../root/sub/f.bin", ""),
            ("{root}/../outside", ""),
            ("{root}/../{}", ""),
            ("{root}2/f", ""),
            ("{root}2/{}", ""),
            ("/proc/self/root/etc/passwd", ""),
            ("/", "{}"),
        ],
    )
    def test_an_error_does_not_reveal_what_is_outside(self, root: RootProfile, link: str, rest: str) -> None:
        outside = root.path.parent
        (outside / "outside").mkdir()
        (outside / "root2").mkdir()
        (outside / "root2" / "f").write_bytes(b"theirs")
        (outside / "loop").symlink_to("loop")
        (outside / "closed").mkdir(mode=0)
        (root.path / "sub" / "link").symlink_to(link.format("nothing-there", root=root.path))
        path = "sub/link" + f"/{rest.format('nothing-there')}".rstrip("/")
        with pytest.raises(SourceRefused) as refused:
            open_file(root, path)
        assert (refused.value.code, refused.value.message) == (
            "source_refused",
            f"media:{path} is a link that leads out of the root",
        )

    @pytest.mark.parametrize(
        ("link", "error"),
        [
            ("nothing-there", SourceGone),
            ("../sub/nothing-there", SourceGone),
            ("f.bin/../f.bin", SourceGone),
            ("{root}/nothing-there", SourceGone),
            ("{root}", SourceRefused),
            ("second", SourceRefused),
        ],
    )
    def test_an_error_names_what_is_wrong_inside(self, root: RootProfile, link: str, error: type[SourceError]) -> None:
        (root.path / "sub" / "second").symlink_to("link")
        (root.path / "sub" / "link").symlink_to(link.format(root=root.path))
        with pytest.raises(error, match="media:sub/link") as raised:
            open_file(root, "sub/link")
        assert "leads out" not in raised.value.message

    def test_links_may_lead_to_links_up_and_down(self, root: RootProfile) -> None:
        (root.path / "sub" / "deep").mkdir()
        (root.path / "sub" / "deep" / "up").symlink_to("../../sub/.//deep/./../second")
        (root.path / "sub" / "second").symlink_to(root.path / "third")
        (root.path / "third").symlink_to("sub/f.bin")
        assert read(root, "sub/deep/up", 0, 9) == DATA[:9]

    def test_an_absolute_link_may_name_the_root_by_either_name(self, root: RootProfile) -> None:
        link = root.path.parent / "link"
        link.symlink_to(root.path)
        for number, name in enumerate((link, root.path)):
            (root.path / f"{number}").symlink_to(name / "sub" / "f.bin")
            assert read(RootProfile(name="media", path=link), f"{number}", 0, 9) == DATA[:9]

    def test_a_root_may_itself_be_a_link(self, root: RootProfile) -> None:
        link = root.path.parent / "link"
        link.symlink_to(root.path)
        assert read(RootProfile(name="media", path=link), "sub/f.bin", 0, 9) == DATA[:9]

    def test_a_root_may_be_the_root_of_all(self, file: Path) -> None:
        assert read(RootProfile(name="all", path=Path("/")), str(file)[1:], 0, 9) == DATA[:9]

    def test_a_path_may_say_more_than_it_needs(self, root: RootProfile) -> None:
        assert read(root, "./sub//./f.bin", 0, 9) == DATA[:9]


class TestChanged:
    def change(self, file: Path, how: str) -> None:
        times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        match how:
            case "grown":
                with file.open("ab") as out:
                    out.write(b"more")
                os.utime(file, ns=times)
            case "shrunk":
                os.truncate(file, 100)
                os.utime(file, ns=times)
            case "written":
                with file.open("r+b") as out:
                    out.write(b"other")
                os.utime(file, ns=(times[0], times[1] + 1))
            case "replaced":
                other = file.with_name("other")
                other.write_bytes(DATA)
                os.utime(other, ns=times)
                other.rename(file)

    @pytest.mark.parametrize(
        ("how", "word"),
        [("grown", "size"), ("shrunk", "size"), ("written", "modification time"), ("replaced", "identity")],
    )
    def test_is_detected_at_the_next_open_and_by_verify_unchanged(
        self, root: RootProfile, file: Path, how: str, word: str
    ) -> None:
        with open_file(root, "sub/f.bin") as source:
            self.change(file, how)
            with pytest.raises(SourceChanged, match=word):
                source.verify_unchanged()
            with pytest.raises(SourceChanged, match=word):
                open_file(root, "sub/f.bin", expected=source.fingerprint)

    @pytest.mark.parametrize("how", ["grown", "shrunk", "written"])
    def test_is_detected_at_the_next_read(self, root: RootProfile, file: Path, how: str) -> None:
        with open_file(root, "sub/f.bin") as source:
            self.change(file, how)
            with pytest.raises(SourceChanged):
                source.read_into(memoryview(bytearray(10)), 0)

    def test_is_detected_if_it_happens_during_a_read(
        self, root: RootProfile, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wrapper of the system call shrinks the file before the read."""
        preadv = os.preadv

        def slow(fd: int, buffers: list[memoryview], offset: int) -> int:
            self.change(file, "shrunk")
            return preadv(fd, buffers, offset)

        monkeypatch.setattr(os, "preadv", slow)
        with open_file(root, "sub/f.bin") as source, pytest.raises(SourceChanged):
            source.read_into(memoryview(bytearray(1000)), 0)

    def test_a_range_past_the_end_is_a_changed_file(self, root: RootProfile) -> None:
        with open_file(root, "sub/f.bin") as source, pytest.raises(SourceChanged, match="ends before"):
            source.read_into(memoryview(bytearray(10)), len(DATA) - 5)

    def test_short_reads_are_repeated_until_the_buffer_is_full(
        self, root: RootProfile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        preadv = os.preadv
        monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:1000]], offset))
        assert read(root, "sub/f.bin", 11, 10_001) == DATA[11:10_012]


def replaced_by(file: Path, content: bytes, later_ns: int = 0) -> None:
    """Replace the file by another inode, with the same time or a later one."""
    other, before = file.with_name("other"), file.stat()
    other.write_bytes(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns + later_ns))
    other.rename(file)


class TestIdentity:
    @pytest.fixture
    def loose(self, root: RootProfile) -> RootProfile:
        return root.model_copy(update={"fingerprint": "size-mtime"})

    def test_by_size_and_time_another_inode_is_the_same_file(self, loose: RootProfile, file: Path) -> None:
        with open_file(loose, "sub/f.bin") as source:
            replaced_by(file, DATA)
            source.verify_unchanged()
            source.read_into(memoryview(bytearray(5)), 0)
            first = source.fingerprint
        with open_file(loose, "sub/f.bin", expected=first) as source:
            source.verify_unchanged()
            assert source.fingerprint == first  # the first fingerprint is kept under either rule

    @pytest.mark.parametrize(("content", "later_ns"), [(DATA[1:], 0), (DATA, 1)])
    def test_by_size_and_time_each_of_the_two_is_compared(
        self, loose: RootProfile, file: Path, content: bytes, later_ns: int
    ) -> None:
        with open_file(loose, "sub/f.bin") as source:
            replaced_by(file, content, later_ns)
            with pytest.raises(SourceChanged) as changed:
                source.verify_unchanged()
            assert not changed.value.replaced
            with pytest.raises(SourceChanged):
                open_file(loose, "sub/f.bin", expected=source.fingerprint)

    def test_a_strict_root_names_the_option_if_only_the_inode_differs(self, root: RootProfile, file: Path) -> None:
        with open_file(root, "sub/f.bin") as source:
            replaced_by(file, DATA)
            with pytest.raises(SourceChanged) as changed:
                source.verify_unchanged()
        assert changed.value.replaced
        assert "size-mtime" in changed.value.advice

    def test_both_rules_take_the_same_fingerprint(self, root: RootProfile, loose: RootProfile) -> None:
        with open_file(root, "sub/f.bin") as source, open_file(loose, "sub/f.bin") as other:
            assert source.fingerprint == other.fingerprint
            open_file(root, "sub/f.bin", expected=other.fingerprint).close()
            open_file(loose, "sub/f.bin", expected=source.fingerprint).close()


class TestGone:
    def test_a_file_that_is_not_there(self, root: RootProfile) -> None:
        for path in ("nothing", "sub/nothing", "no/such/folder", "sub/f.bin/x", "sub/f.bin/", "sub/f.bin/."):
            with pytest.raises(SourceGone):
                open_file(root, path)

    def test_a_file_that_went_is_missed_by_check_but_read_to_its_end(self, root: RootProfile, file: Path) -> None:
        with open_file(root, "sub/f.bin") as source:
            file.unlink()
            with pytest.raises(SourceGone):
                source.verify_unchanged()
            buffer = bytearray(10)
            source.read_into(memoryview(buffer), 0)
            assert bytes(buffer) == DATA[:10]


class TestRoot:
    def test_a_root_with_something_in_it_is_usable(self, root: RootProfile) -> None:
        assert usable(root) is None

    def test_a_missing_or_empty_root_or_a_file_makes_jobs_wait(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_bytes(b"")
        for name in ("missing", "empty", "file"):
            root = RootProfile(name="media", path=tmp_path / name)
            assert usable(root)
            with pytest.raises(RootUnavailable, match="media"):
                open_file(root, "sub/f.bin")

    def test_a_volume_that_is_unmounted_under_an_open_source(self, root: RootProfile) -> None:
        with open_file(root, "sub/f.bin") as source:
            root.path.rename(root.path.with_name("elsewhere"))
            with pytest.raises(RootUnavailable):
                source.verify_unchanged()
            root.path.mkdir()
            with pytest.raises(RootUnavailable, match="is empty"):
                source.verify_unchanged()

    @pytest.mark.parametrize(
        ("number", "expected", "code"),
        [
            (errno.EIO, RootUnavailable, "root_unavailable"),
            (errno.ESTALE, RootUnavailable, "root_unavailable"),
            (errno.ENXIO, RootUnavailable, "root_unavailable"),
            (errno.EMFILE, RootUnavailable, "root_unavailable"),
            (errno.EACCES, SourceRefused, "source_unreadable"),
            (errno.EPERM, SourceRefused, "source_unreadable"),
            (errno.ELOOP, SourceRefused, "source_refused"),
            (errno.ENOENT, SourceGone, "source_gone"),
        ],
        ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else None,
    )
    def test_every_failure_of_the_system_has_its_class(
        self, root: RootProfile, number: int, expected: type[SourceError], code: str
    ) -> None:
        found = _mapped(root, "sub/f.bin", OSError(number, os.strerror(number)))
        assert (type(found), found.code) == (expected, code)
        assert "media:sub/f.bin" in found.message
        assert "\n" not in found.message

    def test_a_failing_read_is_told_as_the_volumes_fault(
        self, root: RootProfile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with open_file(root, "sub/f.bin") as source:
            monkeypatch.setattr(os, "preadv", fail)
            with pytest.raises(RootUnavailable, match="Input/output error"):
                source.read_into(memoryview(bytearray(1)), 0)
