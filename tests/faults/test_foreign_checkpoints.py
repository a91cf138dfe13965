"""Checkpoints that are whole and wrong: sealed with right digests, they hold anything, and are refused in one line."""

import logging
import os
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_files import Checkpoint, Memory
from paths import GOLDEN

from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.run_directory.directory import load_config, read_config
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.runs.train_and_resume import load_training_state
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.published import load_official
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.cli.main import main
from ctm_rl.errors import MAX_MESSAGE, MAX_WORD, UserError
from ctm_rl.inference.load_model import load_model
from ctm_rl.inference.policy import Policy

CPU = torch.device("cpu")
RUNS = GOLDEN / "runs"
MOMENTS = "learner/optimizers/default_policy_default_optimizer/state/0/exp_avg"
WEIGHTS = {"acting": "policy/weights/", "answering": "thinker/weights/"}


def copied(kind: str, place: Path) -> tuple[Path, Checkpoint]:
    """A copy of a run, and the content of its only checkpoint."""
    run = place / kind
    shutil.copytree(RUNS / kind, run)
    return run, Checkpoint(run / "checkpoints" / "iteration-000002")


def write(run: Path, content: Checkpoint, iteration: int = 2) -> None:
    """Writes a checkpoint of some iteration, with right digests."""
    content.head["state"]["position"]["iteration"] = content.head["state"]["learner"]["iteration"] = iteration
    content.write(run / "checkpoints" / f"iteration-{iteration:06}")


def resume(run: Path) -> Path:
    """What resuming does before Ray starts; returns the checkpoint it would go on from."""
    return load_training_state(run, read_config(run))[0]


LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "evaluate a policy": ("acting", lambda run: load_trained(run, run, CPU)[0].name),
    "evaluate a model": ("answering", lambda run: load_trained(run, run, CPU)[0].name),
    "Policy.from_checkpoint": ("acting", lambda run: f"iteration-{Policy.from_checkpoint(run).iteration:06}"),
    "load_model": ("answering", lambda run: load_model(run) and "iteration-000002"),
    "resume a policy": ("acting", lambda run: resume(run).name),
    "resume a model": ("answering", lambda run: resume(run).name),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("place_of_it", ["weights", "moments"])
