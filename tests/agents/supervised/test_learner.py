"""Supervised learning over RLlib: recorded losses, several learners equal to one, samples made ahead."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any

import numpy as np
import pytest
import ray
import torch
from gymnasium.spaces import Box, Discrete
from paths import GOLDEN
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from safetensors.torch import load_file
from torch import Tensor

from ctm_rl.agents.experiments.answering import (
    AnsweringExperiment,
    HeldOutSettings,
    LearningSettings,
    LossKind,
    TaskConfig,
)
from ctm_rl.agents.rllib.columns import batch_of
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.agents.supervised.algorithm import Supervised
from ctm_rl.agents.supervised.config import SupervisedConfig
from ctm_rl.agents.supervised.learner import SupervisedLearner
from ctm_rl.agents.supervised.module import CERTAINTIES, PREDICTIONS, AnsweringModule
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, TARGETS
from ctm_rl.agents.supervised.scoring import Tally, loss_of
from ctm_rl.checkpoints.published import load_official
from ctm_rl.config import AnswerConfig, ModelKind
from ctm_rl.errors import UserError
from ctm_rl.machine.certainty import certainty
from ctm_rl.models.answering import Thought
from ctm_rl.models.losses import answer_loss

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # RLlib calls parts of itself that it has deprecated, and leaves files and loggers to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RENEW = "golden files come from running the published code; see tests/golden/README.md"
LENGTH = 5
SMALL = AnswerConfig(
    encoder="parity",
    positions="rotational-1d",
    num_neurons=12,
    history_length=4,
    num_ticks=3,
    nlm_hidden_dim=2,
    feature_dim=8,
    num_heads=2,
    pairing="random",
    num_output_sync_neurons=5,
    num_action_sync_neurons=4,
)
FITTED = dataclasses.replace(SMALL, num_groups=LENGTH, num_classes=2, input_dim=LENGTH)
EXPERIMENT = AnsweringExperiment(
    name="small",
    env=TaskConfig(id="ctm_rl.envs:ctm_rl/Parity-v0", kwargs={"length": LENGTH}),
    model=SMALL,
    learning=LearningSettings(batch_size=8, num_steps_per_iteration=3, lr=1e-2, num_warmup_steps=2),
    held_out=HeldOutSettings(num_samples=50),
    seed=7,
)


def learner_of(model: AnswerConfig, learning: LearningSettings, num_steps: int = 100) -> SupervisedLearner:
    """A learner in this process."""
    config = SupervisedConfig()
    config.environment("ctm_rl.envs:ctm_rl/Parity-v0", env_config={"length": LENGTH})
    config.training(learning=learning, num_total_steps=num_steps)
    spec = RLModuleSpec(module_class=AnsweringModule, model_config=dataclasses.asdict(model))
    config.rl_module(rl_module_spec=spec)
    config.debugging(seed=1, log_level="ERROR")
    spaces: dict[str, Any] = {DEFAULT_MODULE_ID: (Box(-1.0, 1.0, (LENGTH,)), Discrete(2))}  # not used
    learner = config.build_learner(spaces=spaces)
    assert isinstance(learner, SupervisedLearner)
    return learner


def model_of(learner: SupervisedLearner) -> Any:
    return learner._answering_module.model


def parameters_of(learner: SupervisedLearner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model_of(learner).named_parameters()}


def samples(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sequences and their parities."""
    is_negative = np.random.default_rng(seed).integers(2, size=(num_rows, LENGTH))
    return {OBSERVATIONS: (1 - 2 * is_negative).astype(np.float32), TARGETS: is_negative.cumsum(1) % 2}


