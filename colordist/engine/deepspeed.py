"""DeepSpeed's ZeRO (arXiv 1910.02054): training state is partitioned among the processes.

Stage 1 partitions the optimizer state, stage 2 the gradients too, stage 3 the weights too. Each network has a DeepSpeed
engine of its own, made without Accelerate's plugin, which supports one only. Importing it takes a second.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor
from torch.nn.utils.parametrize import ParametrizationList

from colordist.engine.network import Network

deepspeed.ops.__compatible_ops__ = {}  # else it looks for a compiler and builds an extension for the CPU

# In elements. Tests lower them, so that small networks are partitioned, too.
PERSISTENCE_THRESHOLD = 10_000  # stage 3 replicates smaller tensors: to partition biases costs more than it saves
BUCKET = 5_000_000  # all-reduce bucket: 20 MB

_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, for each weight


def settings(stage: int, clip_norm: float | None) -> dict[str, Any]:
    """DeepSpeed's settings for one network."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # required, but without effect
        "gradient_accumulation_steps": 1,  # losses come weighted, and `gradient_sync` sets the boundary
        "gradient_clipping": clip_norm or 0.0,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET,
            "stage3_param_persistence_threshold": PERSISTENCE_THRESHOLD,
            "stage3_max_reuse_distance": 0,  # else networks below 1e9 weights stay gathered from forward to step
            "memory_efficient_linear": False,  # it would replace torch's linear in the entire process
        },
        "timers": {"throughput": {"enabled": False}},  # it waits for the device
    }


