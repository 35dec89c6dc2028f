"""Kubernetes' files: strictly of its published schemas, closed, and of the numbers that they take from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from imagexplain.ops.edge_settings import EdgeSettings
from imagexplain.ops.server import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.37"
PARTS = ("app.kubernetes.io/part-of", "imagexplain")


def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """What the files declare, by kind and name."""
    read = [item for file in sorted(FOLDER.glob("*.yaml")) for item in yaml.safe_load_all(file.read_text())]
    found = {(item["kind"], item["metadata"]["name"]): item for item in read}
    assert len(found) == len(read)
    return found


def ray_service() -> dict[str, Any]:
    spec: dict[str, Any] = objects()["RayService", "imagexplain-ray"]["spec"]
    return spec


def pods() -> Iterator[dict[str, Any]]:
    """The templates of all pods."""
    for name in ("imagexplain-torchserve", "imagexplain-front-door"):
        yield objects()["Deployment", name]["spec"]["template"]
    cluster = ray_service()["rayClusterConfig"]
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])


def test_objects_are_of_the_published_schemas() -> None:
    for (kind, _), item in objects().items():
        if kind != "RayService":
            kubernetes_validate.validate(item, VERSION, strict=True)


def test_a_word_that_kubernetes_does_not_know_is_seen() -> None:
    item = objects()["Deployment", "imagexplain-torchserve"]
    item["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, VERSION, strict=True)


def test_rays_pods_are_of_the_published_schema() -> None:
    for template in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, VERSION, strict=True)


@pytest.mark.upstream
def test_the_ray_service_is_of_kuberays_schema() -> None:
    """Its definition, ray.io_rayservices.yaml of a release, is a megabyte: a file that KUBERAY_CRD names."""
    if "KUBERAY_CRD" not in os.environ:
        pytest.skip("KUBERAY_CRD names no file")
    definition = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())
    (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    item = objects()["RayService", "imagexplain-ray"]
    jsonschema.Draft7Validator(schema).validate(item)
    item["spec"]["rayClusterConfig"]["headGroupSpecs"] = {}
    assert list(jsonschema.Draft7Validator(schema).iter_errors(item))


def strict(schema: Any) -> Any:
    """A schema that takes no other fields than it names, and Kubernetes' numbers that may be strings."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        closed["additionalProperties"] = False
        if not schema["properties"].keys() - {"apiVersion", "kind", "metadata", "spec", "status"}:
            closed["properties"]["metadata"] = {"type": "object"}
    return closed


def test_the_ray_service_serves_what_is_run_here() -> None:
    assert ray_service()["serveConfigV2"] == (ROOT / "deploy" / "ray" / "serve.yaml").read_text()


def test_pods_are_closed() -> None:
    for template in pods():
        assert PARTS in template["metadata"]["labels"].items()
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        account = objects()["ServiceAccount", spec["serviceAccountName"]]
        assert account["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}


def test_nothing_reaches_a_pod_but_what_is_named() -> None:
    denied = objects()["NetworkPolicy", "imagexplain-default-deny"]["spec"]
    assert denied == {
        "podSelector": {"matchLabels": dict([PARTS])},
        "policyTypes": ["Ingress", "Egress"],
    }
    torchserve = objects()["NetworkPolicy", "imagexplain-torchserve"]["spec"]
    assert "egress" not in torchserve
    assert [port["port"] for rule in torchserve["ingress"] for port in rule["ports"]] == [8443]
    for name in ("imagexplain-ray", "imagexplain-front-door"):
        policy = objects()["NetworkPolicy", name]["spec"]
        assert all(rule["from"] for rule in policy["ingress"]) and all(rule["to"] for rule in policy["egress"])


def test_probes_ask_the_supervisor_as_the_image_does() -> None:
    deployment = objects()["Deployment", "imagexplain-torchserve"]["spec"]
    server, edge = deployment["template"]["spec"]["containers"]
    recipe = (ROOT / "deploy" / "container" / "Containerfile").read_text()
    for probe, asked in (("startupProbe", "readyz"), ("readinessProbe", "readyz"), ("livenessProbe", "livez")):
        python, flag, code = server[probe]["exec"]["command"]
        assert python in recipe and flag == "-c"
        assert code.replace("livez", "readyz") in recipe and f":8085/{asked}'" in code
    start = server["startupProbe"]
    assert f"--start-period={start['periodSeconds'] * start['failureThreshold']}s" in recipe
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] > 60 and '"--drain", "60"' in recipe
    yaml.safe_load(objects()["ConfigMap", "imagexplain-edge"]["data"]["edge.yaml"])
    assert edge["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_front_door_leads_to_what_ray_serves() -> None:
    settings = yaml.safe_load(objects()["ConfigMap", "imagexplain-front-door"]["data"]["edge.yaml"])
    del settings["tls"]  # files of the pod's
    ray = EdgeSettings.model_validate(settings).ray
    assert ray is not None
    served = yaml.safe_load(ray_service()["serveConfigV2"])
    assert ray.nodes == (f"imagexplain-ray-serve-svc:{served['http_options']['port']}",)
    assert [f"/{name}" for name in ray.applications] == [app["route_prefix"] for app in served["applications"]]
    assert ray.response_timeout_s == served["http_options"]["request_timeout_s"]
    (rule,) = objects()["NetworkPolicy", "imagexplain-front-door"]["spec"]["egress"][:1]
    (peer,) = rule["to"]
    for group in ray_service()["rayClusterConfig"]["workerGroupSpecs"]:
        assert peer["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
    (admitted,) = [
        rule
        for rule in objects()["NetworkPolicy", "imagexplain-ray"]["spec"]["ingress"]
        if "imagexplain-front-door" in str(rule["from"])
    ]
    assert admitted["ports"] == rule["ports"] == [{"port": 8000, "protocol": "TCP"}]


def test_selectors_find_the_pods() -> None:
    found = objects()
    front = found["Deployment", "imagexplain-front-door"]["spec"]
    for selector in (
        front["selector"]["matchLabels"],
        found["Service", "imagexplain-front-door"]["spec"]["selector"],
        found["PodDisruptionBudget", "imagexplain-front-door"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy", "imagexplain-front-door"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= front["template"]["metadata"]["labels"].items()
    deployment = found["Deployment", "imagexplain-torchserve"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        found["Service", "imagexplain"]["spec"]["selector"],
        found["PodDisruptionBudget", "imagexplain-torchserve"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy", "imagexplain-torchserve"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    target = found["HorizontalPodAutoscaler", "imagexplain-torchserve"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in found
