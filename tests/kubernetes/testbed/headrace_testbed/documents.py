"""Run specs as people may write them, drawn by hypothesis: what is said of all of them is tried on many."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

shares = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2)])
optimizers = st.sampled_from(
    [
        "adam",
        {"name": "momentum", "args": {"lr": 1.0, "momentum": 0.5, "nesterov": True}},
        {"name": "adamw", "args": {"lr": 1e-3, "betas": [0.9, 0.99]}},
    ]
)
schedules = st.sampled_from(["constant", {"name": "cosine", "args": {}}])
tasks = st.sampled_from(
    ["image-classification", {"name": "image-classification", "args": {"image_size": None, "channels": 1}}]
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    train, validation, test = draw(shares)
    workers = sorted([draw(st.integers(1, 8)), draw(st.integers(1, 8))])
    watched = [{}, {"metric": "log_loss", "patience": 3, "min_delta": 1.0}] if validation else []  # it needs samples
    return {
        "name": "digits",
        "task": draw(tasks),
        "data": {
            "source": draw(st.sampled_from(["builtin:digits", "s3://bucket/pictures", "https://host/file"])),
            "max_corrupt": draw(st.sampled_from([0.0, 0.01, 1.0])),
            "split": {
                "strategy": draw(st.sampled_from(["stratified", "random", "hash"])),
                "train": train,
                "validation": validation,
                "test": test,
                "seed": draw(st.integers(0, 2**31)),
            },
        },
        "model": {
            "name": draw(st.sampled_from(["resnet8", "resnet20"])),
            "args": draw(st.sampled_from([{}, {"width": 8}, {"shortcut": "B"}])),
            "init_from": draw(st.sampled_from([None, "s3://bucket/weights.safetensors"])),
            "freeze": draw(st.lists(st.sampled_from(["layer1.", "layer2."]), unique=True)),
        },
        "train": {
            "epochs": draw(st.integers(1, 1000)),
            "batch_size": draw(st.integers(8, 4096)),
            "optimizer": draw(optimizers),
            "schedule": draw(schedules),
            "workers": {"min": workers[0], "max": workers[1]},
            "gpus_per_worker": draw(st.sampled_from([0, 1, 2])),
            "seed": draw(st.integers(0, 2**63 - 1)),
            "precision": draw(st.sampled_from(["float32", "bfloat16", "float16"])),
            "sync_batch_norm": draw(st.booleans()),
            "accumulate_steps": draw(st.integers(1, 8)),
            "clip_norm": draw(st.sampled_from([None, 0.5, 1.0])),
            "ema_decay": draw(st.sampled_from([None, 0.999])),
            "parallel": draw(st.sampled_from(["ddp", "fsdp"])),
            "early_stop": draw(st.sampled_from([None, *watched])),
            "checkpoint_every_epochs": draw(st.integers(1, 5)),
            "max_failures": draw(st.integers(0, 5)),
            "resources": {"cpus_per_worker": draw(st.integers(1, 8))},
        },
    }
