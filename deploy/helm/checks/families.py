"""What has to hold of every rendering, in families; each takes a rendering and a tally."""

import re
import tomllib

from checks.render import ROOT, ROLES

PREFIX = "app.kubernetes.io/"
# Who talks to whom on which port: what docs/ARCHITECTURE.md draws. None is whoever the values say.
FLOWS = {
    ("gateway", "router", "link"), ("router", "router", "link"), ("registry", "router", "link"),
    ("gateway", "registry", "registry"), ("router", "registry", "registry"),
    (None, "gateway", "public"), (None, "router", "api"),
    (None, "gateway", "admin"), (None, "router", "admin"), (None, "registry", "admin"),
}  # fmt: skip


def matches(selector, labels):
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def pods(rendering):
    """(name of the workload, labels, containers)"""
    for one, template in rendering.workloads():
        yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]["containers"]


def selected(rendering, selector):
    return [name for name, labels, _ in pods(rendering) if matches(selector, labels)]


def selectors(rendering, tally):
    """Whoever selects pods selects those it means, and no others."""
    for one, template in rendering.workloads():
        if one["kind"] != "Job":
            own = one["spec"]["selector"]
            tally.ok(matches(own, template["metadata"]["labels"]), f"{one['metadata']['name']} does not select its own pods")
            tally.ok(set(own["matchLabels"]) == {f"{PREFIX}name", f"{PREFIX}instance", f"{PREFIX}component"}, "a selector can never change: name, instance and component only")
    for one in rendering.of("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        spec = one["spec"]
        selector = {"matchLabels": spec["selector"]} if one["kind"] == "Service" else spec.get("selector") or spec.get("podSelector")
        found = selected(rendering, selector)
        role = one["metadata"]["labels"][f"{PREFIX}component"]
        wanted = {rendering.workload(role)["metadata"]["name"]} if role != "cluster" else {rendering.workload(role)["metadata"]["name"] for role in rendering.roles()}
        tally.ok(set(found) == wanted, f"{one['kind']} {one['metadata']['name']} selects {found}, and means {sorted(wanted)}")
    for one, template in rendering.workloads():
        spread = template["spec"].get("topologySpreadConstraints", [])
        anti = template["spec"].get("affinity", {}).get("podAntiAffinity", {})
        terms = anti.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        terms += [term["podAffinityTerm"] for term in anti.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
        for term in [*spread, *terms]:
            tally.ok(matches(term["labelSelector"], template["metadata"]["labels"]), f"{one['metadata']['name']} spreads pods that are not its own")
    for one in rendering.of("HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        deployment = rendering.one(target["kind"], target["name"])
        tally.ok(deployment is not None, f"the autoscaler scales {target['name']}, which is not there")
        tally.ok(deployment is not None and "replicas" not in deployment["spec"], "replicas are set beside the autoscaler: each upgrade would undo it")
    for one in rendering.of("StatefulSet"):
        service = rendering.one("Service", one["spec"]["serviceName"])
        tally.ok(service is not None and service["spec"].get("clusterIP") == "None", f"{one['metadata']['name']} has no headless service")
        tally.ok(service is not None and service["spec"].get("publishNotReadyAddresses") is True, f"{one['metadata']['name']} is not found before it is ready")


def ports(rendering, tally):
    """Ports have names, and whoever names one finds it."""
    named = {name: {port["name"]: port["containerPort"] for each in containers for port in each.get("ports", [])} for name, _, containers in pods(rendering)}
    for name, _, containers in pods(rendering):
        for each in containers:
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
                if probe in each:
                    tally.ok(each[probe]["httpGet"]["port"] in named[name], f"{name}'s {probe} asks a port that is not there")
        tally.ok(all(len(port) <= 15 for port in named[name]), f"{name} has a port name of over 15 characters")
    for service in rendering.of("Service"):
        for port in service["spec"]["ports"]:
            for name in selected(rendering, {"matchLabels": service["spec"]["selector"]}):
                tally.ok(port["targetPort"] in named[name], f"Service {service['metadata']['name']} sends to {port['targetPort']}, which {name} has not")
            tally.ok(bool(port.get("name")), "a port of a service has no name")
    for monitor in rendering.of("PodMonitor"):
        for name in selected(rendering, monitor["spec"]["selector"]):
            tally.ok(monitor["spec"]["podMetricsEndpoints"][0]["port"] in named[name], f"the PodMonitor asks {name} at a port that it has not")
    for service in rendering.of("Service"):
        for port in service["spec"]["ports"]:
            if port["name"] == "public":
                wanted = "https" if "tls" in toml(rendering, "gateway") else "http"
                tally.ok(port.get("appProtocol") == wanted, f"Service {service['metadata']['name']} says {port.get('appProtocol')}, and gateways speak {wanted}")
    for route in rendering.of("Ingress", "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if route["kind"] == "Ingress":
                backends = [(path["backend"]["service"]["name"], "name", path["backend"]["service"]["port"]["name"]) for path in rule["http"]["paths"]]
            else:
                backends = [(backend["name"], "port", backend["port"]) for backend in rule["backendRefs"]]
            for name, key, value in backends:
                service = rendering.one("Service", name)
                tally.ok(service is not None and any(port[key] == value for port in service["spec"]["ports"]), f"{route['kind']} leads to {name}:{value}, which is not there")
    config = {role: toml(rendering, role) for role in rendering.roles()}
    listens = {("gateway", "public"): "server.public", ("router", "api"): "server.api", ("router", "link"): "cluster.listen", ("registry", "registry"): "registry.listen"}
    listens |= {(role, "admin"): "server.admin" for role in rendering.roles()}
    for (role, port), key in listens.items():
        if role in config:
            section, name = key.split(".")
            number = named[rendering.workload(role)["metadata"]["name"]].get(port)
            tally.ok(config[role][section][name] == f"0.0.0.0:{number}", f"{role} listens on {config[role][section][name]}, and its port {port} is {number}")


def restricted(rendering, tally):
    """Kubernetes' restricted Pod Security Standard, a read-only root, no token."""
    for one, template in rendering.workloads():
        name, spec = one["metadata"]["name"], template["spec"]
        own = spec["securityContext"]
        tally.ok(own.get("runAsNonRoot") is True and own.get("runAsUser") == 10001, f"{name} may run as root")
        tally.ok(own.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{name} has no seccomp profile")
        tally.ok(spec.get("automountServiceAccountToken") is False, f"{name} mounts a token of the API server")
        tally.ok(spec.get("enableServiceLinks") is False, f"{name} gets variables of every service")
        tally.ok(not any(spec.get(key) for key in ["hostNetwork", "hostPID", "hostIPC"]), f"{name} is in a namespace of its host")
        tally.ok(all(not {"hostPath"} & set(volume) for volume in spec.get("volumes", [])), f"{name} mounts a path of its host")
        for each in [*spec["containers"], *spec.get("initContainers", [])]:
            context = each.get("securityContext", {})
            tally.ok(context.get("allowPrivilegeEscalation") is False, f"{name} may gain privileges")
            tally.ok(context.get("readOnlyRootFilesystem") is True, f"{name} may write to its root")
            tally.ok(context.get("capabilities") == {"drop": ["ALL"]}, f"{name} keeps capabilities")
            tally.ok(context.get("privileged") is not True, f"{name} is privileged")
            tally.ok(context.get("runAsNonRoot") is True and not context.get("runAsUser") == 0, f"{name}'s container may run as root")
            tally.ok("memory" in each.get("resources", {}).get("limits", {}), f"{name} has no limit of memory")
            tally.ok(not {"preStop"} & set(each.get("lifecycle", {})), f"{name} has a preStop: SIGTERM drains, and there is no shell")


def secrets(rendering, tally):
    """A secret is in a Secret, which the chart does not make."""
    tally.ok(not rendering.of("Secret"), "the chart makes a Secret")
    shown = re.compile(r"(?im)^\s*(hmac_secret|key|keys)\s*=|password|dev-only-everybody")
    for one in rendering.of("ConfigMap"):
        for name, text in one["data"].items():
            if name.endswith(".toml"):
                tally.ok(not shown.search(text), f"ConfigMap {one['metadata']['name']} has a secret: {shown.search(text) and shown.search(text)[0]}")
    for name, _, containers in pods(rendering):
        for each in containers:
            for variable in each.get("env", []):
                if variable["name"] in ("TIDEGATE__CLUSTER__KEY", "TIDEGATE__API__KEYS", "TIDEGATE__KAFKA__PROPERTIES"):
                    from_secret = "secretKeyRef" in variable.get("valueFrom", {})
                    tally.ok(from_secret or rendering.values["dev"], f"{name} has {variable['name']} as a text")


def names(rendering, tally):
    """Names fit where Kubernetes puts them."""
    form = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
    for one in rendering.objects:
        name = one["metadata"]["name"]
        longest = {"StatefulSet": 52, "Job": 57, "Deployment": 47}.get(one["kind"], 63)
        tally.ok(len(name) <= longest, f"{one['kind']} {name} has {len(name)} characters: {longest} are the most, for what is put behind it")
        tally.ok(form.fullmatch(name), f"{name} is no name")
        for key, value in one["metadata"].get("labels", {}).items():
            tally.ok(len(str(value)) <= 63, f"label {key} of {name} is too long")
    seen = [(one["kind"], one["metadata"]["name"]) for one in rendering.objects]
    tally.ok(len(seen) == len(set(seen)), f"two objects of one name: {sorted({one for one in seen if seen.count(one) > 1})}")


def grace(rendering, tally):
    """A node has the time that its drain takes."""
    gateway = rendering.values["gateway"]
    drain = toml(rendering, "gateway")["drain"]
    wait, window = (int(drain[key].removesuffix("s")) for key in ["wait", "window"])
    pace = -(-gateway["connectionsPerPod"] // gateway["drain"]["closesPerSecond"])
    spec = rendering.workload("gateway")["spec"]
    given = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    tally.ok(window >= pace, f"the window of {window} s is too short for {pace} s of closing")
    tally.ok(given >= wait + window + 20, f"the grace period of {given} s is shorter than {wait} + {window} + 20")
    tally.ok(toml(rendering, "gateway")["limits"]["connections"] == gateway["connectionsPerPod"], "a node takes another number of connections than the drain counts on")
    tally.ok(spec["progressDeadlineSeconds"] > given + spec["minReadySeconds"], "a rollout would be called stuck while nodes drain")
    tally.ok(rendering.workload("router")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 45, "a router has not the time to hand over")
    if rendering.workload("registry"):
        debounce = int(toml(rendering, "registry")["registry"]["debounce"].removesuffix("s"))
        tally.ok(debounce > int(drain["retry_window"].removesuffix("s")), "users of a node that drains would be called offline before they may be back")


def volumes(rendering, tally):
    """What is mounted is there, and what the configuration names is mounted."""
    for one, template in rendering.workloads():
        name = one["metadata"]["name"]
        claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        there = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        for volume in there.values():
            if "configMap" in volume:
                tally.ok(rendering.one("ConfigMap", volume["configMap"]["name"]) is not None, f"{name} mounts a ConfigMap that is not there")
        tally.ok(not claims & set(there), f"{name} has a claim and a volume of one name")
        for each in template["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount for mount in each.get("volumeMounts", [])}
            tally.ok({mount["name"] for mount in mounts.values()} == set(there) | claims, f"{name} mounts other volumes than it has")
            tally.ok(not any("subPath" in mount for mount in mounts.values()), f"{name} mounts a subPath: a change would never show")
            text = config_text(rendering, one)
            for path in re.findall(r'"(/[^"]+)"', text):
                tally.ok(any(path == mount or path.startswith(f"{mount}/") for mount in mounts), f"{name} is told of {path}, which is not mounted")
            wanted = each["args"][each["args"].index("--config") + 1]
            tally.ok(any(wanted == f"{mount}/tidegate.toml" for mount in mounts), f"{name} has no {wanted}")


def flows(rendering, tally):
    """The network policies let pass what FLOWS names, at both ends, and nothing else within the release."""
    policies = rendering.of("NetworkPolicy")
    if not rendering.values["networkPolicy"]["enabled"]:
        tally.ok(not policies, "there are policies although they are off")
        return
    labels = {labels[f"{PREFIX}component"]: labels for _, labels, _ in pods(rendering)}
    ingress, egress = set(), set()
    for policy in policies:
        (own,) = [role for role in labels if matches(policy["spec"]["podSelector"], labels[role])]
        tally.ok(policy["spec"]["policyTypes"] == ["Ingress", "Egress"], f"the policy of {own} leaves a direction open")
        for direction, peers_key, found in [("ingress", "from", ingress), ("egress", "to", egress)]:
            for rule in policy["spec"][direction]:
                tally.ok(bool(rule.get("ports")), f"the policy of {own} lets every port pass: {rule}")
                for port in rule.get("ports", []):
                    peers = [role for peer in rule.get(peers_key, []) if set(peer) == {"podSelector"} for role in labels if matches(peer["podSelector"], labels[role])]
                    if isinstance(port["port"], int):
                        tally.ok(direction == "egress", f"{own} is open at a number, {port['port']}")
                    elif direction == "ingress":
                        found |= {(peer, own, port["port"]) for peer in peers or [None]}
                    else:
                        found |= {(own, peer, port["port"]) for peer in peers or [None]}
    there = set(labels)
    wanted = {flow for flow in FLOWS if {flow[0] or flow[1], flow[1]} <= there}
    tally.ok(ingress == wanted, f"who is let in: more {sorted(map(str, ingress - wanted))}, less {sorted(map(str, wanted - ingress))}")
    within = {flow for flow in wanted if flow[0]}
    tally.ok(egress == within, f"who is let out: more {sorted(map(str, egress - within))}, less {sorted(map(str, within - egress))}")
    tally.ok({policy["metadata"]["labels"][f"{PREFIX}component"] for policy in policies} == there, "a role has no policy")
    for role in ("router", "topics"):
        if role in there:
            numbers = {port["port"] for policy in policies if policy["metadata"]["labels"][f"{PREFIX}component"] == role for rule in policy["spec"]["egress"] for port in rule["ports"]}
            asked = {int(one.rsplit(":", 1)[1]) for one in rendering.values["kafka"]["bootstrap"]} or set(rendering.values["networkPolicy"]["kafkaPorts"])
            tally.ok(asked <= numbers, f"{role} may not reach Kafka at {sorted(asked)}")


def members(rendering, tally):
    """The member list names the pods that will be there."""
    registry = rendering.workload("registry")
    listed = [one for one in rendering.of("ConfigMap") if "members.toml" in one["data"]]
    if not registry:
        tally.ok(not listed, "there is a member list without members")
        tally.ok("registry" not in toml(rendering, "gateway"), "gateways are told of a registry that is not there")
        return
    tally.ok(len(listed) == 1, "there is not one member list")
    made = tomllib.loads(listed[0]["data"]["members.toml"])
    name, count = registry["metadata"]["name"], registry["spec"]["replicas"]
    tally.ok(made["version"] == rendering.values["registry"]["membersVersion"] >= 1, "the list's version is not the value's")
    tally.ok([member["id"] for member in made["members"]] == list(range(count)), f"ids are not 0 to {count - 1}")
    domain = f"{registry['spec']['serviceName']}.{rendering.namespace}.svc.{rendering.values['clusterDomain']}"
    for member in made["members"]:
        tally.ok(member["address"] == f"{name}-{member['id']}.{domain}:8004", f"member {member['id']} is not at {member['address']}")
        tally.ok(member["weight"] >= 1, "a member has no weight")
    for role in rendering.roles():
        tally.ok(toml(rendering, role)["registry"]["members_file"] == "/etc/tidegate/members/members.toml", f"{role} does not read the list")
    tally.ok(registry["spec"]["podManagementPolicy"] == "Parallel", "members wait for each other at the start")
    tally.ok(toml(rendering, "registry")["registry"]["id"] == "auto", "members do not go by the numbers of their pods")


def probes(rendering, tally):
    """Probes ask what the admin port has; only the process itself decides on a restart."""
    source = (ROOT / "tidegate/src/admin.rs").read_text()
    routes = set(re.findall(r'\.route\("(/\w+)"', source))
    for role in rendering.roles():
        for each in rendering.workload(role)["spec"]["template"]["spec"]["containers"]:
            paths = {probe: each.get(probe, {}).get("httpGet", {}).get("path") for probe in ["startupProbe", "readinessProbe", "livenessProbe"]}
            tally.ok(set(paths.values()) <= routes, f"{role} is asked for {paths}, and has {sorted(routes)}")
            tally.ok(paths == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}, f"{role}: {paths}")
            startup, liveness = each.get("startupProbe", {}), each.get("livenessProbe", {})
            tally.ok(startup.get("failureThreshold", 0) * startup.get("periodSeconds", 0) >= 60, f"{role} has under a minute to start")
            tally.ok(liveness.get("failureThreshold", 0) * liveness.get("periodSeconds", 0) >= 30, f"{role} is restarted before its own limit of 10 s of silence has passed twice")


def strategy(rendering, tally):
    """How pods are replaced, evicted and scaled."""
    gateway = rendering.workload("gateway")["spec"]
    update = gateway["strategy"]["rollingUpdate"]
    tally.ok(update["maxUnavailable"] == 0 and update["maxSurge"] not in (0, "0%"), "a rollout takes nodes away before there are others")
    for role in rendering.roles():
        budget = next((one["spec"] for one in rendering.of("PodDisruptionBudget") if one["metadata"]["labels"][f"{PREFIX}component"] == role), {})
        tally.ok(len({"maxUnavailable", "minAvailable"} & set(budget)) == 1, f"the budget of {role} is missing, or says two things")
        tally.ok(budget.get("unhealthyPodEvictionPolicy") == "AlwaysAllow", f"a {role} that is not ready would block a host's drain")
    for one in rendering.of("HorizontalPodAutoscaler"):
        metric, behavior = one["spec"]["metrics"][0], one["spec"]["behavior"]
        tally.ok(metric["type"] == "Pods" and metric["pods"]["target"]["type"] == "AverageValue", "it does not scale on what each pod has")
        tally.ok(int(metric["pods"]["target"]["averageValue"]) <= rendering.values["gateway"]["connectionsPerPod"], "it would never scale")
        tally.ok(behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}], "it takes more than a node in 5 minutes")
        tally.ok(behavior["scaleUp"]["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": 60}], "it does not double in a minute")


def images(rendering, tally):
    """One image for all, by digest where there is one; who uses it is the same user."""
    named = {each["image"] for _, _, containers in pods(rendering) for each in containers}
    tally.ok(len(named) == 1, f"several images: {sorted(named)}")
    image = rendering.values["image"]
    wanted = f"@{image['digest']}" if image["digest"] else ":"
    tally.ok(all(wanted in name for name in named), f"{sorted(named)} is not {wanted}")
    docker = (ROOT / "deploy/docker/Dockerfile").read_text()
    tally.ok("USER 10001:10001" in docker, "the image's user is not the pods'")
    exposed = set(map(int, re.search(r"^EXPOSE (.*)$", docker, re.M)[1].split()))
    used = {port["containerPort"] for _, _, containers in pods(rendering) for each in containers for port in each.get("ports", [])}
    tally.ok(used <= exposed, f"ports {sorted(used - exposed)} are not the image's")


def config_text(rendering, workload):
    role = workload["metadata"]["labels"][f"{PREFIX}component"]
    volume = next(volume for volume in workload["spec"]["template"]["spec"]["volumes"] if volume["name"] == "config")
    made = rendering.one("ConfigMap", volume["configMap"]["name"])
    assert made is not None or role
    return made["data"]["tidegate.toml"] if made else ""


def toml(rendering, role):
    return tomllib.loads(config_text(rendering, rendering.workload(role)))


FAMILIES = [selectors, ports, restricted, secrets, names, grace, volumes, flows, members, probes, strategy, images]
assert ROLES
