"""Faults, planted into renderings: each has to be noticed by its family."""

import re

from checks import families


def spec(rendering, role):
    return rendering.workload(role)["spec"]["template"]["spec"]


def context(rendering, role):
    return spec(rendering, role)["containers"][0]["securityContext"]


def toml_of(rendering, role, pattern, text):
    one = next(one for one in rendering.of("ConfigMap") if one["metadata"]["name"].endswith(f"-{role}"))
    key = next(iter(one["data"]))
    changed = re.sub(pattern, text, one["data"][key])
    assert changed != one["data"][key], f"{pattern} is not in {one['metadata']['name']}"
    one["data"][key] = changed


def of(rendering, kind, ending=""):
    return next(one for one in rendering.of(kind) if one["metadata"]["name"].endswith(ending))


def policy(rendering, role):
    return of(rendering, "NetworkPolicy", f"-{role}")["spec"]


def service_label(r):
    of(r, "Service", "-gateway")["spec"]["selector"]["app.kubernetes.io/component"] = "router"


def pod_label(r):
    r.workload("router")["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] = "other"


def budget_all(r):
    del of(r, "PodDisruptionBudget", "-registry")["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]


def monitor_none(r):
    of(r, "PodMonitor")["spec"]["selector"]["matchExpressions"][0]["values"] = ["gateway"]


def scaler_lost(r):
    of(r, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] = "demo"


def headful(r):
    of(r, "Service", "registry-headless")["spec"]["clusterIP"] = ""


def target_port(r):
    of(r, "Service", "-router")["spec"]["ports"][0]["targetPort"] = "http"


def listen_elsewhere(r):
    toml_of(r, "router", r"0\.0\.0\.0:8003", "0.0.0.0:8005")


def says_plain(r):
    of(r, "Service", "-gateway")["spec"]["ports"][0]["appProtocol"] = "h2c"


def route_astray(r):
    of(r, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0]["port"] = 8000


def as_root(r):
    spec(r, "gateway")["securityContext"]["runAsUser"] = 0


def may_gain(r):
    context(r, "registry")["allowPrivilegeEscalation"] = True


def keeps_capability(r):
    context(r, "router")["capabilities"] = {"drop": ["ALL"], "add": ["NET_ADMIN"]}


def writable(r):
    context(r, "gateway")["readOnlyRootFilesystem"] = False


def no_seccomp(r):
    del spec(r, "gateway")["securityContext"]["seccompProfile"]


def token(r):
    del spec(r, "router")["automountServiceAccountToken"]


def secret_in_config(r):
    toml_of(r, "router", r"\[cluster\]\n", '[cluster]\nkey = "0123456789abcdef"\n')


def secret_as_text(r):
    for variable in spec(r, "gateway")["containers"][0]["env"]:
        if variable["name"] == "TIDEGATE__CLUSTER__KEY":
            del variable["valueFrom"]
            variable["value"] = "0123456789abcdef"


def long_name(r):
    r.workload("router")["metadata"]["name"] = "a" * 53


def twice(r):
    r.objects.append(r.objects[0])


def short_grace(r):
    spec(r, "gateway")["terminationGracePeriodSeconds"] -= 1


def short_window(r):
    toml_of(r, "gateway", r'window = "\d+s"', 'window = "1s"')


def early_offline(r):
    toml_of(r, "registry", r'debounce = "\d+s"', 'debounce = "10s"')


def sub_path(r):
    spec(r, "router")["containers"][0]["volumeMounts"][0]["subPath"] = "tidegate.toml"


def unmounted(r):
    mounts = spec(r, "gateway")["containers"][0]["volumeMounts"]
    mounts.remove(next(mount for mount in mounts if mount["name"] == "members"))


def certificate_elsewhere(r):
    toml_of(r, "gateway", r'cert_file = "[^"]+"', 'cert_file = "/etc/ssl/own.crt"')


def lost_map(r):
    r.objects.remove(of(r, "ConfigMap", "-members"))


def open_port(r):
    policy(r, "router")["ingress"][1]["from"] = []


def closed_port(r):
    policy(r, "gateway")["egress"].pop()


def every_port(r):
    del policy(r, "router")["egress"][-1]["ports"]


def no_policy(r):
    r.objects.remove(of(r, "NetworkPolicy", "-registry"))


def member_missing(r):
    toml_of(r, "members", r"\[\[members\]\]\nid = 0\n(.*\n)+?weight = 1\n", "")


def member_elsewhere(r):
    toml_of(r, "members", r"registry-1\.", "registry-7.")


def members_version(r):
    toml_of(r, "members", r"version = \d+", "version = 0")


def health(r):
    spec(r, "gateway")["containers"][0]["livenessProbe"]["httpGet"]["path"] = "/healthz"


def liveness_asks_kafka(r):
    spec(r, "router")["containers"][0]["livenessProbe"]["httpGet"]["path"] = "/readyz"


def takes_first(r):
    r.workload("gateway")["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 1}


def blocks_drain(r):
    del of(r, "PodDisruptionBudget", "-router")["spec"]["unhealthyPodEvictionPolicy"]


def two_budgets(r):
    of(r, "PodDisruptionBudget", "-gateway")["spec"]["minAvailable"] = 1


def falls_fast(r):
    of(r, "HorizontalPodAutoscaler")["spec"]["behavior"]["scaleDown"]["policies"][0]["value"] = 5


def other_image(r):
    spec(r, "registry")["containers"][0]["image"] = "tidegate:latest"


def strange_port(r):
    spec(r, "router")["containers"][0]["ports"][0]["containerPort"] = 9999


# A fault, by the family that has to notice it. Each is planted into the first rendering in which there is what it breaks.
PLANTED = {
    families.selectors: [service_label, pod_label, budget_all, monitor_none, scaler_lost, headful],
    families.ports: [target_port, listen_elsewhere, says_plain, route_astray],
    families.restricted: [as_root, may_gain, keeps_capability, writable, no_seccomp, token],
    families.secrets: [secret_in_config, secret_as_text],
    families.names: [long_name, twice],
    families.grace: [short_grace, short_window, early_offline],
    families.volumes: [sub_path, unmounted, certificate_elsewhere, lost_map],
    families.flows: [open_port, closed_port, every_port, no_policy],
    families.members: [member_missing, member_elsewhere, members_version],
    families.probes: [health, liveness_asks_kafka],
    families.strategy: [takes_first, blocks_drain, two_budgets, falls_fast],
    families.images: [other_image, strange_port],
}
