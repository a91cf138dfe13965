from ctm_rl.checkpoints.published import load_official as load_official
from ctm_rl.config import AnswerConfig as AnswerConfig
from ctm_rl.config import CoreConfig as CoreConfig
from ctm_rl.config import PolicyConfig as PolicyConfig
from ctm_rl.inference.load_model import load_model as load_model
from ctm_rl.inference.policy import Policy as Policy
from ctm_rl.models.actor_critic import ActorCritic as ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine as ContinuousThoughtMachine

__version__: str