class DeepSpeedStrategy:
    """Averages gradients over all processes; each process then updates its partition of the weights."""

    bytes_sent: int | None = None  # weights are sent, too, and not all of it can be observed
    cuts_buckets_on_first_backward = False

    def __init__(self, network: Network, accelerator: Accelerator, stage: int) -> None:
        self.network = network
        self._stage = stage
        self._parameters: list[Any] = list(network.module.parameters())  # DeepSpeed adds attributes to them
        network.module.to(memory_format=torch.contiguous_format)  # DeepSpeed flattens weights
        accelerator.prepare_model(network.module, evaluation_mode=True)  # autocast, without DistributedDataParallel
        self._engine, *_ = deepspeed.initialize(
            model=network.module,
            optimizer=network.optimizer,
            config=settings(stage, network.config.clip_norm),
            dist_init_required=False,
        )
        self.trainable: Callable[..., Tensor] = self._engine
        self.skipped_in_a_row = torch.zeros((), device=accelerator.device)

    def frozen(self, *inputs: Tensor, **options: Tensor) -> Tensor:
        """Run the network in another's phase. Stage 1 would add gradients from here to those of its own next phase."""
        if any(parameter.requires_grad for parameter in self._parameters):
            raise RuntimeError("a network outside its phase has trainable parameters: freeze them first")
        answer: Tensor = self.network.module(*inputs, **options)
        return answer

    def begin_phase(self, step: int) -> None:
        """Set the step's learning rate, clear the gradients and iterate spectral norms."""
        if any(parameter.grad is not None for parameter in self._parameters):
            raise RuntimeError("a network has gradients from outside its phase: freeze it there")
        layers = [layer for layer in self.network.module.modules() if isinstance(layer, ParametrizationList)]
        with _gathered(layer.original for layer in layers):  # spectral norms read them
            self.network.begin_phase(step)

    @contextmanager
    def gradient_sync(self, *, last: bool) -> Iterator[None]:
        """Stage 1 reduces with the last micro-batch of a phase; the others with each, as they keep partitions only."""
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def update(self) -> dict[str, Tensor]:
        """Clip and step, unless the gradient norm is Inf or NaN. DeepSpeed waits for the device to know."""
        self._engine.step()
        norm = torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self._engine.device)
        skipped = norm.new_tensor(not self._engine.was_step_applied())
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * skipped
        return {"gradient_norm": norm, "skipped": skipped}

    def update_ema(self, images: int, batch: int) -> None:
        """Update the EMA weights, if there are any. They are replicated at any stage."""
        if self.network.ema is not None:
            with _gathered(self._parameters):
                self.network.ema.update(self.network.module, images, batch)

    def replicated(self) -> dict[str, Iterable[Tensor]]:
        """Weights and EMA weights; at stage 3 only buffers and EMA weights."""
        module, ema = self.network.module, self.network.ema
        weights = list(module.buffers() if self._stage == 3 else module.state_dict().values())
        found: dict[str, Iterable[Tensor]] = {"weights": weights} if weights else {}
        if ema is not None:
            found["averaged"] = ema.module.state_dict().values()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Gather the state, in the format of ``DDPStrategy``. A collective: all processes must call it."""
        with _gathered(self._parameters):
            weights = {name: value.clone() for name, value in self.network.module.state_dict().items()}
        state: dict[str, Any] = {"module": weights, "optimizer": self._optimizer_state(), "scaler": {}}
        state["skipped_in_a_row"] = self.skipped_in_a_row
        if self.network.ema is not None:
            state["ema"] = self.network.ema.module.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()`` of any strategy and number of processes. A collective: all must call it."""
        with deepspeed.zero.GatheredParameters(self._parameters, modifier_rank=0):
            self.network.module.load_state_dict(state["module"])
        self.network.module.requires_grad_(True)  # DeepSpeed ignores frozen parameters
        for parameter in self._parameters:  # the optimizer has its own copy
            if self._stage == 3:
                safe_set_local_fp32_param(parameter, parameter.ds_tensor)
            else:
                safe_set_full_fp32_param(parameter, parameter.detach())
        self._load_optimizer_state(state["optimizer"])
        self.skipped_in_a_row = state["skipped_in_a_row"].to(self.skipped_in_a_row.device)
        if self.network.ema is not None:
            self.network.ema.module.load_state_dict(state["ema"])

    def _optimizer_state(self) -> dict[str, Any]:
        """Adam's state, gathered, in the format of ``torch.optim``."""
        optimizer = self.network.optimizer
        indices = list(range(len(self._parameters)))
        groups = [{**group, "params": indices} for group in optimizer.param_groups]
        if not optimizer.state:
            return {"state": {}, "param_groups": groups}
        step = next(iter(optimizer.state.values()))["step"]
        self.network.module.requires_grad_(True)  # DeepSpeed ignores frozen parameters
        moments = [
            {key: safe_get_full_optimizer_state(parameter, key) for key in _MOMENTS} for parameter in self._parameters
        ]
        return {"state": {i: {"step": step.clone(), **moments[i]} for i in indices}, "param_groups": groups}

    def _load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Load this process's partition of Adam's state. Raises ValueError when it doesn't fit."""
        (group,), moments, parameters = state["param_groups"], state["state"], self._parameters
        if len(group["params"]) != len(parameters):
            raise ValueError(f"Adam's state is of {len(group['params'])} parameters, not {len(parameters)}")
        self.network.optimizer.param_groups[0].update({key: group[key] for key in group if key != "params"})
        steps = {float(each["step"]) for each in moments.values()}
        if moments and (len(moments) != len(parameters) or len(steps) > 1):
            raise ValueError("some weights have had more updates than others")
        if moments or self.network.optimizer.state:
            self._make_moments(steps.pop() if steps else 0.0)
        for index, moment in moments.items():
            for key in _MOMENTS:
                self._set_moment(parameters[index], key, moment[key])

    def _set_moment(self, parameter: Any, key: str, value: Tensor) -> None:  # noqa: ANN401
        """Set this process's partition of a moment."""
        if self._stage == 3:  # safe_set_full fails where the size isn't divisible
            safe_set_local_optimizer_state(parameter, _part(parameter, value), key)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def _make_moments(self, step: float) -> None:
        """Create Adam's state, which Adam itself creates only in its first step."""
        zero, state = self._engine.optimizer, self.network.optimizer.state
        parts = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        for part in parts:
            state[part] = {"step": torch.tensor(step, device=part.device)}
            state[part] |= {key: torch.zeros_like(part, requires_grad=False) for key in _MOMENTS}
        if self._stage < 3:
            lazy_init_hp_params_optimizer_state(zero.bit16_groups[0], parts[0], state)


def _gathered(parameters: Iterable[Tensor]) -> AbstractContextManager[Any]:
    """Context with partitioned weights gathered. Only these: at its end it would partition all that it was given."""
    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([p for p in parameters if p.numel() == 0])
    return context


def _part(parameter: Any, value: Tensor) -> Tensor:  # noqa: ANN401
    """This process's partition of a tensor of a weight's shape: flat; all have one size, padded with zeros."""
    size, rank, processes = parameter.ds_tensor.numel(), dist.get_rank(), dist.get_world_size()
    return F.pad(value.flatten(), (0, size * processes - value.numel())).narrow(0, size * rank, size)
