"""What has to hold between renderings, and what must not render at all."""

import json
import re
import shutil

from checks import families
from checks.render import CHART, ROOT, Chart, Rendering, Tally, cases, merged, with_version

MIN = dict(cases())["min"]
LONG = "a-release-name-that-is-as-long-as-helm-lets-it-be-53c"


def checksums(rendering):
    return {role: rendering.workload(role)["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for role in rendering.roles()}


def checksum(chart, tally):
    """Pods are replaced when their configuration changes, and only then."""
    before = checksums(chart.render(MIN))
    everywhere = {"gateway", "router", "registry"}
    changes = [
        ({"config__history": {"age": "2h"}}, everywhere),
        ({"gateway__config": {"limits": {"channels": 64}}}, {"gateway"}),
        ({"router__config": {"store": {"cache_size": "64MiB"}}}, {"router"}),
        ({"registry__config": {"registry": {"debounce": "60s"}}}, {"registry"}),
        ({"kafka__bootstrap": ["other:9092"]}, {"router"}),
        ({"gateway__connectionsPerPod": 60000}, {"gateway"}),
        ({"gateway__tls": {"existingSecret": "push-tls"}}, {"gateway"}),
        ({"gateway__replicas": 9, "router__replicas": 5}, set()),
        ({"registry__replicas": 5, "registry__membersVersion": 2}, set()),
        ({"image__tag": "9.9.9", "gateway__resources": {"limits": {"memory": "2Gi"}}}, set()),
        ({"monitoring__podMonitor": {"enabled": True}, "networkPolicy__enabled": False}, set()),
    ]
    for change, wanted in changes:
        after = checksums(chart.render(merged(MIN, **change)))
        changed = {role for role in before if before[role] != after[role]}
        tally.ok(changed == wanted, f"{change} changes the checksum of {sorted(changed)}, and should of {sorted(wanted)}")


def chart_alone(chart, tally):
    """A new chart that changes nothing of them restarts no pods, and what can never change does not."""
    folder = with_version("9.9.9")
    try:
        newer = Chart(folder / "tidegate")
        for name, values in cases():
            old, new = chart.render(values, name), newer.render(values, name)
            for one, template in old.workloads():
                other = new.one(one["kind"], one["metadata"]["name"])
                tally.ok(other is not None and other["spec"]["template"] == template, f"{name}: a new chart restarts {one['metadata']['name']}")
                label = other and other["metadata"]["labels"]["helm.sh/chart"]
                tally.ok(label == "tidegate-9.9.9", f"{name}: {one['metadata']['name']} does not say of which chart it is")
        chart.renders += newer.renders
    finally:
        shutil.rmtree(folder)
    first = chart.render(MIN)
    second = chart.render(merged(MIN, image__tag="2", config__history={"rows": 7}, commonLabels={"a": "b"}, router__replicas=9, registry__replicas=9))
    for one, _ in first.workloads():
        if one["kind"] != "Job":
            other = second.one(one["kind"], one["metadata"]["name"])
            for key in ["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"]:
                tally.ok(one["spec"].get(key) == other["spec"].get(key), f"{one['metadata']['name']}: {key} changes, which an upgrade cannot")


def two_releases(chart, tally):
    """Two releases in one namespace leave each other alone."""
    for name, values in cases():
        values = {key: value for key, value in values.items() if key != "extraManifests"}
        one, two = chart.render(values, name, name="one"), chart.render(values, name, name="two")
        both = {(each["kind"], each["metadata"]["name"]) for each in one.objects} & {(each["kind"], each["metadata"]["name"]) for each in two.objects}
        tally.ok(not both, f"{name}: both releases have {sorted(both)}")
        mixed = Rendering(name, "one", "prod", one.values, {}, one.objects + [each for each, _ in two.workloads()])
        for each in one.of("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
            selector = {"matchLabels": each["spec"]["selector"]} if each["kind"] == "Service" else each["spec"].get("selector") or each["spec"].get("podSelector")
            strangers = [found for found in families.selected(mixed, selector) if found.startswith("two")]
            tally.ok(not strangers, f"{name}: {each['kind']} {each['metadata']['name']} selects {strangers} of the other release")
    long = chart.render(MIN, name=LONG), chart.render(MIN, name=LONG[:-1] + "d")
    shared = {each["metadata"]["name"] for each in long[0].objects} & {each["metadata"]["name"] for each in long[1].objects}
    tally.ok(not shared, f"two long names become one: {sorted(shared)}")


def long_names(chart, tally):
    """The longest name of a release, and the longest override."""
    for name, values in cases():
        for rendering in [chart.render(values, name, name=LONG), chart.render(merged(values, fullnameOverride="b" * 80), name)]:
            families.names(rendering, tally)
            families.selectors(rendering, tally)
            families.members(rendering, tally)


def arithmetic(chart, tally):
    """The drain's numbers, by hand."""
    table = [
        # connections, closes a second, wait, window, grace: given (0 is computed), and what comes out
        (50_000, 500, 10, 0, 0, 100, 130),
        (50_001, 500, 10, 0, 0, 101, 131),
        (1, 500, 0, 0, 0, 1, 21),
        (200_000, 1_000, 15, 300, 0, 300, 335),
        (200_000, 1_000, 15, 0, 900, 200, 900),
        (1_800_000, 500, 10, 0, 0, 3_600, 3_630),
    ]
    for connections, closes, wait, window, given, window_out, grace_out in table:
        drain = {"waitSeconds": wait, "closesPerSecond": closes, "windowSeconds": window}
        values = merged(MIN, gateway={"connectionsPerPod": connections, "drain": drain, "terminationGracePeriodSeconds": given})
        rendering = chart.render(values)
        spec = rendering.workload("gateway")["spec"]["template"]["spec"]
        said = families.toml(rendering, "gateway")["drain"]
        tally.ok(spec["terminationGracePeriodSeconds"] == grace_out, f"{connections} connections: {spec['terminationGracePeriodSeconds']} s of grace, and not {grace_out}")
        tally.ok(said["window"] == f"{window_out}s" and said["wait"] == f"{wait}s", f"{connections} connections: {said}")
        families.grace(rendering, tally)
        notes = rendering.texts["tidegate/templates/NOTES.txt"]
        tally.ok(f"{wait} + {window_out} + 20 = {wait + window_out + 20} s. Its grace period is {grace_out} s" in notes, "NOTES has other numbers")


# What must not render, and what it has to say.
REFUSED = [
    ({"gateway__terminationGracePeriodSeconds": 129}, ["gateway.terminationGracePeriodSeconds is 129", "10 (drain.waitSeconds) + 100 (window) + 20", "= 130 s"]),
    ({"gateway__drain": {"windowSeconds": 99}}, ["gateway.drain.windowSeconds is 99", "50000 connections a node at 500 closes a second take 100 s"]),
    ({"gateway__connectionsPerPod": 1_800_001}, ["would be 3601 s", "at most 3600"]),
    ({"gateway__drain": {"closesPerSecond": 0}}, ["closesPerSecond"]),
    ({"router__terminationGracePeriodSeconds": 30}, ["router.terminationGracePeriodSeconds is 30"]),
    ({"secrets__cluster": {"existingSecret": ""}}, ["secrets.cluster.existingSecret is empty"]),
    ({"secrets__api": {"existingSecret": ""}}, ["secrets.api.existingSecret is empty"]),
    ({"secrets__auth": {"existingSecret": ""}}, ["secrets.auth.existingSecret is empty"]),
    ({"secrets": {"cluster": {"existingSecret": ""}, "api": {"existingSecret": ""}}}, ["secrets.cluster", "secrets.api"]),
    ({"kafka__bootstrap": []}, ["kafka.bootstrap is empty"]),
    ({"kafka__bootstrap": ["kafka"]}, ["kafka"]),
    ({"kafka": {"bootstrap": [], "existingSecret": "k", "bootstrapKey": "b"}}, ["networkPolicy.kafkaPorts is empty"]),
    ({"kafka__existingSecret": "k"}, ["kafka.existingSecret is set, but neither"]),
    ({"config__kafka": {"properties": ["sasl.password=hunter2"]}}, ["config.kafka.properties has sasl.password"]),
    ({"router__config": {"kafka": {"properties": ["ssl.key.password=hunter2"]}}}, ["router.config.kafka.properties"]),
    ({"registry__membersVersion": 0}, ["registry.membersVersion is missing or 0"]),
    ({"registry__membersVersion": None}, ["registry.membersVersion"]),
    ({"gateway__pdb": {"minAvailable": 2}}, ["gateway.pdb", "both are set"]),
    ({"registry__pdb": {"maxUnavailable": ""}}, ["registry.pdb", "neither is set"]),
    ({"gateway__autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 8}}, ["minReplicas 9 is more than maxReplicas 8"]),
    ({"gateway__autoscaling": {"enabled": True, "targetConnections": 50_001}}, ["targetConnections 50001 is more than a node takes"]),
    ({"httpRoute__enabled": True}, ["httpRoute.parentRefs is empty"]),
    ({"ingress__enabled": True}, ["ingress.hosts is empty"]),
    ({"image__digest": "sha256:abc"}, ["digest"]),
    ({"gateway__replicas": "three"}, ["replicas"]),
    ({"config__server": {"admin": "0.0.0.0:1"}}, ["admin"]),
    ({"config__auth": {"hmac_secret": "0123456789abcdef0123456789abcdef"}}, ["hmac_secret"]),
    ({"gateway__config": {"drain": {"window": "1s"}}}, ["drain"]),
    ({"gateway__config": {"tls": {"cert_file": "/own.crt"}}}, ["'tls' not allowed"]),
    ({"config__history": {"age": "2 hours"}}, ["age"]),
    ({"config__namespaces": {"score": {"history": 1}}}, ["history"]),
]


def refusals(chart, tally):
    """What must not be installed is refused, with a reason; and so is every key that is not known."""
    for change, texts in REFUSED:
        said = chart.refusal(merged(MIN, **change))
        tally.ok(said is not None, f"{change} is rendered")
        for text in texts:
            tally.ok(said is None or text in said, f"{change} is refused without saying `{text}`: {said}")
    tally.ok(chart.refusal(merged(MIN, dev=True, secrets={})) is None, "dev is refused for want of secrets")
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in closed(schema, ()):
        said = chart.refusal(merged(MIN, **{"__".join([*path, "notAValue"]): 1}))
        tally.ok(said is not None and "notAValue" in said, f"an unknown key is taken at {'.'.join(path) or 'the top'}")
    opened = sorted(".".join(path) for path in loose(schema, ()))
    tally.ok(all(path.endswith(OPEN) for path in opened), f"anything goes at {opened}")


# Kubernetes' own types, which its API server checks.
OPEN = ("resources", "affinity", "tolerations[]", "extraEnv[]", "extraVolumes[]", "extraVolumeMounts[]", "extraEgress[]", "From[]", "kafkaTo[]", "tls[]", "parentRefs[]", "extraManifests[]", "global")  # fmt: skip


def closed(schema, path):
    if schema.get("additionalProperties") is False:
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from closed(inner, (*path, name))


def loose(schema, path):
    kinds = schema.get("type")
    if "object" in (kinds if isinstance(kinds, list) else [kinds]):
        if schema.get("additionalProperties", True) is True:
            yield path
    for name, inner in schema.get("properties", {}).items():
        yield from loose(inner, (*path, name))
    if "items" in schema:
        yield from loose(schema["items"], (*path[:-1], f"{path[-1]}[]"))


def promises(chart, tally):
    """What NOTES promises is what the README promises, word by word."""
    section = (ROOT / "README.md").read_text().split("## What it promises\n", 1)[1].split("\n## ", 1)[0]

    def words(text):
        text = re.sub(r"\s*\(\[[^]]*\]\([^)]*\)\)", "", text).replace("**", "")
        return " ".join(text.split())

    notes = chart.render(MIN).texts["tidegate/templates/NOTES.txt"]
    tally.ok(words(section) in words(notes), "NOTES does not have the README's promises word by word")


SCENARIOS = [checksum, chart_alone, two_releases, long_names, arithmetic, refusals, promises]


def planted(chart):
    """Faults in the chart itself that the scenarios have to notice: (name, scenario, file, text, what it becomes)."""
    return [
        ("a checksum of everything", checksum, "templates/_pod.tpl", '{{ include "tidegate.config" . | sha256sum }}', '{{ printf "%s%d" (include "tidegate.config" .) (int .root.Values.gateway.replicas) | sha256sum }}'),
        ("a checksum of nothing", checksum, "templates/_pod.tpl", '{{ include "tidegate.config" . | sha256sum }}', '"none"'),
        ("the chart's version on pods", chart_alone, "templates/_pod.tpl", '{{- include "tidegate.podLabels" . | nindent 2 }}', '{{- include "tidegate.labels" . | nindent 2 }}'),
        ("names without the release", two_releases, "templates/_helpers.tpl", '(printf "%s-%s" .Release.Name $name)', "$name"),
        ("selectors without the release", two_releases, "templates/_helpers.tpl", "app.kubernetes.io/instance: {{ .root.Release.Name }}\n", ""),
        ("names cut without a hash", two_releases, "templates/_helpers.tpl", '{{- $full = printf "%s-%s" (trunc 27 $full | trimSuffix "-") (sha256sum $full | trunc 8) }}', "{{- $full = trunc 36 $full }}"),
        ("names that are not cut", long_names, "templates/_helpers.tpl", "(len $full) 36", "(len $full) 99"),
        ("a window rounded down", arithmetic, "templates/_helpers.tpl", "sub (add $perPod $perSecond) 1", "sub $perPod 0"),
        ("a grace without slack", arithmetic, "templates/_helpers.tpl", '(include "tidegate.drain.window" . | int64) 20', '(include "tidegate.drain.window" . | int64) 5'),
        ("no validation", refusals, "templates/validate.yaml", "{{- if $errors }}", "{{- if false }}"),
        ("an open schema", refusals, "values.schema.json", '"additionalProperties": false', '"additionalProperties": true'),
        ("other promises", promises, "templates/NOTES.txt", "at least once and in order", "in order"),
    ]


def notice_planted(chart, tally):
    """Each fault is made in a copy of the chart."""
    noticed = 0
    for name, scenario, path, old, new in planted(chart):
        folder = with_version("0.1.0")
        try:
            file = folder / "tidegate" / path
            text = file.read_text()
            assert old in text, f"planted fault '{name}': {path} has not `{old}` any more"
            file.write_text(text.replace(old, new))
            own = Tally(first=True)
            doctored = Chart(folder / "tidegate")
            try:
                scenario(doctored, own)
            except Exception as error:  # noqa: BLE001: whatever it stumbles over, it has noticed
                own.failed.append(str(error))
            chart.renders += doctored.renders
            tally.ok(own.failed, f"the planted fault '{name}' went unnoticed by {scenario.__name__}")
            noticed += 1
        finally:
            shutil.rmtree(folder)
    return noticed
