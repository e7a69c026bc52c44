"""The operations of COS JSON v4: the fields of a request in, the `data` of the response out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from worker.emulator.config import MIB
from worker.emulator.core.records import Folder, StoredObject, Upload
from worker.emulator.core.uploads import UploadRequest
from worker.emulator.cos_json.errors import CosError, too_large
from worker.emulator.cos_json.legacy import LegacySliceUpload
from worker.emulator.cos_json.targets import addresses
from worker.emulator.cos_json.uploadparts import read_sha, read_uploadparts

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.emulator.core.store import Store
    from worker.emulator.cos_json.call import Call, Data

_MAX_SIMPLE_UPLOAD_BYTES = 20 * MIB
#: The `sha` of a file without a verified digest.
_NO_SHA = "0" * 32

#: Operation of the protocol -> its short name in fault rules and in the journal.
OPS = {
    "upload_slice_init": "init",
    "upload_slice_data": "data",
    "upload_slice_list": "list",
    "upload_slice_finish": "finish",
    "upload_slice": "slice",
    "upload": "upload",
    "stat": "stat",
    "delete": "delete",
    "create": "create",
    "list": "list_folder",
}
#: Short names of operations that require a one-time signature.
ONE_TIME = frozenset({"delete"})
#: Operations of GET; all others are POST requests. `upload_slice_list` is either.
GET_OPS = frozenset({"stat", "list", "upload_slice_list"})


class Operations:
    """Runs the operations on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        legacy = LegacySliceUpload(store)
        self._table: dict[str, Callable[[Call], Data]] = {
            "init": self._init,
            "data": self._data,
            "list": self._list,
            "finish": self._finish,
            "slice": lambda call: legacy.run(call, insert_only=_insert_only(call)),
            "upload": self._upload,
            "stat": self._stat,
            "delete": self._delete,
            "create": self._create,
            "list_folder": self._list_folder,
        }

    def run(self, op: str, call: Call) -> Data:
        """Runs the operation of this short name and returns the `data` of the response.

        Raises:
            CosError: A parameter is wrong, or what it names is absent.
            StorageError: The core refuses the operation.
            GatewayError: The file is too large.
        """
        return self._table[op](call)

    def _init(self, call: Call) -> Data:
        filesize = call.number("filesize", missing=-5971)
        slice_size = call.number("slice_size", missing=-284)
        sha = read_sha(call.text("sha"))
        parts = read_uploadparts(call.text("uploadparts"), filesize_bytes=filesize, sha=sha) if sha else ()
        request = UploadRequest(
            filesize=filesize,
            slice_size=slice_size,
            sha=sha,
            parts=tuple(parts),
            insert_only=_insert_only(call),
            biz_attr=call.text("biz_attr"),
        )
        opened = self._store.uploads.begin(call.target, request, slice_size=call.slice_size, serial=call.serial)
        if isinstance(opened, StoredObject):
            return addresses(call.target, call.host)
        return self._session_data(opened)

    def _session_data(self, upload: Upload) -> dict[str, Any]:
        data: dict[str, Any] = {"session": upload.session}
        if not self._store.settings.bare_answers:
            data["slice_size"] = upload.slice_size
        if upload.serial:
            data["serial_upload"] = 1
        return data

    def _data(self, call: Call) -> Data:
        upload = self._store.uploads.find(call.target, call.text("session"))
        offset_bytes = call.number("offset", missing=-286)
        content = call.form.content
        if content is None:
            raise CosError(-5990)
        sha = read_sha(call.text("sha"))
        if sha and upload.sha and sha != upload.sha:
            raise CosError(-174)
        data: dict[str, Any] = {"session": upload.session, "offset": offset_bytes, "datalen": content.size_bytes}
        if call.text("datamd5"):
            data["datamd5"] = content.md5()
            if data["datamd5"] != call.text("datamd5").lower():
                raise CosError(-5999, "datamd5 is not that of the bytes received")
        self._store.uploads.receive(upload, offset_bytes, content.whole())
        return {} if self._store.settings.bare_answers else data

    def _list(self, call: Call) -> Data:
        upload = self._store.uploads.at(call.target)
        if upload is None:
            if self._store.objects.find(call.target) is None:
                raise CosError(-197)
            return addresses(call.target, call.host)
        slices = self._store.records.slices(upload.session)
        data = self._session_data(upload)
        data["listparts"] = [{"offset": offset, "datalen": size} for offset, size in slices]
        if not self._store.settings.bare_answers:
            data["filesize"] = upload.filesize
        if upload.sha and self._store.settings.sha_in_list:
            data["sha"] = upload.sha
        return data

    def _finish(self, call: Call) -> Data:
        self._store.uploads.finish(
            call.target,
            call.text("session"),
            filesize=call.number("filesize", missing=-5971),
            sha=read_sha(call.text("sha")),
        )
        return addresses(call.target, call.host)

    def _upload(self, call: Call) -> Data:
        content = call.form.content
        if content is None:
            raise CosError(-5990)
        if content.size_bytes > _MAX_SIMPLE_UPLOAD_BYTES:
            raise too_large()
        self._store.objects.put(
            call.target,
            content,
            sha=read_sha(call.text("sha")),
            biz_attr=call.text("biz_attr"),
            insert_only=_insert_only(call),
        )
        return addresses(call.target, call.host)

    def _stat(self, call: Call) -> Data:
        if call.target.is_folder:
            return _entry(self._store.folders.find(call.target), call)
        found = self._store.objects.find(call.target) or self._store.uploads.at(call.target)
        if found is None:
            raise CosError(-197)
        data = _entry(found, call)
        if not self._store.settings.sha_in_stat:
            data["sha"] = _NO_SHA
        if isinstance(found, Upload):
            data["filelen"] = self._store.records.received_bytes(found.session)
        return data

    def _delete(self, call: Call) -> Data:
        if call.target.is_folder:
            self._store.folders.delete(call.target)
        else:
            self._store.objects.delete(call.target)
        return None

    def _create(self, call: Call) -> Data:
        return {"ctime": int(self._store.folders.create(call.target, call.text("biz_attr")).created_s)}

    def _list_folder(self, call: Call) -> Data:
        entries, context, is_last = self._store.folders.page(
            call.target, limit=call.number("num", missing=-165), context=call.text("context")
        )
        infos = []
        for each in entries:
            name = each.path.rstrip("/").rpartition("/")[2] + ("/" if isinstance(each, Folder) else "")
            info = _entry(each, replace(call, target=replace(call.target, path=each.path)))
            infos.append({"name": name, **info})
        return {"context": context, "listover": is_last, "infos": infos}


def _insert_only(call: Call) -> bool:
    """Whether an existing file must not be replaced; that is the default.

    Raises:
        CosError: -5999 neither 0 nor 1.
    """
    text = call.text("insertOnly") or "1"
    if text not in {"0", "1"}:
        raise CosError(-5999, "insertOnly")
    return text == "1"


def _entry(each: StoredObject | Upload | Folder, call: Call) -> dict[str, Any]:
    """The attributes of a file or folder in stat and list_folder."""
    changed_s = each.modified_s if isinstance(each, StoredObject) else each.created_s
    common = {"biz_attr": each.biz_attr, "ctime": int(each.created_s), "mtime": int(changed_s)}
    if isinstance(each, Folder):
        return {**common, "authority": "eInvalid"}
    urls = addresses(call.target, call.host)
    return {
        **common,
        "authority": "eWPrivateRPublic",
        "filesize": each.filesize,
        "filelen": each.filesize,
        "sha": (each.sha if isinstance(each, StoredObject) else "") or _NO_SHA,
        "slicesize": each.slice_size,
        "forbid": 0,
        "custom_headers": {},
        "access_url": urls["access_url"],
        "source_url": urls["source_url"],
    }
