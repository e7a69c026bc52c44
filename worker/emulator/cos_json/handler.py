"""One request from head to answer: receive, be faulty as the plan says, check the signature, carry out, answer."""

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
from worker.emulator.core.faults import Fault, Rule, Strikes
from worker.emulator.cos_json.call import Call, Data
from worker.emulator.cos_json.download import download
from worker.emulator.cos_json.errors import CosError, GatewayError, refusal_of, too_large
from worker.emulator.cos_json.form import Buffers, FormData, FormReader
from worker.emulator.cos_json.operations import GET_OPS, ONE_TIME, OPS, Operations
from worker.emulator.cos_json.signature import check_signature, read_signature
from worker.emulator.cos_json.targets import addresses, target_of
from worker.emulator.http.connection import Disconnected, HttpConnection, HttpRequest, HttpResponse

if TYPE_CHECKING:
    from worker.emulator.core.journal import JournalEntry
    from worker.emulator.core.store import Store
    from worker.emulator.core.targets import Target

#: A simple upload of 20 MiB with room for its fields; anything longer is refused by its Content-Length alone.
_MOST_BODY_BYTES = 40 * MIB
_DRIPS = 16
_MOST_DIGITS = 19

_log = logging.getLogger(__name__)


class _Cut(Exception):
    """The plan wants this connection closed here."""


