"""A stand-in of GitHub's REST API: one repository, its issues in pages. **Not GitHub.**

Bodies and `Link` headers name the service by absolute URLs, as the real one does, so that clients who follow them show
whether the gate rewrites them.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from examples.standins.service import Credential, json_answer, json_object, new_app, origin

OWNER: Final = "acme"
REPOSITORY: Final = "widgets"
REPOSITORY_ID: Final = 424242
ISSUES_SEEDED: Final = 3

_ISSUES: Final = web.AppKey("issues", list[dict[str, Any]])
_COMMENTS: Final = web.AppKey("comments", list[dict[str, Any]])


def build(secret: str | None = None) -> web.Application:
    """The application. `secret` is the token it accepts."""
    app = new_app("github", Credential("bearer", secret, schemes=("bearer", "token")), _bad_credentials)
    app[_ISSUES] = [_issue(number, f"Widget {number} squeaks", "") for number in range(1, ISSUES_SEEDED + 1)]
    app[_COMMENTS] = []
    base = f"/repos/{OWNER}/{REPOSITORY}"
    app.router.add_get("/user", _user)
    app.router.add_get(base, _repository)
    app.router.add_delete(base, _delete)
    app.router.add_get(f"{base}/issues", _list)
    app.router.add_get(f"/repositories/{REPOSITORY_ID}/issues", _list)
    app.router.add_post(f"{base}/issues", _create)
    app.router.add_get(base + "/issues/{number}", _read)
    app.router.add_patch(base + "/issues/{number}", _update)
    app.router.add_get(base + "/issues/{number}/comments", _list_comments)
    app.router.add_post(base + "/issues/{number}/comments", _comment)
    app.router.add_get(f"{base}/pulls", _pulls)
    return app


def _bad_credentials(_reason: str) -> web.Response:
    return json_answer({"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}, status=401)


def _issue(number: int, title: str, body: str) -> dict[str, Any]:
    return {
        "id": 9000 + number,
        "node_id": f"I_{number}",
        "number": number,
        "title": title,
        "body": body,
        "state": "open",
        "locked": False,
        "comments": 0,
        "labels": [],
        "assignees": [],
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "closed_at": None,
    }


def _user_document(base: str) -> dict[str, Any]:
    url = f"{base}/users/gate-bot"
    return {"login": "gate-bot", "id": 7, "node_id": "U_7", "type": "Bot", "url": url, "repos_url": f"{url}/repos"}


def _shown(request: web.Request, issue: dict[str, Any]) -> dict[str, Any]:
    base = origin(request)
    url = f"{base}/repos/{OWNER}/{REPOSITORY}/issues/{issue['number']}"
    return issue | {
        "url": url,
        "repository_url": f"{base}/repos/{OWNER}/{REPOSITORY}",
        "labels_url": url + "/labels{/name}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "html_url": f"https://github.example/{OWNER}/{REPOSITORY}/issues/{issue['number']}",
        "user": _user_document(base),
    }


async def _user(request: web.Request) -> web.Response:
    return json_answer(_user_document(origin(request)))


async def _repository(request: web.Request) -> web.Response:
    base = origin(request)
    url = f"{base}/repos/{OWNER}/{REPOSITORY}"
    return json_answer(
        {
            "id": REPOSITORY_ID,
            "node_id": "R_1",
            "name": REPOSITORY,
            "full_name": f"{OWNER}/{REPOSITORY}",
            "private": True,
            "owner": _user_document(base) | {"login": OWNER},
            "description": f"Widgets. Served by a stand-in at {url}, not by GitHub.",
            "url": url,
            "html_url": f"https://github.example/{OWNER}/{REPOSITORY}",
            "issues_url": url + "/issues{/number}",
            "pulls_url": url + "/pulls{/number}",
            "contents_url": url + "/contents/{+path}",
            "commits_url": url + "/commits{/sha}",
            "default_branch": "main",
            "open_issues_count": len(request.app[_ISSUES]),
        }
    )


async def _delete(_request: web.Request) -> web.Response:
    return web.Response(status=204)


async def _list(request: web.Request) -> web.Response:
    """Pages; the next one is named by the repository's id, as GitHub does."""
    wanted = request.query.get("state", "open")
    issues = [issue for issue in request.app[_ISSUES] if wanted in ("all", issue["state"])]
    size = max(1, min(int(request.query.get("per_page", "30")), 100))
    page = max(1, int(request.query.get("page", "1")))
    last = max(1, -(-len(issues) // size))
    where = f"{origin(request)}/repositories/{REPOSITORY_ID}/issues?state={wanted}&per_page={size}"
    links = []
    if page < last:
        links += [f'<{where}&page={page + 1}>; rel="next"', f'<{where}&page={last}>; rel="last"']
    if page > 1:
        links += [f'<{where}&page={page - 1}>; rel="prev"', f'<{where}&page=1>; rel="first"']
    shown = [_shown(request, issue) for issue in issues[(page - 1) * size : page * size]]
    return json_answer(shown, headers={"Link": ", ".join(links)} if links else None)


async def _create(request: web.Request) -> web.Response:
    fields = await json_object(request)
    if not isinstance(fields.get("title"), str) or not fields["title"]:
        return json_answer({"message": "Validation Failed", "errors": [{"field": "title"}]}, status=422)
    issues = request.app[_ISSUES]
    issue = _issue(len(issues) + 1, fields["title"], fields.get("body") or "")
    issues.append(issue)
    shown = _shown(request, issue)
    return json_answer(shown, status=201, headers={"Location": shown["url"]})


def _find(request: web.Request) -> dict[str, Any] | None:
    number = request.match_info["number"]
    return next((issue for issue in request.app[_ISSUES] if str(issue["number"]) == number), None)


def _absent() -> web.Response:
    return json_answer({"message": "Not Found"}, status=404)


async def _read(request: web.Request) -> web.Response:
    issue = _find(request)
    return _absent() if issue is None else json_answer(_shown(request, issue))


async def _update(request: web.Request) -> web.Response:
    issue = _find(request)
    if issue is None:
        return _absent()
    fields = await json_object(request)
    issue.update({name: fields[name] for name in ("title", "body", "state") if name in fields})
    return json_answer(_shown(request, issue))


def _comment_shown(request: web.Request, comment: dict[str, Any]) -> dict[str, Any]:
    base = f"{origin(request)}/repos/{OWNER}/{REPOSITORY}/issues"
    urls = {"url": f"{base}/comments/{comment['id']}", "issue_url": f"{base}/{comment['issue']}"}
    return {"id": comment["id"], "body": comment["body"], "user": _user_document(origin(request)), **urls}


async def _list_comments(request: web.Request) -> web.Response:
    number = request.match_info["number"]
    found = [comment for comment in request.app[_COMMENTS] if comment["issue"] == number]
    return json_answer([_comment_shown(request, comment) for comment in found])


async def _comment(request: web.Request) -> web.Response:
    if _find(request) is None:
        return _absent()
    fields = await json_object(request)
    comments = request.app[_COMMENTS]
    comment = {"id": len(comments) + 1, "issue": request.match_info["number"], "body": fields.get("body", "")}
    comments.append(comment)
    return json_answer(_comment_shown(request, comment), status=201)


async def _pulls(_request: web.Request) -> web.Response:
    return json_answer([])
