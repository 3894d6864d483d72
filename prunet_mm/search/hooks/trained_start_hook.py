"""What a search makes and learns of a trained network before its first step."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.imitation import imitate
from prunet_mm.search.importance import sort_by_taylor


@HOOKS.register_module()
class TrainedStartHook(Hook):
    """Sorts hidden channels by Taylor importance, has candidates imitate, and judges each alone.

    It acts where the SuperNet starts as a trained network. First the channels, in whose order what
    imitates then learns at all widths. Then, if ``init_cfg.imitation`` says so, candidates that
    cannot be had from the network learn to do what its layers do.

    Random paths through its layers would
    say little: with three of them skipped nothing is left of what it has learnt. So the scores
    begin with how much the loss rises with each other candidate, or without a layer, in the network
    as it is (LANA's measure, arXiv 2107.10624), and paths are drawn by what is believed.

    Args:
        images: Of the architecture's, how many channels are sorted by, where the SuperNet asks for
            Taylor importance, as is the default.
        batches: Of the architecture's, how many alternatives are judged on.

    Raises:
        ConfigError: There are none to sort by.
    """

    priority = 'VERY_HIGH'  # before anything looks at the weights

    def __init__(self, images: int = 128, batches: int = 2) -> None:
        self.images, self.batches = images, batches

    def prepare(self, runner) -> None:
        """Sort and imitate, as for a rule, too."""
        supernet = runner.model.supernet
        if supernet.importance == 'taylor':
            sort_by_taylor(runner, self.images)
        if supernet.imitation:
            imitate(runner)

    def before_train(self, runner) -> None:
        """Do all of it, unless a checkpoint has been loaded, in which it is."""
        supernet = runner.model.supernet
        if runner.iter or supernet.importance is None:
            return
        self.prepare(runner)
        if supernet.sampling == 'hard':
            batches = runner.train_loop.dataloader.probe('architecture', self.batches)
            judge_alone(runner.model, batches)
            runner.model.weigh()


def judge_alone(model, batches) -> None:
    """Let the scores learn from each choice that differs from the network in one layer."""
    path = model.supernet.likeliest_path()
    for batch in batches:
        own = model.task_losses([batch], path)
        for name, options in model.supernet.all_options().items():
            others = [{**path, name: option} for option in options if option != path[name]]
            if others:
                losses = [model.task_losses([batch], other) for other in others]
                model.scores.observe([path, *others], torch.cat([own, *losses]))
