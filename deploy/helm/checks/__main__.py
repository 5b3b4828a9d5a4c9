"""All of it, in order; one closing line."""

import sys
import time

from checks import configs, prom, scenarios, schemas
from checks.planted import PLANTED
from checks.render import Chart, Tally, cases


def plant(renderings, tally):
    """Each fault into the first rendering that has what it breaks."""
    noticed = 0
    for family, faults in PLANTED.items():
        for fault in faults:
            for rendering in renderings:
                harmed = rendering.changed()
                try:
                    fault(harmed)
                except (AssertionError, AttributeError, StopIteration, TypeError):
                    continue
                break
            else:
                tally.ok(False, f"the fault {fault.__name__} fits no rendering")
                continue
            own = Tally()
            try:
                family(harmed, own)
            except Exception as error:  # noqa: BLE001: whatever it stumbles over, it has noticed
                own.ok(False, str(error))
            tally.ok(own.failed, f"the planted fault {fault.__name__} went unnoticed by {family.__name__}")
            noticed += 1
    return noticed


def main():
    configs.binary()
    chart, tally, began = Chart(), Tally(), time.monotonic()

    def step(name, work):
        started = time.monotonic()
        done = work()
        print(f"  {name:<20} {tally.count:>6} assertions so far, {time.monotonic() - started:5.1f} s{'' if done is None else f', {done}'}", flush=True)
        return done

    renderings = [chart.render(values, name) for name, values in cases()]
    of = {rendering.case: rendering for rendering in renderings}
    objects = sum(len(rendering.objects) for rendering in renderings)
    step("style", lambda: schemas.lint(tally))
    step("schemas", lambda: [schemas.validate(rendering, tally) for rendering in renderings] and f"Kubernetes {' and '.join(schemas.versions())}")
    for family in PLANTED:
        for rendering in renderings:
            before = len(tally.failed)
            family(rendering, tally)
            tally.failed[before:] = [f"{rendering.case}: {text}" for text in tally.failed[before:]]
    step("families", lambda: f"{len(PLANTED)} families")
    for scenario in scenarios.SCENARIOS:
        step(scenario.__name__, lambda scenario=scenario: scenario(chart, tally))
    step("configs", lambda: f"{sum(configs.check(rendering, tally) for rendering in renderings)} configurations read by the binary")
    rules, queries = step("prometheus", lambda: prom.check(of["ha"], tally))
    plants = [
        ("renderings", lambda: plant(renderings, tally)),
        ("schemas", lambda: schemas.notice_planted(of["ha"], tally)),
        ("configs", lambda: configs.notice_planted(of["min"], tally) + configs.notice_no_key(of["tls"], tally)),
        ("prometheus", lambda: prom.notice_planted(of["ha"], tally)),
        ("templates", lambda: scenarios.notice_planted(chart, tally)),
    ]
    planted = sum(step(f"planted: {name}", work) for name, work in plants)
    for text in tally.failed:
        print(f"helm: {text}", file=sys.stderr)
    if tally.failed:
        sys.exit(f"helm: {len(tally.failed)} of {tally.count} assertions failed")
    print(f"  {planted} planted faults noticed, {time.monotonic() - began:.0f} s")
    print(f"helm: {chart.renders} renders, {objects} objects, {tally.count} assertions, {rules} rules, {queries} queries")


if __name__ == "__main__":
    main()