def update(learner: SupervisedLearner, columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Has a learner learn; returns its metrics."""
    results = learner.update(batch=batch_of(columns, len(columns[TARGETS])))[DEFAULT_MODULE_ID]
    return {name: value.peek() if hasattr(value, "peek") else value for name, value in results.items()}


def worst(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest difference between two models' parameters."""
    return max(float((one[name] - two[name]).abs().max()) for name in one)


GOLDEN_CASES = sorted(
    path.stem
    for path in GOLDEN.glob("*.pt")
    if any(word in path.stem for word in ("parity", "maze", "qamnist", "image", "sort"))
)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_recorded_losses_hold_through_the_learner(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    official, recorded = load_official(GOLDEN / f"{name}.pt"), load_file(GOLDEN / f"{name}.io.safetensors")
    kinds: dict[str, LossKind] = {"mazes": "route", "sort": "order"}
    is_sure = official.kind == "ctm" or official.task == "image"
    targets = recorded["in/y"]
    learning = LearningSettings(
        batch_size=len(targets), loss=kinds.get(official.task, "classes"), use_most_certain=is_sure, num_warmup_steps=0
    )
    model: Any = official.model
    learner = learner_of(model.config, learning)
    model_of(learner).load_state_dict(model.state_dict())
    # Recorded in evaluation mode, and RLlib's forward_train puts everything into training mode.
    monkeypatch.setattr(model_of(learner).eval(), "train", lambda mode=True: None)
    if official.task == "qamnist":  # recorded digits are no bytes
        thought = model_of(learner)(recorded["in/x"], recorded["in/z"])
        outputs = {"predictions": thought.predictions, "certainties": thought.certainties}
    else:
        outputs = learner.module.forward_train({DEFAULT_MODULE_ID: {"obs": recorded["in/x"]}})[DEFAULT_MODULE_ID]
    loss = learner.compute_losses(
        fwd_out={DEFAULT_MODULE_ID: outputs}, batch={DEFAULT_MODULE_ID: {TARGETS: targets}}
    )  # fmt: skip
    loss = loss[DEFAULT_MODULE_ID]
    torch.testing.assert_close(loss, recorded["out/loss"], rtol=1e-6, atol=0.0, msg=lambda text: f"{text}; {RENEW}")
    if any(word in name for word in ("parity", "sort")):  # nothing differs in training, and every gradient is recorded
        metrics = update(learner, {OBSERVATIONS: recorded["in/x"].numpy(), TARGETS: targets.numpy()})
        assert metrics["total_loss"] == pytest.approx(float(recorded["out/loss"]), rel=1e-6)
        squares = [value.double().square().sum() for key, value in recorded.items() if key.startswith("grad/")]
        assert metrics["gradient_norm"] == pytest.approx(math.sqrt(float(sum(squares))), rel=1e-4)


def test_one_update_is_adamw_on_batch_after_batch() -> None:
    learning = LearningSettings(
        batch_size=8, lr=1e-2, num_warmup_steps=2, weight_decay=0.1, max_grad_norm=0.05, schedule="cosine"
    )
    learner = learner_of(FITTED, learning, num_steps=5)
    model = model_of(learner)
    twin = type(model)(FITTED)
    twin.load_state_dict(model.state_dict())
    matrices = [p for n, p in twin.named_parameters() if p.ndim > 1 and not any(u in n for u in learning.undecayed)]
    others = [p for p in twin.parameters() if all(p is not other for other in matrices)]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    rates = [1e-2 / 3, 2e-2 / 3, 1e-2, 1e-2 * 0.75, 1e-2 * 0.25]
    columns = samples(5 * 8)
    losses, norms = [], []
    for step, rate in enumerate(rates):
        rows = slice(8 * step, 8 * step + 8)
        thought = twin(torch.from_numpy(columns[OBSERVATIONS][rows]))
        targets = torch.from_numpy(columns[TARGETS][rows])
        logits = thought.predictions.unflatten(1, (LENGTH, 2)).transpose(1, 2)  # [B, C, G, K]
        ticks = torch.nn.functional.cross_entropy(
            logits, targets[..., None].expand(-1, -1, SMALL.num_ticks), reduction="none"
        ).mean(1)
        surest = ticks[torch.arange(8), thought.certainties.argmax(1)]
        loss = ((ticks.min(1).values + surest) / 2).mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(float(torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.05)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        twin.project_()
    metrics = update(learner, columns)
    assert min(norms) > 0.05  # it did clip
    assert metrics["total_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-4)
    assert metrics["lr"] == pytest.approx(rates[-1])
    assert worst(parameters_of(learner), {n: p.detach() for n, p in twin.named_parameters()}) < 1e-6
    assert learner.num_steps_taken == 5


@pytest.mark.parametrize("clip", [{"max_grad_norm": 0.1}, {"clip_quantile": 0.5}], ids=["norm", "quantile"])
def test_accumulated_parts_equal_one_large_batch(clip: dict[str, float]) -> None:
    whole = LearningSettings(batch_size=12, num_warmup_steps=0, lr=1e-2, **clip)  # pyright: ignore[reportArgumentType]
    one, three = (learner_of(FITTED, dataclasses.replace(whole, num_accumulated=n)) for n in (1, 3))
    model_of(three).load_state_dict(model_of(one).state_dict())
    before = parameters_of(one)
    metrics = [update(learner, samples(4 * 12)) for learner in (one, three)]
    for name in ("total_loss", "gradient_norm", "lr"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4)
    assert worst(parameters_of(one), parameters_of(three)) < 1e-5 < worst(before, parameters_of(one))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_nearly_as_full_precision_does(precision: str) -> None:
    settings = LearningSettings(batch_size=16, num_warmup_steps=0, lr=1e-2, clip_quantile=0.9)
    full = learner_of(FITTED, settings)
    half = learner_of(FITTED, dataclasses.replace(settings, precision=precision))  # pyright: ignore[reportArgumentType]
    model_of(half).load_state_dict(model_of(full).state_dict())
    columns = samples(16)
    first = [update(learner, columns) for learner in (full, half)]
    # sums may round to the same number; all of the parameters do not
    assert worst(parameters_of(half), parameters_of(full)) > 0.0
    assert first[1]["total_loss"] == pytest.approx(first[0]["total_loss"], rel=0.02)
    assert first[1]["gradient_norm"] == pytest.approx(first[0]["gradient_norm"], rel=0.1)
    last = [update(half, columns)["total_loss"] for _ in range(30)][-1]
    assert last < 0.8 * first[1]["total_loss"]
    assert all(parameter.dtype == torch.float32 for parameter in model_of(half).parameters())
    assert math.isfinite(half.score(columns).loss)
    again = learner_of(FITTED, dataclasses.replace(settings, precision=precision))  # pyright: ignore[reportArgumentType]
    again.set_own_state(half.get_own_state())
    assert again._scaler.get_scale() == half._scaler.get_scale()
    assert again.num_steps_taken == 31


def test_with_min_num_ticks_every_number_of_first_ticks_is_drawn() -> None:
    learner = learner_of(FITTED, LearningSettings(batch_size=8, min_num_ticks=2))
    columns = {name: torch.from_numpy(column) for name, column in samples(8).items()}
    model = model_of(learner).eval()
    with torch.no_grad():
        thought = model(columns[OBSERVATIONS])
    losses = [
        float(answer_loss(model.config, Thought(thought.predictions[..., :k], thought.certainties[..., :k]), targets))
        for targets in [columns[TARGETS]]
        for k in range(2, FITTED.num_ticks + 1)
    ]
    assert len(set(losses)) > 1
    seen = {
        float(
            learner.compute_loss_for_module(
                module_id=DEFAULT_MODULE_ID,
                config=learner.config,
                batch=columns,
                fwd_out={PREDICTIONS: thought.predictions, CERTAINTIES: thought.certainties},
            )
        )
        for _ in range(100)
    }
    assert seen == set(losses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": dataclasses.replace(SMALL, num_ticks=1)}, "min_num_ticks must be from 1 to 1|at most 1"),
        ({"model": dataclasses.replace(SMALL, kind="mlp")}, "for models that answer at every tick"),
        ({"signal": "reward"}, "for models that answer at every tick"),
    ],
)
def test_min_num_ticks_without_such_ticks_is_refused(changes: dict[str, Any], message: str) -> None:
    learning = LearningSettings(batch_size=8, min_num_ticks=2)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EXPERIMENT, learning=learning, **changes)


@pytest.mark.parametrize("kind", ["ctm", "lstm"])
def test_with_halt_certainty_the_loss_is_of_the_tick_where_the_model_halts(kind: ModelKind) -> None:
    torch.manual_seed(3)
    config = dataclasses.replace(FITTED, kind=kind, num_ticks=6)
    predictions, targets = 2 * torch.randn(40, LENGTH * 2, 6), torch.randint(0, 2, (40, LENGTH))
    grouped = predictions.unflatten(1, (LENGTH, 2))
    certainties = certainty(grouped, -2)
    halt = float(certainties.median())
    losses = torch.nn.functional.cross_entropy(
        grouped.permute(0, 2, 1, 3), targets[..., None].expand(-1, -1, 6), reduction="none"
    ).mean(1)
    ticks = [next((k for k in range(6) if row[k] >= halt), int(row.argmax())) for row in certainties]
    assert len(set(ticks)) > 3
    expected = sum(float(row.min() + row[tick]) / 2 for row, tick in zip(losses, ticks, strict=True)) / 40
    settings = LearningSettings(halt_certainty=halt)
    assert float(loss_of(settings, config, Thought(predictions, certainties), targets)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": dataclasses.replace(SMALL, kind="mlp")},
        {"signal": "reward"},
        {"learning": LearningSettings(batch_size=8, halt_certainty=0.9, use_most_certain=False)},
    ],
)
def test_halt_certainty_without_a_most_certain_tick_is_refused(changes: dict[str, Any]) -> None:
    changes = {"learning": LearningSettings(batch_size=8, halt_certainty=0.9), **changes}
    with pytest.raises(ValueError, match=r"learning\.halt_certainty is for models that are read at their most certain"):
        dataclasses.replace(EXPERIMENT, **changes)
    with pytest.raises(ValueError, match=r"learning\.halt_certainty must be above 0"):
        LearningSettings(halt_certainty=0.0)


def test_scores_count_what_is_right_and_leave_the_learner_as_it_was() -> None:
    learner = learner_of(dataclasses.replace(FITTED, dropout=0.5), LearningSettings(batch_size=8))
    columns = samples(11)
    before, generator = parameters_of(learner), torch.get_rng_state()
    learner._answering_module.train()
    first = learner.score(columns)
    assert learner._answering_module.training
    assert learner.score(columns) == first
    assert torch.equal(generator, torch.get_rng_state())
    assert worst(before, parameters_of(learner)) == 0.0
    model = model_of(learner).eval()
    thought = model(torch.from_numpy(columns[OBSERVATIONS]))
    elements, whole = 0.0, 0
    for row in range(11):
        tick = int(thought.certainties[row].argmax())
        answers = thought.predictions[row, :, tick].view(LENGTH, 2).argmax(1).tolist()
        right = [a == b for a, b in zip(answers, columns[TARGETS][row].tolist(), strict=True)]
        elements += sum(right) / LENGTH
        whole += all(right)
    assert first.num_samples == 11
    assert first.elements == pytest.approx(elements)
    assert first.whole == whole
    parts = [
        learner.score({name: column[rows] for name, column in columns.items()}) for rows in (slice(4), slice(4, 11))
    ]
    assert Tally.sum(parts) == pytest.approx(first, rel=1e-5)


@contextlib.contextmanager
def built(experiment: AnsweringExperiment) -> Iterator[Supervised]:
    """An experiment's algorithm."""
    algorithm = build_algorithm_config(experiment).build_algo()
    assert isinstance(algorithm, Supervised)
    try:
        yield algorithm
    finally:
        algorithm.stop()


def on_learners(algorithm: Supervised, function: Callable[[Any], Any]) -> list[Any]:
    assert algorithm.learner_group is not None
    return [answer.get() for answer in algorithm.learner_group.foreach_learner(lambda learner, *_: function(learner))]


def losses_of(algorithm: Supervised, count: int) -> list[float]:
    """The losses of the next iterations."""
    return [algorithm.train()["learners"][DEFAULT_MODULE_ID]["total_loss"] for _ in range(count)]


def test_two_learners_equal_one_on_the_same_samples() -> None:
    # Clipping that depends on the norm of all gradients shows whether they were exchanged whole.
    learning = LearningSettings(
        batch_size=8, num_steps_per_iteration=3, lr=1e-2, num_warmup_steps=0, max_grad_norm=0.2, num_accumulated=2
    )
    experiment = dataclasses.replace(EXPERIMENT, learning=learning, num_learners=2)
    one = learner_of(FITTED, learning, num_steps=experiment.num_steps)
    weights = {name: value.clone() for name, value in model_of(one).state_dict().items()}
    with built(experiment) as algorithm:
        assert algorithm.learner_group is not None
        on_learners(algorithm, lambda learner: learner._answering_module.model.load_state_dict(weights))
        for iteration in range(2):
            columns = samples(3 * 8, seed=iteration)
            rows = np.arange(3 * 8).reshape(3, 2, 4)  # step, learner, row
            shards = [{name: c[rows[:, part].ravel()] for name, c in columns.items()} for part in range(2)]
            results = algorithm.learner_group.update(
                batches=[batch_of(shard, 12) for shard in shards], timesteps={}
            )  # fmt: skip
            expected = update(one, columns)
            mean = np.mean([result[DEFAULT_MODULE_ID]["total_loss"].peek() for result in results])
            assert mean == pytest.approx(expected["total_loss"], rel=1e-5)
        models = on_learners(algorithm, lambda learner: dict(learner._answering_module.model.state_dict()))
        ours = model_of(one).state_dict()
        for model in models:
            for name, value in ours.items():
                torch.testing.assert_close(model[name], value, rtol=0.0, atol=1e-5)
        assert max(float((weights[name] - ours[name]).abs().max()) for name in weights) > 1e-2
        # What they learn from by themselves, and on what they are tested.
        assert all(map(math.isfinite, losses_of(algorithm, 2)))
        scores = algorithm.test()
        assert scores.num_samples == 50
        chunks = [algorithm._local_runner.held_out(chunk, 50).as_dict() for chunk in range(13)]
        of_first = on_learners(algorithm, lambda learner: Tally.sum(learner.score(chunk) for chunk in chunks))[0]
        assert scores == pytest.approx(of_first, rel=1e-5)


def test_remote_runners_make_the_same_samples_and_a_lost_one_changes_nothing() -> None:
    # Inside the test, so that they are pickled by value: runners cannot import this file.
    def wait(runner: Any) -> None:
        time.sleep(600)

    def fail(runner: Any) -> None:
        raise UserError("no such image")

    with built(EXPERIMENT) as algorithm:
        expected = losses_of(algorithm, 5)
        tested = algorithm.test()
    with built(dataclasses.replace(EXPERIMENT, num_env_runners=2, num_cpus_per_env_runner=0.5)) as algorithm:
        assert losses_of(algorithm, 2) == expected[:2]
        queue, group = algorithm._queue, algorithm.env_runner_group
        assert group is not None
        # Ahead of being needed, and dealt out evenly.
        assert sorted(queue._requests) == [(2, 0), (3, 0), (4, 0)]
        assert {request.worker for request in queue._requests.values()} == {1, 2}
        # The next samples are being made when their runner is lost: the other one makes them again.
        stuck = queue._pool.start(wait, queue._busy)
        queue._requests[2, 0] = stuck._replace(job=methodcaller("sample", iteration=2, part=0))
        ray.kill(group._worker_manager.actors()[stuck.worker], no_restart=False)
        assert losses_of(algorithm, 1) == expected[2:3]
        assert losses_of(algorithm, 2) == expected[3:]
        assert algorithm.test() == tested
        # And the lost one comes back.
        for _ in range(240):
            if group.num_healthy_remote_workers() == 2:
                break
            time.sleep(0.25)
            algorithm.restore_env_runners(group)
        assert group.num_healthy_remote_workers() == 2
        before = [ray.get(queue.take(key)) for key in list(queue._requests)]
        assert len(before) >= 2
        # What fails in the environment fails in any runner: it is reported at once.
        queue.request("broken", fail)
        with pytest.raises(UserError, match=r"^no such image$") as caught:
            queue.take("broken")
        assert caught.value.__cause__ is not None
        assert group.num_healthy_remote_workers() == 2
