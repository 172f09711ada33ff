"""What training is made of: activations, losses, optimizers and schedules, built by name."""

from headrace_models.layers.build import build_activation, build_loss, build_optimizer, build_schedule

__all__ = ["build_activation", "build_loss", "build_optimizer", "build_schedule"]
