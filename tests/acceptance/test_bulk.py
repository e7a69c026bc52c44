"""A bulk action with real workers: confirmed through the API, carried out by the leader, also when one is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.installation import Installation

JOBS = 8
ACTIONS = "/v1/jobs/actions"


def confirmed(site: Installation, action: str, query: str, count: int) -> dict[str, Any]:
    """Confirm an action, and return it when it is done."""
    body = {"action": action, "filter": query, "confirm": count}
    made = site.api.post(ACTIONS, json=body).raise_for_status().json()

    def view() -> dict[str, Any]:
        return dict(site.api.get(f"{ACTIONS}/{made['id']}").raise_for_status().json())

    site.until(lambda: view()["state"] == "done", f"the end of {action}")
    return view()


def test_all_failed_jobs_of_a_label_are_retried_also_when_the_leader_is_killed(site: Installation) -> None:
    workers = site.workers(2)
    for number in range(JOBS):
        site.store.control.add_rule("error", op="upload", path=f"k{number}", status=400, code=-5999, count=1)
    jobs = [site.enqueue(1000, f"k{number}", labels={"order": str(number % 2)}) for number in range(JOBS)]
    for job in jobs:
        job.fails()
    counted = site.api.post(
        ACTIONS, json={"action": "retry", "filter": "state=failed&label.order=1", "dry_run": True}
    ).json()
    assert counted["count"] == JOBS // 2
    workers[0].kill()  # one of both leads
    done = confirmed(site, "retry", "state=failed&label.order=1", JOBS // 2)
    assert (done["changed"], done["refused"]) == (JOBS // 2, 0)
    for number, job in enumerate(jobs):
        if number % 2:
            job.succeeds()
        retries = [event for event in job.events if (event["cause"] or {}).get("bulk_action") == done["id"]]
        assert len(retries) == number % 2
        assert job.state == ("succeeded" if number % 2 else "failed")
