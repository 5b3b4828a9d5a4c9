"""Rules and dashboard as they are rendered: syntax, unit tests, runbooks, and the names of metrics in our sources."""

import functools
import json
import pathlib
import re
import shlex
import subprocess
import tempfile

import yaml

from checks.render import CHART, ROOT, Failures

RUNBOOKS = ROOT / "docs/operations/runbooks"
# Not registered by us: what Prometheus makes itself, and the process metrics that tidegate/src/admin/process.rs names.
PROMETHEUS = {"up", "ALERTS"}
VARIABLES = {"$__rate_interval": "5m", "$__range": "3h", "$namespace": ".*", "$release": ".*", "$pod": ".*"}
HEADINGS = ["Meaning", "Impact on users", "First three commands", "Likely causes", "Fix", "How it is tested"]


def promtool(*arguments, folder=None):
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@functools.cache
def sources():
    """The texts of what the roles are built from, without tests."""
    listed = subprocess.run(["git", "ls-files", "*.rs"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    paths = [path for path in listed if not {"tests", "tests.rs", "loadtest", "e2e", "fuzz"} & set(path.split("/")) and (ROOT / path).is_file()]
    return [re.split(r"#\[cfg\(test\)\]\s*mod tests \{", (ROOT / path).read_text())[0] for path in paths]


@functools.cache
def registered():
    """Names of metrics in the sources: whole ones, and those of format!("prefix_{name}") with the names beside them."""
    found = set()
    for text in sources():
        found |= set(re.findall(r'"((?:tidegate|process)_[a-z0-9_]+)"', text))
        for prefix, suffix in re.findall(r'format!\("((?:tidegate|process)_[a-z_]*)\{name\}(\w*)"', text):
            found |= {f"{prefix}{name}{suffix}" for name in re.findall(r'"([a-z][a-z0-9_]+)"', text)}
    return found


def check_labels(expressions, tally):
    """Values of our labels, each of which has to stand in the sources: a matcher that matches nothing is silent for ever."""
    known = {found for text in sources() for found in re.findall(r'"([a-z_]+)"', text)}
    for where, expression in expressions:
        for label, value in re.findall(r'\b(code|kind|reason|outcome|transport)\s*[=!]~?\s*"([a-z_|]+)"', expression):
            for one in value.split("|"):
                tally.ok(one in known, f"{where}: no {label} is ever `{one}`")


def is_registered(name, known):
    return name in known or name in PROMETHEUS or re.sub(r"_(bucket|sum|count)$", "", name) in known


def metrics_of(expression):
    """Names of metrics in an expression: ours, those of the process, and recorded ones."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    bare = re.sub(r"\{[^{}]*\}", "{}", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", "", bare)
    return set(re.findall(r"\b((?:tidegate|process)_\w+|slo:\w+:\w+|up|ALERTS)\b", bare))


def substituted(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def queries(dashboard):
    """(where, expression) of every panel, those in collapsed rows too, and of annotations and variables."""
    panels = [inner for panel in dashboard["panels"] for inner in [panel, *panel.get("panels", [])] if inner["type"] != "row"]
    for panel in panels:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.match(r"label_values\((.*), \w+\)", variable["definition"])[1]


def dashboards(rendering):
    for one in rendering.of("ConfigMap"):
        for name, text in one["data"].items():
            if name.endswith(".json"):
                yield name, json.loads(text)


def runbook_queries():
    for path in sorted(RUNBOOKS.glob("*.md")):
        for line in path.read_text().splitlines():
            if line.startswith("promtool query instant "):
                yield path.name, shlex.split(line)[-1]


def check_expressions(expressions, tally):
    """All of them as recording rules in one file; where that fails, one by one, to name it."""
    def syntax(some):
        rules = [{"record": f"query:{number}", "expr": substituted(expression)} for number, (_, expression) in enumerate(some)]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}, file)
            file.flush()
            return promtool("check", "rules", "--lint=none", file.name)

    code, _ = syntax(expressions)
    for where, expression in expressions:
        code_alone, said = syntax([(where, expression)]) if code else (0, "")
        tally.ok(code_alone == 0, f"{where}: `{expression}` is no query: {said.strip()[-300:]}")


def check_names(expressions, recorded, tally):
    known = registered()
    for where, expression in expressions:
        for name in metrics_of(expression):
            ours = name in recorded if name.startswith("slo:") else is_registered(name, known)
            tally.ok(ours, f"{where}: {name} is registered nowhere")


def check_alerts(alerts, tests, tally):
    fired, quiet = set(), set()
    for file, text in tests.items():
        for test in yaml.safe_load(text)["tests"]:
            fired |= {one["alertname"] for one in test.get("alert_rule_test", []) if one["exp_alerts"]}
            samples = [sample["labels"] for one in test.get("promql_expr_test", []) for sample in one["exp_samples"]]
            expected = {tuple(re.findall(r'(?:alertname|release)="(\w+)"', labels)) for labels in samples}
            if file == "slo.yaml":
                # Told apart by their release: it is quiet where a release has its series and it is not expected.
                for name in alerts:
                    own = {release_of(one["series"]) for one in test["input_series"] if metrics_of(one["series"]) & alert_series(name, alerts)}
                    quiet |= {name} if any((name, release) not in expected for release in own) else set()
            elif test["name"].endswith(" stays quiet") and not expected:
                quiet.add(test["name"].split()[0])
    for name, rules in alerts.items():
        tally.ok(name in fired, f"{name} fires in no unit test")
        tally.ok(name in quiet or rules[0]["expr"] == "vector(1)", f"no unit test keeps {name} quiet")
        for rule in rules:
            notes = rule.get("annotations", {})
            severity = rule.get("labels", {}).get("severity")
            tally.ok(severity in ("page", "ticket", "none"), f"{name} has the severity {severity}")
            tally.ok({"summary", "description", "runbook_url"} <= set(notes), f"{name} says only {sorted(notes)}")
            path = re.search(r"docs/operations/runbooks/([a-z-]+\.md)$", notes.get("runbook_url", ""))
            file = path and RUNBOOKS / path[1]
            tally.ok(file and file.is_file(), f"{name} has no runbook at {notes.get('runbook_url')}")
            if file and file.is_file():
                text = file.read_text()
                tally.ok(text.startswith(f"# {name}\n"), f"{file.name} is not about {name}")
                tally.ok(re.findall(r"(?m)^## (.*)$", text) == HEADINGS, f"{file.name} has other headings")
                commands = re.search(r"(?s)## First three commands\n\n```sh\n(.*?)\n```", text)
                tally.ok(commands and len(commands[1].splitlines()) == 3, f"{file.name} has not three commands")
    files = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    used = {notes["runbook_url"].rsplit("/", 1)[1] for rules in alerts.values() for notes in [rule["annotations"] for rule in rules]}
    tally.ok(files == used, f"runbooks without an alert: {sorted(files - used)}")


def release_of(series):
    return re.search(r'release="(\w+)"', series)[1]


def alert_series(alert, alerts):
    found = set()
    for rule in alerts[alert]:
        for name in metrics_of(rule["expr"]):
            found |= {name} if not name.startswith("slo:") else metrics_of(" ".join(RECORDED.get(name, [])))
    return found


RECORDED = {}


def check(rendering, tally):
    """(rules, queries)"""
    (rule_object,) = rendering.of("PrometheusRule")
    groups = rule_object["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        if "record" in rule:
            RECORDED.setdefault(rule["record"], []).append(rule["expr"])
    alerts = {}
    for rule in rules:
        if "alert" in rule:
            alerts.setdefault(rule["alert"], []).append(rule)
    tests = {path.name: path.read_text() for path in sorted((CHART / "files/tests").glob("*.yaml"))}
    base = rendering.values["monitoring"]["prometheusRule"]["runbookBase"]
    for rule in (rule for named in alerts.values() for rule in named):
        tally.ok(rule["annotations"]["runbook_url"].startswith(f"{base}docs/"), f"{rule['alert']}: the runbook is not below {base}")
    with tempfile.TemporaryDirectory(prefix="tidegate-rules-") as folder:
        lay_out(groups, tests, base, pathlib.Path(folder))
        for path in sorted(pathlib.Path(folder).glob("*.rules.yaml")):
            code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", path)
            tally.ok(code == 0, f"promtool check rules: {said.strip()}")
        failed = run_tests(folder, tests)
        tally.ok(not failed, f"promtool test rules: {failed}")
    shown = list(dashboards(rendering))
    tally.ok(bool(shown), "there is no dashboard")
    expressions = [(f"{name}: {where}", expression) for name, made in shown for where, expression in queries(made)]
    expressions += list(runbook_queries())
    check_expressions(expressions, tally)
    expressions += [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules]
    check_names(expressions, set(RECORDED), tally)
    check_labels(expressions, tally)
    check_alerts(alerts, tests, tally)
    for name, made in shown:
        check_dashboard(name, made, tally)
    return len(rules), len(expressions) - len(rules)


def check_dashboard(name, made, tally):
    panels = [inner for panel in made["panels"] for inner in [panel, *panel.get("panels", [])] if inner["type"] != "row"]
    ids = [panel["id"] for panel in made["panels"]] + [inner["id"] for panel in made["panels"] for inner in panel.get("panels", [])]
    tally.ok(len(ids) == len(set(ids)), f"{name}: two panels of one id")
    for panel in panels:
        title = f"{name}: {panel['title']}"
        tally.ok(panel["fieldConfig"]["defaults"].get("unit"), f"{title} has no unit")
        tally.ok(panel["description"], f"{title} has no description")
        runbook = panel["links"][0]["url"].rsplit("/", 1)[1]
        tally.ok((RUNBOOKS / runbook).is_file(), f"{title} leads to {runbook}, which is not there")


def lay_out(groups, tests, base, folder):
    """The rendered rules as the unit tests name them: a file for service levels, one for causes."""
    for name in ["slo", "causes"]:
        own = [group for group in groups if group["name"].startswith(f"tidegate-{name}")]
        (folder / f"{name}.rules.yaml").write_text(yaml.safe_dump({"groups": own}, sort_keys=False))
    for name, text in tests.items():
        text = text.replace(f"[{name}]", f"[{name.replace('.yaml', '.rules.yaml')}]").replace('runbook_url: "docs/', f'runbook_url: "{base}docs/')
        (folder / name.replace(".yaml", ".test.yaml")).write_text(text)


def run_tests(folder, tests):
    """Side by side: each takes seconds."""
    names = [name.replace(".yaml", ".test.yaml") for name in tests]
    running = [subprocess.Popen(["promtool", "test", "rules", name], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for name in names]
    said = [process.communicate()[0] for process in running]
    return "\n".join(text for process, text in zip(running, said, strict=True) if process.returncode != 0)


def notice_planted(rendering, tally):
    """A threshold moved, a test gone, a metric misspelt, a query broken, a runbook lost."""
    (rule_object,) = rendering.changed().of("PrometheusRule")
    groups = rule_object["spec"]["groups"]
    tests = {path.name: path.read_text() for path in sorted((CHART / "files/tests").glob("*.yaml"))}
    base = rendering.values["monitoring"]["prometheusRule"]["runbookBase"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    rules["TidegateLagSeconds"]["expr"] = rules["TidegateLagSeconds"]["expr"].replace("> 5", "> 500")
    rules["TidegateFilesNearLimit"]["expr"] = rules["TidegateFilesNearLimit"]["expr"].replace("> 0.8", "> 0.1")
    with tempfile.TemporaryDirectory(prefix="tidegate-rules-") as folder:
        lay_out(groups, {"causes.yaml": tests["causes.yaml"]}, base, pathlib.Path(folder))
        failed = run_tests(folder, ["causes.yaml"])
    for name in ["TidegateLagSeconds", "TidegateFilesNearLimit"]:
        tally.ok(name in failed, f"a moved threshold of {name} went unnoticed")

    def noticed(what, work):
        own = type(tally)()
        work(own)
        tally.ok(own.failed, f"{what} went unnoticed")

    noticed("a misspelt metric", lambda own: check_names([("planted", "rate(tidegate_gateway_deliveris_total[5m])")], set(), own))
    noticed("a label's value that never is", lambda own: check_labels([("planted", 'a{reason=~"internal|slow_konsumer"}')], own))
    noticed("a metric of a test", lambda own: check_names([("planted", "tidegate_gateway_connection")], set(), own))
    noticed("a recording that is not made", lambda own: check_names([("planted", "slo:tidegate_publish:error_ratio_rate9m")], set(RECORDED), own))
    noticed("a broken query", lambda own: check_expressions([("fine", "up"), ("planted", "sum by (pod (up)")], own))
    made = {"TidegateNew": [{"expr": "up", "labels": {"severity": "page"}, "annotations": {"summary": "a", "description": "b", "runbook_url": "docs/operations/runbooks/none.md"}}]}
    noticed("an alert without test and runbook", lambda own: check_alerts(made, {}, own))
    if not registered():
        raise Failures("no metric was found in the sources")
    return 8
