"""The Serve config: by Ray's own schema, and with the times and queues of the archives."""

from __future__ import annotations

import yaml
from ray.serve.schema import ServeDeploySchema

from imagexplain.archive.spec import load
from imagexplain.cluster.ray_serve import Settings
from imagexplain.ops.server import ROOT
from tests.cluster.serving import config


def test_ray_takes_the_config_and_knows_every_field() -> None:
    schema = ServeDeploySchema.model_validate(config())
    written = yaml.safe_load(schema.model_dump_json(exclude_unset=True))
    assert [app["name"] for app in written["applications"]] == [app["name"] for app in config()["applications"]]
    for app, own in zip(written["applications"], config()["applications"], strict=True):
        assert app["deployments"][0].keys() == own["deployments"][0].keys()
    assert schema.proxy_location == "EveryNode"


def test_timeouts_and_queues_are_the_archives() -> None:
    applications = {app["name"]: app for app in config()["applications"]}
    for name, app in applications.items():
        settings = Settings.model_validate(app["args"])
        assert (settings.archive.stem, app["route_prefix"]) == (name, f"/{name}")
        assert set(settings.segmenters) <= set(applications) and name not in settings.segmenters
        spec = load(ROOT / "archive_specs" / f"{name}.yaml").serving
        (deployment,) = app["deployments"]
        assert config()["http_options"]["request_timeout_s"] == spec.response_timeout_s
        assert deployment["graceful_shutdown_timeout_s"] >= spec.response_timeout_s
        assert deployment["max_ongoing_requests"] == 2 * spec.batch_size
        assert deployment["autoscaling_config"]["target_ongoing_requests"] == spec.batch_size
        assert deployment["max_queued_requests"] == spec.queue_size
        actor = deployment["ray_actor_options"]
        assert actor["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": str(actor["num_cpus"])}
