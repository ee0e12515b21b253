"""The Job that trains on several GPUs: its commands are understood, and it finds its volumes and the run before."""

import yaml
from deployment import DEPLOY, lineage, read_dockerfile
from torch.distributed.run import get_args_parser
from typer.main import get_command

from innerloop_trainer.cli.app import app

CLAIM, JOB = yaml.safe_load_all((DEPLOY / "kubernetes" / "train.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


def of_torchrun():
    """What torchrun makes of the container's arguments."""
    return get_args_parser().parse_args(CONTAINER["args"])


def of_training():
    """What `innerloop train` makes of those that are for it."""
    program, *arguments = of_torchrun().training_script_args
    assert (of_torchrun().training_script, program) == ("innerloop_command", "train")
    command = get_command(app).commands["train"]
    return command.make_context("train", arguments).params


def test_torchrun_starts_a_process_for_each_gpu_and_starts_them_again():
    assert CONTAINER["command"] == ["torchrun"]
    options = of_torchrun()
    assert (options.nproc_per_node, options.module, options.standalone) == ("gpu", True, True)
    assert options.max_restarts > 0
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] > 1


def test_a_pod_that_is_made_again_goes_on_with_the_run():
    assert of_training()["resume_if_any"]
    assert JOB["spec"]["backoffLimit"] > 0
    assert POD["restartPolicy"] == "Never"
    [rule] = JOB["spec"]["podFailurePolicy"]["rules"]
    assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    # torchrun ends processes by force after 30 seconds.
    assert POD["terminationGracePeriodSeconds"] > 30


def test_every_process_has_tasks():
    assert of_training()["meta_batch"] % CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == 0


def test_run_and_data_are_in_a_volume_that_stays():
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    [claimed] = [volume for volume in POD["volumes"] if "persistentVolumeClaim" in volume]
    assert claimed["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    home = mounts[claimed["name"]]
    parameters = of_training()
    assert str(parameters["out"]).startswith(f"{home}/")
    assert parameters["data"].partition(":")[2].startswith(f"{home}/")
    assert {"name": "HOME", "value": home} in CONTAINER["env"]
    assert mounts["shared-memory"] == "/dev/shm"


def test_the_image_has_the_trainer_and_runs_as_its_user():
    name, _, target = CONTAINER["image"].partition(":")
    stages = read_dockerfile("Dockerfile")
    assert name == "innerloop"
    assert any("[trainer" in argument for _, argument in lineage(stages, f"packages-{target}"))
    instructions = lineage(stages, target)
    assert ("USER", str(POD["securityContext"]["runAsUser"])) in instructions
    assert ("COPY", f"--from=packages-{target} /opt/innerloop /opt/innerloop") in instructions
    assert POD["securityContext"]["runAsNonRoot"]
    assert CONTAINER["securityContext"]["capabilities"]["drop"] == ["ALL"]
