"""The HTTP handler of COS JSON v4: receives a request, injects faults, verifies the signature, runs the operation."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import secrets
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from worker.emulator.config import MIB
from worker.emulator.core.content import Content
from worker.emulator.core.errors import StorageError
from worker.emulator.core.faults import Fault, InjectedFaults, Rule
from worker.emulator.cos_json.call import Call, Data, decimal
from worker.emulator.cos_json.download import download
from worker.emulator.cos_json.errors import CosError, GatewayError, cos_error_of, too_large
from worker.emulator.cos_json.form import BufferPool, FormData, FormReader
from worker.emulator.cos_json.operations import GET_OPS, ONE_TIME, OPS, Operations
from worker.emulator.cos_json.signature import check_signature, read_signature
from worker.emulator.cos_json.targets import addresses, target_of
from worker.emulator.http.connection import Disconnected, HttpConnection, HttpRequest, HttpResponse

if TYPE_CHECKING:
    from worker.emulator.core.journal import JournalEntry
    from worker.emulator.core.store import Store
    from worker.emulator.core.targets import Target

#: A simple upload of 20 MiB with room for its fields; a longer body is refused by its Content-Length alone.
_MAX_BODY_BYTES = 40 * MIB
_DRIP_PIECES = 16

_log = logging.getLogger(__name__)


class _Cut(Exception):
    """A fault closes the connection here, without a response."""


class CosJsonHandler:
    """Serves the COS JSON operations of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._buffers = BufferPool()
        self._operations = Operations(store)

    def handle(self, connection: HttpConnection, request: HttpRequest) -> bool:
        """Answers one request and returns whether the connection can serve another."""
        entry = self._store.journal.begin(request.method)
        reader = FormReader(
            self._buffers, self._store.disk.temp_file, strict_boundary=self._store.config.strict_boundary
        )
        state = "cut"
        try:
            with reader:
                try:
                    response, faults = self._respond(connection, request, entry, reader)
                finally:
                    self._store.journal_file.request(entry)
                keep_alive = self._deliver(connection, request, response, faults)
            state = "answered"
        except (_Cut, Disconnected):
            return False
        finally:
            self._store.journal.end(entry, state)
        return keep_alive

    def _respond(
        self, connection: HttpConnection, request: HttpRequest, entry: JournalEntry, reader: FormReader
    ) -> tuple[HttpResponse, InjectedFaults]:
        """Receives and runs the operation; the journal entry has the outcome when this returns or raises."""
        faults = InjectedFaults(())
        try:
            if request.content_length > _MAX_BODY_BYTES:
                raise too_large()
            target = target_of(request.path, self._store.config.accounts)
            self._store.journal.update(entry, bucket=target.bucket, path=target.path)
            form = self._receive(connection, request, entry, reader)
            faults = self._store.plan.faults_for(entry)
            response = self._perform(request, entry, Call(target, form, request.headers.get("host", "")), faults)
        except CosError as error:
            response = self._error_response(entry, error)
        except GatewayError as error:
            response = HttpResponse(error.status, error.body, error.content_type)
            self._store.journal.update(entry, status=error.status)
        return response, faults

    def _deliver(
        self, connection: HttpConnection, request: HttpRequest, response: HttpResponse, faults: InjectedFaults
    ) -> bool:
        response.bodiless = request.method == "HEAD"
        with contextlib.ExitStack() as closing:
            if response.file is not None:
                closing.callback(response.file.close)
            too_much = connection.body_left_bytes > _MAX_BODY_BYTES
            if not too_much:
                connection.skip_body()
            keep_alive = request.keep_alive and not too_much
            self._send(connection, response, faults, keep_alive=keep_alive)
        if too_much:
            connection.linger()
        return keep_alive

    # before the operation

    def _receive(
        self, connection: HttpConnection, request: HttpRequest, entry: JournalEntry, reader: FormReader
    ) -> FormData:
        if request.method in {"GET", "HEAD"}:
            wire_op = request.query.get("op", "")
            if wire_op and wire_op not in GET_OPS:
                raise CosError(-5964, "not an operation of GET")
            self._store.journal.update(entry, op=OPS.get(wire_op, "download"))
            return FormData({name: text for name, text in request.query.items() if text})
        if request.method != "POST":
            raise CosError(-5999, f"method {request.method}", status=405)

        fields_seen = 0

        def progress(form: FormData, body_bytes: int) -> None:
            nonlocal fields_seen
            entry.body_bytes = body_bytes
            if form.content is not None:
                entry.size = form.content.size_bytes
            if len(form.fields) + (form.content is not None) != fields_seen:
                fields_seen = len(form.fields) + (form.content is not None)
                self._record(entry, form, body_bytes)
            if self._store.plan.cuts_body(entry):
                self._store.journal.update(entry, faults=(Fault.CUT_BODY.value,))
                raise _Cut

        progress(reader.form, 0)
        form = reader.read(connection, request, progress)
        self._record(entry, form, request.content_length)
        if entry.op is None:
            raise CosError(-5964 if form.fields.get("op") else -5980)
        if (self._store.settings.journal_sha1 or self._store.journal_file.on) and form.content is not None:
            self._store.journal.update(entry, sha1=form.content.sha1())
        return form

    def _record(self, entry: JournalEntry, form: FormData, body_bytes: int) -> None:
        """Writes the fields received so far into the journal entry."""
        self._store.journal.update(
            entry,
            body_bytes=body_bytes,
            op=OPS.get(form.fields.get("op", "")),
            session=form.fields.get("session"),
            offset=decimal(form.fields.get("offset", "")),
            size=form.content.size_bytes if form.content is not None else None,
        )

    def _authorize(self, request: HttpRequest, op: str, target: Target) -> None:
        if not self._store.settings.verify_signatures:
            return
        token = request.headers.get("authorization") or request.query.get("sign", "")
        signature = read_signature(token, self._store.secret_keys)
        one_time = op in ONE_TIME
        check_signature(signature, target, now_s=self._store.settings.now(), one_time=one_time)
        if one_time and not self._store.records.use_signature(signature.mac):
            raise CosError(-77)

    # the operation, and the faults before and after it

    def _perform(self, request: HttpRequest, entry: JournalEntry, call: Call, faults: InjectedFaults) -> HttpResponse:
        op = entry.op or ""
        self._store.journal.update(entry, faults=faults.names)
        substitute = self._inject(entry, faults, "before")
        if substitute is not None:
            return substitute
        call = self._apply_faults(call, faults)
        if faults.get(Fault.SWALLOW):
            response = self._success_response(entry, _fabricated(op, call))
        else:
            try:
                if op == "download":
                    response = download(self._store.objects, call.target, request)
                    self._store.journal.update(entry, status=response.status, effect=0)
                else:
                    self._authorize(request, op, call.target)
                    data = self._operations.run(op, call)
                    self._store.journal.update(entry, effect=0)
                    response = self._success_response(entry, _falsified(data, faults))
            except (CosError, StorageError) as error:
                cos_error = cos_error_of(error) if isinstance(error, StorageError) else error
                self._store.journal.update(entry, effect=cos_error.code)
                response = self._error_response(entry, cos_error)
            except (OSError, sqlite3.Error) as error:
                _log.exception("the store failed")
                efbig = isinstance(error, OSError) and error.errno == errno.EFBIG
                response = self._error_response(entry, CosError(-285) if efbig else CosError(-195, str(error)))
        return self._inject(entry, faults, "after") or response

    def _inject(self, entry: JournalEntry, faults: InjectedFaults, when: str) -> HttpResponse | None:
        """Delays, holds or cuts the request; returns the response that replaces the real one, if any."""
        if delay := faults.get(Fault.DELAY, when):
            self._store.stopping.wait(delay.delay_s)
        if faults.get(Fault.HOLD, when):
            self._store.journal.update(entry, state="held")
            self._store.plan.hold(entry.number)
        if faults.get(Fault.CUT, when):
            self._store.journal.update(entry, status=None, code=None)
            raise _Cut
        if error := faults.get(Fault.ERROR, when):
            return self._error_response(entry, _injected_error(error))
        if raw := faults.get(Fault.RAW, when):
            self._store.journal.update(entry, status=raw.status, code=None)
            return HttpResponse(raw.status, raw.body.encode(), raw.content_type)
        return None

    def _apply_faults(self, call: Call, faults: InjectedFaults) -> Call:
        """The call as the faults change it."""
        if faults.get(Fault.LOSE_SESSION) and (upload := self._store.uploads.at(call.target)):
            self._store.uploads.discard(upload, "lost")
        if faults.get(Fault.CORRUPT) and call.form.content is not None:
            call.form.content.corrupt()
        other = faults.get(Fault.SLICE_SIZE)
        return replace(call, slice_size=other.slice_size if other else None, serial=bool(faults.get(Fault.SERIAL)))

    # the response

    def _success_response(self, entry: JournalEntry, data: Data) -> HttpResponse:
        self._store.journal.update(entry, status=200, code=0)
        return _json_response(200, 0, "SUCCESS", data)

    def _error_response(self, entry: JournalEntry, error: CosError) -> HttpResponse:
        self._store.journal.update(entry, status=error.status, code=error.code)
        return _json_response(error.status, error.code, error.message, None)

    def _send(
        self, connection: HttpConnection, response: HttpResponse, faults: InjectedFaults, *, keep_alive: bool
    ) -> None:
        head = response.head(now_s=self._store.settings.now(), keep_alive=keep_alive)
        if faults.get(Fault.TRUNCATE):
            connection.send(head + response.body[: len(response.body) // 2])
            raise _Cut
        if drip := faults.get(Fault.DRIP):
            whole = head + response.body
            for piece in range(_DRIP_PIECES):
                self._store.stopping.wait(drip.delay_s)
                connection.send(whole[len(whole) * piece // _DRIP_PIECES : len(whole) * (piece + 1) // _DRIP_PIECES])
            return
        connection.send(head if response.bodiless else head + response.body)
        if response.file is not None and response.file_bytes and not response.bodiless:
            connection.send_file(response.file, response.file_offset, response.file_bytes)


def _json_response(status: int, code: int, message: str, data: Data) -> HttpResponse:
    envelope: dict[str, Any] = {"code": code, "message": message, "request_id": secrets.token_urlsafe(24)}
    if data is not None:
        envelope["data"] = data
    return HttpResponse(status, json.dumps(envelope).encode())


def _injected_error(rule: Rule) -> CosError:
    error = CosError(rule.code, status=rule.status)
    error.message = rule.message
    return error


def _falsified(data: Data, faults: InjectedFaults) -> Data:
    if data and "session" in data and faults.get(Fault.WRONG_SESSION):
        data = {**data, "session": secrets.token_hex(48)}
    if data and "offset" in data and faults.get(Fault.WRONG_OFFSET):
        data = {**data, "offset": data["offset"] + 1}
    return data


def _fabricated(op: str, call: Call) -> Data:
    """The data of a success that did not happen."""
    if op == "init":
        return {"session": secrets.token_hex(48), "slice_size": call.number("slice_size")}
    if op == "data":
        content = call.form.content or Content()
        return {"session": call.text("session"), "offset": call.number("offset"), "datalen": content.size_bytes}
    return addresses(call.target, call.host) if op in {"finish", "upload"} else None