def test_a_checkpoint_that_is_not_finite_is_passed_over(
    loader: str, place_of_it: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, load = LOADERS[loader]
    run, content = copied(kind, tmp_path)
    name = f"{WEIGHTS[kind]}core.start_pre_history" if place_of_it == "weights" else MOMENTS
    content.tensors[name].view(-1)[1] = float("nan")
    write(run, content, 3)
    with caplog.at_level(logging.WARNING):
        assert load(run) == "iteration-000002"
    shown = name.replace("thinker", "model")
    assert f"iteration-000003 is not usable: {shown} holds a number that is not finite" in caplog.text
    write(run, content, 2)
    with pytest.raises(CheckpointError, match="not finite"):
        load(run)


def state(*keys: Any) -> Callable[[Checkpoint, Any], None]:
    """Sets an entry of the state."""

    def change(content: Checkpoint, value: Any) -> None:
        inner = content.head["state"]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def tensor(name: str) -> Callable[[Checkpoint, Any], None]:
    """Replaces a tensor by a function of it."""

    def change(content: Checkpoint, value: Any) -> None:
        content.tensors[name] = value(content.tensors[name].clone()).contiguous()

    return change


def with_first(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A tensor with another first number."""

    def change(value: torch.Tensor) -> torch.Tensor:
        value.view(-1)[0] = number
        return value

    return change


LEARNER = "learner/modules/default_policy/agent."
GENERATORS = "learner/generators/driver/"
GROUP = ("learner", "optimizers", "default_policy_default_optimizer", "param_groups", 0)
STEPS = "env_runners--num_env_steps_sampled_lifetime"
WRONG: dict[str, tuple[Callable[[Checkpoint, Any], None], Any, str]] = {
    "moments of a smaller shape": (tensor(MOMENTS), lambda x: x[:1], r"exp_avg must be float32 of shape \(.*\), got"),
    "moments of no shape": (tensor(MOMENTS), lambda x: x.sum(), "exp_avg must be float32 of shape"),
    "moments in half precision": (tensor(MOMENTS), lambda x: x.half(), "got float16 of shape"),
    "a square below 0": (tensor(f"{MOMENTS}_sq"), with_first(-1.0), "exp_avg_sq must hold numbers of at least 0"),
    "a step below 0": (tensor(MOMENTS.replace("exp_avg", "step")), with_first(-2.0), "step must hold numbers of"),
    "amsgrad": (state(*GROUP, "amsgrad"), True, "optimizer.amsgrad must be false, got True"),
    "going uphill": (state(*GROUP, "maximize"), True, "optimizer.maximize must be false"),
    "a beta of 1": (state(*GROUP, "betas"), [0.9, 1.0], "betas must be a finite number of at least 0"),
    "a rate that is a text": (
        state(*GROUP, "lr"),
        "0.1",
        "optimizer.lr must be a finite number of at least 0, got '0.1'",
    ),
    "parameters in another order": (
        state(*GROUP, "params"),
        [1, 0],
        "must name the 37 parameters of the model in their",
    ),
    "an index that is too large": (
        tensor(f"{WEIGHTS['acting']}core.output_sync.left"),
        with_first(16),
        "left must hold numbers of at least 0 and below 16",
    ),
    "an index below 0": (
        tensor(f"{LEARNER}core.output_sync.right"),
        with_first(-1),
        "agent.core.output_sync.right must hold numbers of at least 0",
    ),
    "weights of the learner transposed": (
        tensor(f"{LEARNER}policy.layers.4.weight"),
        lambda x: x.T,
        r"policy.layers.4.weight must be float32 of shape \(2, 64\), got float32 of shape \(64, 2\)",
    ),
    "weights in double precision": (
        tensor(f"{WEIGHTS['acting']}value.layers.4.bias"),
        lambda x: x.double(),
        "value.layers.4.bias must be float32 of shape",
    ),
    "another kind of run": (state("experiment", "signal"), "label", "experiment"),
    "no weights": (state("policy", "weights"), {}, "its arrays are not those that it names"),
    "a word of a generator": (tensor(f"{GENERATORS}python/words"), with_first(2**32), "words must hold numbers of at"),
    "a place in the words": (
        tensor(f"{GENERATORS}python/words"),
        lambda x: torch.cat((x[:-1], torch.tensor([700]))),
        "the place in its words must be a whole number from 0 to 624, got 700",
    ),
    "a generator of another size": (tensor(f"{GENERATORS}torch"), lambda x: x[:100], r"uint8 of shape \(5056,\)"),
    "a generator of zeros": (tensor("learner/own/minibatches"), torch.zeros_like, "mt19937 state"),
    "a factor of the learning rate": (
        state("learner", "own", "lr_factor"),
        0.0,
        "own.lr_factor must be a finite number of at least 0.01 and at most 10, got 0.0",
    ),
    "a position in numpy's words": (
        state("learner", "generators", "driver", "numpy", "position"),
        625,
        "position must be a whole number from 0 to 624, got 625",
    ),
    "an iteration other than its name's": (
        state("position", "env_steps"),
        -1,
        "env_steps must be a whole number from 0",
    ),
    "returns that are texts": (state("position", "memory", "returns"), ["8"] * 6, "returns must be a finite number"),
    "more lengths than returns": (state("position", "memory", "returns"), [8.0], "the number of returns"),
    "a memory of another kind of run": (state("position", "memory"), {"tested": {}}, "must have the entries"),
    "infinite time": (state("position", "seconds"), {"$float": "inf"}, "seconds must be a finite number of at least 0"),
    "a count below 0": (state("learner", "counters", STEPS, "lifetime_sum"), -3.0, "lifetime_sum must be a finite"),
    "a count of another kind": (state("learner", "counters", STEPS, "stats_cls_identifier"), "mean", "a lifetime_sum"),
    "counters inside of one another": (
        state("learner", "counters", f"{STEPS}--x"),
        dict.fromkeys(("is_root", "track_throughputs"), True)
        | {"stats_cls_identifier": "lifetime_sum", "is_leaf": True, "lifetime_sum": 1.0},
        "must not count inside of one another",
    ),
    "updates that are a list": (state("learner", "num_updates"), [], r"num_updates must be a whole number .* got \[\]"),
    "a list instead of the learner": (state("learner"), [], "its arrays are not those that it names"),
    "a state of a connector": (state("learner", "connectors"), {"a": {"b": 3}}, "connectors.a.b must be a mapping"),
    "more neurons than memory": (state("policy", "config", "num_neurons"), 10**9, "must be float32 of shape"),
    "more layers than weights": (state("policy", "config", "num_synapse_blocks"), 10**9, "num_synapse_blocks must be"),
    "more ticks than anybody waits for": (state("policy", "config", "num_ticks"), 10**12, "num_ticks must be"),
    "another number of ticks": (state("policy", "config", "num_ticks"), 3, "config.num_ticks is 3, and the run's is 2"),
    "a flag as a width": (state("policy", "config", "feature_dim"), True, "feature_dim must be of type int, got True"),
    "sizes of actions": (state("policy", "actions", "sizes"), [10**12], "a size must be a whole number"),
    "a type of actions": (state("policy", "actions", "dtype"), "O", "actions.dtype must be a type of numbers"),
    "a scale of 0": (state("policy", "layout", 0, "scale"), 0.0, "layout.scale must be a finite number"),
    "an unknown entry": (state("policy", "more"), 1, "must have the entries config, layout, actions, weights"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_state_that_a_run_cannot_continue_from_is_refused_with_the_entry(case: str, tmp_path: Path) -> None:
    change, value, message = WRONG[case]
    run, content = copied("acting", tmp_path)
    change(content, value)
    if isinstance(content.head["state"]["learner"], dict):
        write(run, content)
    else:
        content.write(run / "checkpoints" / "iteration-000002")
    with pytest.raises(CheckpointError, match=message) as refused:
        resume(run)
    assert "\n" not in str(refused.value)


def test_two_entries_cannot_share_a_tensor(tmp_path: Path) -> None:
    run, content = copied("acting", tmp_path)
    moments = content.head["state"]["learner"]["optimizers"]["default_policy_default_optimizer"]["state"]["$dict"][0][1]
    moments["exp_avg_sq"] = moments["exp_avg"]
    write(run, content)
    with pytest.raises(CheckpointError, match="its arrays are not those that it names, each once"):
        resume(run)


@pytest.mark.parametrize("file", [store.STATE_FILE, store.TENSORS_FILE, "config.json"])
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
def test_pipes_and_devices_are_not_waited_for(file: str, kind: str, tmp_path: Path) -> None:
    run, _ = copied("acting", tmp_path)
    path = run / file if file == "config.json" else run / "checkpoints" / "iteration-000002" / file
    path.unlink()
    os.mkfifo(path) if kind == "fifo" else path.symlink_to(kind)
    with pytest.raises(UserError):
        resume(run)
    with pytest.raises(UserError):
        load_trained(run, run, CPU)
    if file == "config.json":
        with pytest.raises(UserError, match="not a regular file"):
            load_config(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 500 + "]" * 500, "nested more than 100 deep"),
        ("[" + "0," * 1_100_000 + "0]", "holds more than 1,000,000 values"),
        ('"\udcff"', "no text in UTF-8"),
    ],
)
def test_json_that_takes_much_memory_is_not_read(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=reason):
        load_config(tmp_path / "config.json")


def test_lines_that_are_no_metrics_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [b'{"iteration": 1}', b"3", b"[]", b'{"iteration": "x"}', b"\xff", b"[" * 10_000, b'{"iteration": 2}']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_metrics(tmp_path) == [{"iteration": 1}, {"iteration": 2}]
    assert len(caplog.records) == 5


# Published checkpoints


def test_every_flipped_bit_of_a_published_weight_is_found(tmp_path: Path) -> None:
    content = (GOLDEN / "ctm_sort.pt").read_bytes()
    with zipfile.ZipFile(GOLDEN / "ctm_sort.pt") as archive:
        members = [item for item in archive.infolist() if item.filename.partition("/")[2].startswith("data")]
    for member in members:
        damaged = bytearray(content)
        # after the member's header, its name and the padding, whose length is before the name
        start = member.header_offset + 30 + sum(content[member.header_offset + place] for place in (26, 28))
        damaged[start + member.file_size // 2] ^= 4
        (tmp_path / "a.pt").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged, or cannot be read: its archive is damaged \(Bad CRC-32"):
            load_official(tmp_path / "a.pt")


def test_a_published_file_takes_no_memory_that_it_does_not_hold(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    torch.save({"model_state_dict": {"a": torch.zeros(1).expand(10**10)}, "args": {"N_to_sort": 3}}, file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="'a' declares 10,000,000,000 numbers, more than it holds"):
        load_official(file)
    torch.save({"model_state_dict": {}, "args": {}, "more": Memory()}, file)
    with pytest.raises(ValueError, match=r"refused: it holds more than weights .*bytearray"):
        load_official(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    with pytest.raises(ValueError, match="it declares more bytes than it has"):
        load_official(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


# The terminal


def test_what_a_terminal_obeys_and_what_nobody_reads_is_not_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text('{"\\u001b]0;owned\\u0007\\u202e' + "x" * 10**6 + '": 1}')
    assert main(["train", "--config", str(tmp_path / "a.json")]) == 2
    written = capsys.readouterr().err
    assert written.removesuffix("\n").isprintable()
    assert r"\x1b]0;owned\x07\u202e" in written
    assert len(written) < MAX_MESSAGE + MAX_WORD


def test_a_message_keeps_its_beginning_and_its_end() -> None:
    shown = str(UserError("before " + "y" * 10**6 + " " + "word " * 10**5 + "after\n\x9b\ud800"))
    assert shown.startswith("before yyy")
    assert shown.endswith("after\n\\x9b\\ud800")
    assert len(shown) <= MAX_MESSAGE + 10
    assert str(UserError("Größe 2\tµs")) == "Größe 2\tµs"
