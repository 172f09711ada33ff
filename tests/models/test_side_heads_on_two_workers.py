"""A network with side heads trains on two workers: DDP gets every gradient, and both end with the same weights."""

from __future__ import annotations

from pathlib import Path

import two_workers

SCRIPT = """
from headrace_models.classification.googlenet import GoogLeNet
torch.manual_seed(0)
model = GoogLeNet(3, 1, (8, 8), width=0.0625)
settings |= {
    "losses": [{"name": "cross-entropy", "args": {}, "task": "image-classification", "weight": 1.0}],
    "optimizer": {"name": "adam", "args": {"groups": [{"match": "fc.", "lr": 0.01}]}},
    "accumulate_steps": 2,
}
group, schedule = Group(rank, 2, torch.device("cpu")), share_out(12, [24, 24])
trainer = make_trainer(settings, model, make_objective(settings, task, group.device), group, schedule, own_code=False)
generator = torch.Generator().manual_seed(rank)
batches = [
    {
        "image": torch.randint(0, 255, (6, 1, 8, 8), dtype=torch.uint8, generator=generator),
        "label": torch.arange(6) % 3,
    }
    for _ in range(4)
]
before = model.aux2.fc2.weight.detach().clone()
trainer.epoch(1, batches, schedule, Teller(speaks=False), 1)
assert not torch.equal(before, model.aux2.fc2.weight)
own = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
both = [torch.zeros_like(own) for _ in range(2)]
dist.all_gather(both, own)
assert torch.equal(*both)
dist.destroy_process_group()
"""


def test_side_heads_train_on_two_workers(tmp_path: Path) -> None:
    two_workers.run(SCRIPT, tmp_path)
