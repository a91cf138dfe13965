"""Questions about digits shown earlier: what synchronisation remembers when they are no longer visible."""

from dataclasses import replace

from ctm_rl.agents.experiments.answering import AnsweringExperiment, HeldOutSettings, LearningSettings, TaskConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import AnswerConfig

QA_MNIST = "ctm_rl.envs:ctm_rl/QAMnist-v0"


def qa_mnist() -> AnsweringExperiment:
    """One sum or difference of two digits shown before, small enough for two CPU cores."""
    return AnsweringExperiment(
        name="qa-mnist",
        env=TaskConfig(
            id=QA_MNIST,
            # half the batches ask for one digit: from sums alone, the parity of the answer is learned very late
            kwargs={"num_digits": [2, 2], "num_operations": [0, 1], "size": 16},
            held_out_kwargs={"split": "test", "num_operations": [1, 1]},
            words=("answers",),
        ),
        model=AnswerConfig(
            encoder="digits",
            pixel_mean=(0.1307,),
            pixel_std=(0.3081,),
            num_neurons=128,
            history_length=3,
            num_ticks=18,
            ticks_per_input=3,
            num_answer_ticks=3,
            nlm_hidden_dim=8,
            feature_dim=64,
            num_heads=4,
            pairing="random",
            num_output_sync_neurons=32,
            num_action_sync_neurons=32,
        ),
        learning=LearningSettings(batch_size=64, lr=1e-3, num_warmup_steps=200, max_grad_norm=1.0, weight_decay=1e-2),
        budget=BudgetConfig(env_steps=64 * 5500),
        held_out=HeldOutSettings(num_samples=1024),
        num_threads=2,
    )


def qa_mnist_10() -> AnsweringExperiment:
    """Questions about one to four digits as published: 1,024 neurons, ten ticks for each part."""
    base = qa_mnist()
    return replace(
        base,
        name="qa-mnist-10",
        env=TaskConfig(id=QA_MNIST, held_out_kwargs={"split": "test"}, words=("answers",)),
        model=replace(
            base.model,
            num_neurons=1024,
            history_length=30,
            num_ticks=10,
            ticks_per_input=10,
            num_answer_ticks=10,
            nlm_hidden_dim=16,
        ),
        learning=LearningSettings(batch_size=64, lr=1e-4, num_warmup_steps=500),
        budget=BudgetConfig(env_steps=64 * 300_000),
        held_out=HeldOutSettings(),
        num_threads=1,
    )
