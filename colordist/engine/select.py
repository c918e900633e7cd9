"""Selection of the strategy, by the launcher. Another strategy is one file and one case here."""

from typing import TYPE_CHECKING

from colordist.engine.ddp import DDPStrategy
from colordist.engine.environment import check_clipping, zero_stage
from colordist.engine.network import Network
from colordist.engine.strategy import Strategy
from colordist.errors import UserError
from colordist.extras import needs_extra

if TYPE_CHECKING:
    from accelerate import Accelerator


def select_strategy(name: str, network: Network, accelerator: "Accelerator") -> Strategy:
    """Select the strategy of a network. Raises UserError where DeepSpeed is missing or can't train it as configured."""
    stage = zero_stage()
    if stage is None:
        return DDPStrategy(network, accelerator)
    with needs_extra("deepspeed", "the launcher asks for DeepSpeed, which"):
        from colordist.engine.deepspeed import DeepSpeedStrategy  # takes a second to import

    check_clipping(f"optimizer.{name}.clip_norm", network.config.clip_norm)
    if network.has_parts:
        keys = "train.freeze and optimizer.generator.lr_scales"
        raise UserError(f"{keys} don't work with DeepSpeed: launch with launch/multi_gpu.yaml")
    return DeepSpeedStrategy(network, accelerator, stage)
