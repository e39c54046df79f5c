"""LightningModules: fine-tune a model on people, then unlearn some of them. Losses live in methods/."""

from .evaluation_only import Exported
from .finetune import Finetune
from .optimizer import TransformersAdamW
from .sharding import FSDP2
from .unlearn import Unlearn
from .vanilla import check_vanilla, vanilla_model
