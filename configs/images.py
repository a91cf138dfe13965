"""Image classification: MNIST, CIFAR and ImageNet."""

from dataclasses import replace

from ctm_rl.agents.experiments.answering import AnsweringExperiment, HeldOutSettings, LearningSettings, TaskConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import AnswerConfig

IMAGES = "ctm_rl.envs:ctm_rl/Images-v0"


def _task(dataset: str) -> TaskConfig:
    """The environment of a data set; ``--env.kwargs`` names its directory."""
    return TaskConfig(id=IMAGES, kwargs={"dataset": dataset}, held_out_kwargs={"split": "test"}, words=("images",))


def mnist() -> AnsweringExperiment:
    """Handwritten digits, 4,000 to learn from and 1,000 held out, shipped with the package."""
    return AnsweringExperiment(
        name="mnist",
        env=_task("mnist"),
        model=AnswerConfig(
            encoder="conv",
            positions="fourier",  # the receptive field of two layers is a third of a digit
            pixel_mean=(0.1307,),
            pixel_std=(0.3081,),
            input_dim=1,
            num_neurons=128,
            history_length=5,
            num_ticks=8,
            nlm_hidden_dim=4,
            dropout=0.1,
            nlm_dropout=0.0,
            feature_dim=32,
            num_heads=4,
            pairing="random-pairing",
            num_output_sync_neurons=64,
            num_action_sync_neurons=64,
        ),
        learning=LearningSettings(batch_size=64, lr=1e-3, num_warmup_steps=100, max_grad_norm=1.0, weight_decay=1e-2),
        budget=BudgetConfig(env_steps=64 * 5000),
        held_out=HeldOutSettings(num_samples=1000, num_iterations=4),
    )


def cifar10() -> AnsweringExperiment:
    """CIFAR-10 as published: 256 neurons, 50 ticks; needs --env.kwargs '{"path": DIR}'."""
    return AnsweringExperiment(
        name="cifar10",
        env=_task("cifar10"),
        model=AnswerConfig(
            encoder="resnet18-1",
            pixel_mean=(0.4914, 0.4822, 0.4465),
            pixel_std=(0.2470, 0.2435, 0.2616),
            num_neurons=256,
            history_length=15,
            num_ticks=50,
            synapse_depth=5,
            nlm_hidden_dim=64,
            feature_dim=64,
            num_heads=16,
            pairing="random-pairing",
            num_output_sync_neurons=256,
            num_action_sync_neurons=512,
        ),
        learning=LearningSettings(batch_size=512, lr=1e-4, num_warmup_steps=1000, weight_decay=1e-4),
        budget=BudgetConfig(env_steps=512 * 600_000),
        held_out=HeldOutSettings(num_samples=10_000, num_iterations=100),
    )


def cifar100() -> AnsweringExperiment:
    """CIFAR-100 as published: 512 neurons, 50 ticks; needs --env.kwargs '{"path": DIR}'."""
    base = cifar10()
    return replace(
        base,
        name="cifar100",
        env=_task("cifar100"),
        model=replace(
            base.model,
            encoder="resnet34-2",
            pixel_mean=(0.5071, 0.4865, 0.4409),
            pixel_std=(0.2673, 0.2564, 0.2762),
            num_neurons=512,
            history_length=25,
            synapse_depth=2,
            nlm_hidden_dim=16,
            feature_dim=256,
            num_heads=4,
            num_action_sync_neurons=256,
        ),
        learning=replace(base.learning, weight_decay=1e-3),
    )


def _cifar100_with(name: str, **changes: int) -> AnsweringExperiment:
    base = cifar100()
    return replace(base, name=name, model=replace(base.model, **changes))


def cifar100_d128() -> AnsweringExperiment:
    """CIFAR-100, ablation over width: 128 neurons."""
    return _cifar100_with("cifar100-d128", num_neurons=128)


def cifar100_d256() -> AnsweringExperiment:
    """CIFAR-100, ablation over width: 256 neurons."""
    return _cifar100_with("cifar100-d256", num_neurons=256)


def cifar100_d1024() -> AnsweringExperiment:
    """CIFAR-100, ablation over width: 1,024 neurons."""
    return _cifar100_with("cifar100-d1024", num_neurons=1024)


def cifar100_k25() -> AnsweringExperiment:
    """CIFAR-100, ablation over ticks: 25 ticks."""
    return _cifar100_with("cifar100-k25", num_ticks=25)


def cifar100_k75() -> AnsweringExperiment:
    """CIFAR-100, ablation over ticks: 75 ticks."""
    return _cifar100_with("cifar100-k75", num_ticks=75)


def cifar100_k100() -> AnsweringExperiment:
    """CIFAR-100, ablation over ticks: 100 ticks."""
    return _cifar100_with("cifar100-k100", num_ticks=100)


def imagenet() -> AnsweringExperiment:
    """ImageNet-1k as published: 4,096 neurons, 50 ticks; needs --env.kwargs '{"path": DIR}'."""
    return AnsweringExperiment(
        name="imagenet",
        env=_task("imagenet"),
        model=AnswerConfig(
            encoder="resnet152-4",
            pixel_mean=(0.485, 0.456, 0.406),
            pixel_std=(0.229, 0.224, 0.225),
            num_neurons=4096,
            history_length=25,
            num_ticks=50,
            synapse_depth=8,
            nlm_hidden_dim=64,
            feature_dim=1024,
            num_heads=16,
            dropout=0.2,
            nlm_dropout=0.0,
            pairing="random-pairing",
            num_output_sync_neurons=8196,
            num_action_sync_neurons=2048,
            num_self_pairs=32,
        ),
        learning=LearningSettings(
            batch_size=512, num_steps_per_iteration=10, lr=5e-4, num_warmup_steps=10_000, max_grad_norm=20.0
        ),
        budget=BudgetConfig(env_steps=512 * 500_000),
        held_out=HeldOutSettings(num_samples=50_000, num_iterations=500),
    )
