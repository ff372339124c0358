"""A stand-in of ServiceNow's Table API: incidents and change requests in memory. **Not ServiceNow.**

Lists with ``sysparm_query`` (``field=value`` joined by ``^``), limit and offset; reads, creates, updates, deletes.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from examples.standins.service import Credential, json_answer, json_object, new_app, origin

USERNAME: Final = "gate"
TABLES: Final = ("incident", "change_request")

_TITLES = (
    "Payroll export stops after the first page",
    "VPN drops every morning",
    "Printer on floor 3 offline",
    "Wrong tax rate on invoices",
)
_STORE: Final = web.AppKey("store", dict[str, dict[str, dict[str, Any]]])


def _seed() -> dict[str, dict[str, dict[str, Any]]]:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for table, prefix in zip(TABLES, ("INC", "CHG"), strict=True):
        records = {}
        for index, title in enumerate(_TITLES, start=1):
            sys_id = f"{TABLES.index(table) + 1:02d}{index:030d}"
            records[sys_id] = {
                "sys_id": sys_id,
                "number": f"{prefix}{10000 + index:07d}",
                "short_description": title,
                "description": "",
                "state": "1",
                "priority": str(1 + index % 4),
                "active": "true",
                "work_notes": "",
                "caller_id": f"0900000000000000000000000000000{index}",
            }
        tables[table] = records
    return tables


def build(secret: str | None = None, username: str | None = None) -> web.Application:
    """The application. `secret` is the password it accepts (None: any that is no caller's token)."""
    app = new_app("servicenow", Credential("basic", secret, username=username), _unauthorised)
    app[_STORE] = _seed()
    for table in TABLES:
        base = f"/api/now/table/{table}"
        app.router.add_get(base, _list)
        app.router.add_post(base, _create)
        app.router.add_get(base + "/{sys_id}", _read)
        app.router.add_patch(base + "/{sys_id}", _update)
        app.router.add_put(base + "/{sys_id}", _update)
        app.router.add_delete(base + "/{sys_id}", _delete)
    return app


def _failure(status: int, message: str, detail: str) -> web.Response:
    return json_answer({"error": {"message": message, "detail": detail}, "status": "failure"}, status=status)


def _unauthorised(reason: str) -> web.Response:
    answer = _failure(401, "User Not Authenticated", reason)
    answer.headers["WWW-Authenticate"] = 'Basic realm="Service-now"'
    return answer


def _table(request: web.Request) -> tuple[str, dict[str, dict[str, Any]]]:
    name = request.path.split("/")[4]
    return name, request.app[_STORE][name]


def _shown(request: web.Request, record: dict[str, Any]) -> dict[str, Any]:
    shown = dict(record)
    if request.query.get("sysparm_exclude_reference_link") != "true":
        link = f"{origin(request)}/api/now/table/sys_user/{record['caller_id']}"
        shown["caller_id"] = {"link": link, "value": record["caller_id"]}
    fields = request.query.get("sysparm_fields")
    return {name: shown[name] for name in fields.split(",") if name in shown} if fields else shown


def _matches(record: dict[str, Any], query: str) -> bool:
    for condition in query.split("^"):
        name, equals, value = condition.partition("=")
        if not condition or name.startswith("ORDERBY") or not equals:
            continue
        if record.get(name) != value:
            return False
    return True


async def _list(request: web.Request) -> web.Response:
    name, records = _table(request)
    query = request.query.get("sysparm_query", "")
    limit = int(request.query.get("sysparm_limit", "100"))
    offset = int(request.query.get("sysparm_offset", "0"))
    found = [record for record in records.values() if _matches(record, query)]
    page = [_shown(request, record) for record in found[offset : offset + limit]]
    headers = {"X-Total-Count": str(len(found))}
    if offset + limit < len(found):
        following = f"{origin(request)}/api/now/table/{name}?sysparm_limit={limit}&sysparm_offset={offset + limit}"
        headers["Link"] = f'<{following}>;rel="next"'
    return json_answer({"result": page}, headers=headers)


async def _create(request: web.Request) -> web.Response:
    name, records = _table(request)
    sys_id = f"{TABLES.index(name) + 1:02d}{len(records) + 1:030d}"
    prefix = "INC" if name == "incident" else "CHG"
    record = {"state": "1", "active": "true", "caller_id": "", **await json_object(request)}
    record |= {"sys_id": sys_id, "number": f"{prefix}{10000 + len(records) + 1:07d}"}
    records[sys_id] = record
    location = f"{origin(request)}/api/now/table/{name}/{sys_id}"
    return json_answer({"result": _shown(request, record)}, status=201, headers={"Location": location})


def _find(request: web.Request) -> dict[str, Any] | None:
    return _table(request)[1].get(request.match_info["sys_id"])


def _absent() -> web.Response:
    return _failure(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")


async def _read(request: web.Request) -> web.Response:
    record = _find(request)
    return _absent() if record is None else json_answer({"result": _shown(request, record)})


async def _update(request: web.Request) -> web.Response:
    record = _find(request)
    if record is None:
        return _absent()
    changes = await json_object(request)
    record.update({name: value for name, value in changes.items() if name not in ("sys_id", "number")})
    return json_answer({"result": _shown(request, record)})


async def _delete(request: web.Request) -> web.Response:
    records = _table(request)[1]
    if records.pop(request.match_info["sys_id"], None) is None:
        return _absent()
    return web.Response(status=204)
