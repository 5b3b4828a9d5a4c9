"""Lets the real binary read the configuration of each role as it is rendered."""

import functools
import os
import pathlib
import re
import subprocess
import tempfile
import tomllib

from checks import families

# What stands in for the Secrets of the values files.
SECRETS = {
    "TIDEGATE__CLUSTER__KEY": "0123456789abcdef0123456789abcdef",
    "TIDEGATE__API__KEYS": "0123456789abcdef,fedcba9876543210",
    "TIDEGATE__KAFKA__BOOTSTRAP": "kafka-0:9093,kafka-1:9093",
    "TIDEGATE__KAFKA__PROPERTIES": "client.id=check",
}
HMAC = "0123456789abcdef0123456789abcdef0123456789abcdef"


def binary():
    path = os.environ.get("TIDEGATE_BIN", "")
    if not os.access(path, os.X_OK):
        raise SystemExit("helm: TIDEGATE_BIN names no program: build one, and set it")
    return os.path.realpath(path)


@functools.cache
def certificate():
    """A certificate and its key, as a Secret of type kubernetes.io/tls has them."""
    with tempfile.TemporaryDirectory(prefix="tidegate-certificate-") as root:
        cert, key = f"{root}/tls.crt", f"{root}/tls.key"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=push.example", "-out", cert, "-keyout", key]
        subprocess.run(made, check=True, capture_output=True)
        return {"tls.crt": pathlib.Path(cert).read_text(), "tls.key": pathlib.Path(key).read_text()}


def materialize(rendering, workload, root):
    """Lays what the pod mounts below root; the paths in the configuration follow."""
    spec = workload["spec"]["template"]["spec"]
    each = spec["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in each["volumeMounts"]}
    for volume in spec["volumes"]:
        folder = pathlib.Path(f"{root}{mounts[volume['name']]}")
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            for name, text in rendering.one("ConfigMap", volume["configMap"]["name"])["data"].items():
                for path in mounts.values():
                    text = re.sub(rf'"{re.escape(path)}(?=[/"])', f'"{root}{path}', text)
                (folder / name).write_text(text)
        elif "secret" in volume:
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_text(certificate().get(item["path"], HMAC + "\n"))


def environment(rendering, workload):
    """What the container's environment would be, in the pod of number 0."""
    each = workload["spec"]["template"]["spec"]["containers"][0]
    pod = f"{workload['metadata']['name']}-0"
    made = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    for variable in each.get("env", []):
        source = variable.get("valueFrom", {})
        if "value" in variable:
            made[variable["name"]] = variable["value"]
        elif source.get("fieldRef", {}).get("fieldPath") == "metadata.name":
            made[variable["name"]] = pod
        else:
            made[variable["name"]] = SECRETS[variable["name"]]
    return made, pod


def read(rendering, workload, change=lambda root: None):
    """(exit code, what it says) of check-config for this role."""
    role = workload["metadata"]["labels"]["app.kubernetes.io/component"]
    with tempfile.TemporaryDirectory(prefix="tidegate-config-") as root:
        materialize(rendering, workload, root)
        change(pathlib.Path(root))
        variables, pod = environment(rendering, workload)
        profile = "cluster" if role == "topics" else role
        config = f"{root}/etc/tidegate/config/tidegate.toml"
        # With the pod's name as that of the host: a member's number is in it.
        alone = ["unshare", "--uts"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--uts"]
        command = [*alone, "sh", "-c", 'hostname "$0" && exec "$@"', pod, binary(), "check-config", "--profile", profile, "--config", config]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        return done.returncode, (done.stdout + done.stderr).replace(root, "")


def effective(said):
    """What check-config shows: TOML, and a last word."""
    lines = [line for line in said.splitlines() if re.match(r"\s*(\[.*\]|[\w.\"-]+ = .*)$", line.split("  # ")[0])]
    return tomllib.loads("\n".join(lines))


def variable_of(section, key):
    return f"TIDEGATE__{section}__{key}".upper()


def check(rendering, tally):
    read_by = 0
    for workload, _ in rendering.workloads():
        code, said = read(rendering, workload)
        name = workload["metadata"]["name"]
        tally.ok(code == 0, f"{rendering.case}: check-config of {name} ended with {code}: {said.strip()[-600:]}")
        # That it is in effect, and not only accepted.
        shown = effective(said) if code == 0 else {}
        for section, keys in tomllib.loads(families.config_text(rendering, workload)).items():
            for key, value in keys.items():
                found = shown.get(section, {}).get(key)
                overruled = variable_of(section, key) in environment(rendering, workload)[0]
                tally.ok(overruled or found == value, f"{rendering.case}: {name}: {section}.{key} is {found} and not {value}")
        read_by += 1
    return read_by


def notice_planted(rendering, tally):
    """An unknown key, a list of members without this one, an empty secret: each has to be refused."""

    def unknown(root):
        file = root / "etc/tidegate/config/tidegate.toml"
        file.write_text(file.read_text() + "\n[notasection]\na = 1\n")

    def list_cut(root):
        (root / "etc/tidegate/members/members.toml").write_text("version = 1\n[[members]]\nid = 0\n")

    def secret_short(root):
        (root / "run/secrets/tidegate/auth/hmac-secret").write_text("short")

    faults = [("gateway", unknown), ("router", unknown), ("registry", unknown), ("registry", list_cut), ("gateway", list_cut), ("gateway", secret_short)]
    for role, fault in faults:
        code, said = read(rendering, rendering.workload(role), fault)
        tally.ok(code == 2, f"check-config of {role} takes {fault.__name__}: {code} {said.strip()[-300:]}")
    return len(faults)


def notice_no_key(rendering, tally):
    """A certificate where its key should be has to be refused."""

    def no_key(root):
        (root / "run/secrets/tidegate/tls/tls.key").write_text(certificate()["tls.crt"])

    code, said = read(rendering, rendering.workload("gateway"), no_key)
    tally.ok(code == 2 and "tls.key_file" in said, f"check-config of gateway takes a certificate for a key: {code} {said.strip()[-300:]}")
    return 1
