"""What deploy/check looks at in files: python3 deploy/check.py kubernetes|compose|metrics FILE…"""

import json
import re
import sys
from pathlib import Path


def kubernetes(rendered):
    """What a schema cannot see: names that must fit each other."""
    import yaml

    things = [thing for thing in yaml.safe_load_all(Path(rendered).read_text()) if thing]
    of = lambda kind: [thing for thing in things if thing["kind"] == kind]
    (deployment,) = of("Deployment")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in of("Service")]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of("PodDisruptionBudget")]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in of("NetworkPolicy")]
    for selector in selectors:
        assert selector.items() <= labels, f"{selector} selects no pod"
    for service in of("Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, f"{service['metadata']['name']}: no port {port['targetPort']}"
    # Only ready replicas verify tokens; the keys are available even when no replica is ready.
    public = [service for service in of("Service") if service["spec"]["ports"][0]["targetPort"] == "public"]
    assert {service["spec"].get("publishNotReadyAddresses", False) for service in public} == {False, True}
    mounted = [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]
    for variable in pod["spec"]["containers"][0]["env"]:
        if variable["name"].endswith("_FILE"):
            assert any(variable["value"].startswith(path + "/") for path in mounted), f"{variable['name']}: not mounted"
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} == volumes
    assert of("PodDisruptionBudget")[0]["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]


def compose(path):
    """Every name that the file mentions exists, and nothing but nginx is published."""
    import yaml

    document = yaml.safe_load(Path(path).read_text())
    folder = Path(path).parent
    for name, secret in document["secrets"].items():
        assert (folder / secret["file"]).is_file(), f"secret {name}: make-secrets writes no {secret['file']}"
    for name, service in document["services"].items():
        for other in service.get("depends_on", {}):
            assert other in document["services"], f"{name} depends on {other}, which does not exist"
        for secret in service.get("secrets", []):
            assert secret in document["secrets"], f"{name}: no secret {secret}"
        for network in service.get("networks", []):
            assert network in document["networks"], f"{name}: no network {network}"
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                assert Path(value).name in service["secrets"], f"{name}: {variable} names a secret that it is not given"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            is_there = (folder / source).exists() if source.startswith(".") else source in document["volumes"]
            assert is_there, f"{name}: no volume {source}"
        assert name == "nginx" or "ports" not in service, f"{name} is published"
    subnet = document["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    trusted = document["services"]["countersign-1"]["environment"]["COUNTERSIGN_PUBLIC__TRUSTED_PROXIES"]
    assert subnet == trusted, f"replicas trust {trusted}, nginx is in {subnet}"
    upstreams = set(re.findall(r"server (\S+):8080", (folder / "nginx.conf").read_text()))
    replicas = {name for name in document["services"] if name.startswith("countersign")}
    assert upstreams == replicas, f"nginx balances over {upstreams}, the replicas are {replicas}"


def metrics(exposition, *queries):
    """Every figure that somebody asks for exists, with the labels that are asked for."""
    families, labels = set(), {}
    for line in Path(exposition).read_text().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            families.add(name)
            if kind == "histogram":
                families.update(name + suffix for suffix in ("_bucket", "_sum", "_count"))
        elif not line.startswith("#"):
            name = re.match(r"[a-z_]+", line)[0]
            labels.setdefault(name, set()).update(re.findall(r'([a-z_]+)="', line))
    asked = 0
    for file in queries:
        text = Path(file).read_text()
        if file.endswith(".json"):
            panels = json.loads(text)["panels"]
            expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
        else:
            expressions = re.findall(r"expr: (?:\|\n\s+)?(.+)", text)
        for expression in expressions:
            for name, matchers in re.findall(r"\b((?:countersign|process)_[a-z_]+)(?:\{([^}]*)\})?", expression):
                asked += 1
                assert name in families, f"{file}: there is no {name}: {expression}"
                for label in re.findall(r"([a-z_]+)=", matchers):
                    known = labels.get(name, {label}) | {"instance", "job"}
                    assert label in known, f"{file}: {name} has no label {label}"
    print(f"metrics: {asked} uses in alerts and dashboard, all there")


if __name__ == "__main__":
    {"kubernetes": kubernetes, "compose": compose, "metrics": metrics}[sys.argv[1]](*sys.argv[2:])