class CosJsonHandler:
    """Answers requests from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._buffers = Buffers()
        self._operations = Operations(store.records, store.uploads, store.objects, store.folders, store.settings)

    def handle(self, connection: HttpConnection, request: HttpRequest) -> bool:
        """Answers one request and returns whether the connection can serve another."""
        entry = self._store.journal.begin(request.method)
        reader = FormReader(self._buffers, self._store.disk.draft, strict_boundary=self._store.config.strict_boundary)
        state = "cut"
        try:
            with reader:
                try:
                    answer, strikes = self._answer(connection, request, entry, reader)
                finally:
                    self._store.ledger.request(entry)
                keep_alive = self._deliver(connection, request, answer, strikes)
            state = "answered"
        except (_Cut, Disconnected):
            return False
        finally:
            self._store.journal.end(entry, state)
        return keep_alive

    def _answer(
        self, connection: HttpConnection, request: HttpRequest, entry: JournalEntry, reader: FormReader
    ) -> tuple[HttpResponse, Strikes]:
        """Receives and carries out; whatever has become of it is in the entry when this returns or raises."""
        strikes = Strikes(())
        try:
            if request.content_length > _MOST_BODY_BYTES:
                raise too_large()
            target = target_of(request.path, self._store.config.accounts)
            self._store.journal.update(entry, bucket=target.bucket, path=target.path)
            form = self._receive(connection, request, entry, reader)
            strikes = self._store.plan.strike(entry)
            answer = self._perform(request, entry, Call(target, form, request.headers.get("host", "")), strikes)
        except CosError as refusal:
            answer = self._refused(entry, refusal)
        except GatewayError as refusal:
            answer = HttpResponse(refusal.status, refusal.body, refusal.content_type)
            self._store.journal.update(entry, status=refusal.status)
        return answer, strikes

    def _deliver(
        self, connection: HttpConnection, request: HttpRequest, answer: HttpResponse, strikes: Strikes
    ) -> bool:
        answer.bodiless = request.method == "HEAD"
        with contextlib.ExitStack() as closing:
            if answer.file is not None:
                closing.callback(answer.file.close)
            too_much = connection.body_left_bytes > _MOST_BODY_BYTES
            if not too_much:
                connection.skip_body()
            keep_alive = request.keep_alive and not too_much
            self._send(connection, answer, strikes, keep_alive=keep_alive)
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
                raise CosError(-5964, "an operation of POST, or none at all")
            self._store.journal.update(entry, op=OPS.get(wire_op, "download"))
            return FormData({name: text for name, text in request.query.items() if text})
        if request.method != "POST":
            raise CosError(-5999, f"method {request.method}", status=405)

        known = 0

        def progress(form: FormData, body_bytes: int) -> None:
            nonlocal known
            entry.body_bytes = body_bytes
            if form.content is not None:
                entry.size = form.content.size_bytes
            if len(form.fields) + (form.content is not None) != known:
                known = len(form.fields) + (form.content is not None)
                self._note(entry, form, body_bytes)
            if self._store.plan.cuts_body(entry):
                self._store.journal.update(entry, faults=(Fault.CUT_BODY.value,))
                raise _Cut

        progress(reader.form, 0)
        form = reader.read(connection, request, progress)
        self._note(entry, form, request.content_length)
        if entry.op is None:
            raise CosError(-5964 if form.fields.get("op") else -5980)
        if (self._store.settings.journal_sha1 or self._store.ledger.on) and form.content is not None:
            self._store.journal.update(entry, sha1=form.content.sha1())
        return form

    def _note(self, entry: JournalEntry, form: FormData, body_bytes: int) -> None:
        """Writes what is known so far of a request into its entry."""
        offset = form.fields.get("offset", "")
        self._store.journal.update(
            entry,
            body_bytes=body_bytes,
            op=OPS.get(form.fields.get("op", "")),
            session=form.fields.get("session"),
            offset=int(offset) if offset.isascii() and offset.isdigit() and len(offset) <= _MOST_DIGITS else None,
            size=form.content.size_bytes if form.content is not None else None,
        )

    def _authorize(self, request: HttpRequest, op: str, target: Target) -> None:
        if not self._store.settings.verify_signatures:
            return
        token = request.headers.get("authorization") or request.query.get("sign", "")
        claim = read_signature(token, self._store.secret_keys)
        one_time = op in ONE_TIME
        check_signature(
            claim,
            appid=target.appid,
            bucket=target.bucket,
            path=target.path,
            now_s=self._store.settings.now(),
            one_time=one_time,
        )
        if one_time and not self._store.records.use_signature(claim.mac):
            raise CosError(-77)

    # the operation, between its faults

    def _perform(self, request: HttpRequest, entry: JournalEntry, call: Call, strikes: Strikes) -> HttpResponse:
        op = entry.op or ""
        self._store.journal.update(entry, faults=strikes.names)
        substitute = self._strike(entry, strikes, "before")
        if substitute is not None:
            return substitute
        call = self._spoilt(call, strikes)
        if strikes.get(Fault.SWALLOW):
            answer = self._accepted(entry, _pretended(op, call))
        else:
            try:
                if op == "download":
                    answer = download(self._store.objects, call.target, request)
                    self._store.journal.update(entry, status=answer.status, effect=0)
                else:
                    self._authorize(request, op, call.target)
                    data = self._operations.run(op, call)
                    self._store.journal.update(entry, effect=0)
                    answer = self._accepted(entry, _garbled(data, strikes))
            except (CosError, StorageError) as error:
                refusal = refusal_of(error) if isinstance(error, StorageError) else error
                self._store.journal.update(entry, effect=refusal.code)
                answer = self._refused(entry, refusal)
            except (OSError, sqlite3.Error) as error:
                _log.exception("the store failed")
                too_large = isinstance(error, OSError) and error.errno == errno.EFBIG
                answer = self._refused(entry, CosError(-285) if too_large else CosError(-195, str(error)))
        return self._strike(entry, strikes, "after") or answer

    def _strike(self, entry: JournalEntry, strikes: Strikes, when: str) -> HttpResponse | None:
        """Delays, holds, cuts; returns the answer that is given instead of the true one, if any."""
        if delay := strikes.get(Fault.DELAY, when):
            self._store.stopping.wait(delay.delay_s)
        if strikes.get(Fault.HOLD, when):
            self._store.journal.update(entry, state="held")
            self._store.plan.hold(entry.number)
        if strikes.get(Fault.CUT, when):
            self._store.journal.update(entry, status=None, code=None)
            raise _Cut
        if error := strikes.get(Fault.ERROR, when):
            return self._refused(entry, _planned(error))
        if raw := strikes.get(Fault.RAW, when):
            self._store.journal.update(entry, status=raw.status, code=None)
            return HttpResponse(raw.status, raw.body.encode(), raw.content_type)
        return None

    def _spoilt(self, call: Call, strikes: Strikes) -> Call:
        """The call as the faults want it carried out."""
        if strikes.get(Fault.LOSE_SESSION) and (upload := self._store.uploads.at(call.target)):
            self._store.uploads.discard(upload, "lost")
        if strikes.get(Fault.CORRUPT) and call.form.content is not None:
            call.form.content.spoil()
        other = strikes.get(Fault.SLICE_SIZE)
        return replace(call, slice_size=other.slice_size if other else None, serial=bool(strikes.get(Fault.SERIAL)))

    # the answer

    def _accepted(self, entry: JournalEntry, data: Data) -> HttpResponse:
        self._store.journal.update(entry, status=200, code=0)
        return _json_answer(200, 0, "SUCCESS", data)

    def _refused(self, entry: JournalEntry, refusal: CosError) -> HttpResponse:
        self._store.journal.update(entry, status=refusal.status, code=refusal.code)
        return _json_answer(refusal.status, refusal.code, refusal.message, None)

    def _send(self, connection: HttpConnection, answer: HttpResponse, strikes: Strikes, *, keep_alive: bool) -> None:
        head = answer.head(now_s=self._store.settings.now(), keep_alive=keep_alive)
        if strikes.get(Fault.TRUNCATE):
            connection.send(head + answer.body[: len(answer.body) // 2])
            raise _Cut
        if drip := strikes.get(Fault.DRIP):
            whole = head + answer.body
            for piece in range(_DRIPS):
                self._store.stopping.wait(drip.delay_s)
                connection.send(whole[len(whole) * piece // _DRIPS : len(whole) * (piece + 1) // _DRIPS])
            return
        connection.send(head if answer.bodiless else head + answer.body)
        if answer.file is not None and answer.file_bytes and not answer.bodiless:
            connection.send_file(answer.file, answer.file_offset, answer.file_bytes)


def _json_answer(status: int, code: int, message: str, data: Data) -> HttpResponse:
    envelope: dict[str, Any] = {"code": code, "message": message, "request_id": secrets.token_urlsafe(24)}
    if data is not None:
        envelope["data"] = data
    return HttpResponse(status, json.dumps(envelope).encode())


def _planned(rule: Rule) -> CosError:
    refusal = CosError(rule.code, status=rule.status)
    refusal.message = rule.message
    return refusal


def _garbled(data: Data, strikes: Strikes) -> Data:
    if data and "session" in data and strikes.get(Fault.WRONG_SESSION):
        data = {**data, "session": secrets.token_hex(48)}
    if data and "offset" in data and strikes.get(Fault.WRONG_OFFSET):
        data = {**data, "offset": data["offset"] + 1}
    return data


def _pretended(op: str, call: Call) -> Data:
    """What success of this operation would look like."""
    if op == "init":
        return {"session": secrets.token_hex(48), "slice_size": call.number("slice_size")}
    if op == "data":
        content = call.form.content or Content()
        return {"session": call.text("session"), "offset": call.number("offset"), "datalen": content.size_bytes}
    return addresses(call.target, call.host) if op in {"finish", "upload"} else None
