import io
import random

import pytest
import torch

from prunet_mm.supernet.scores import PathScores

LAYERS = {f'layer{i}': ('a', 'b', 'c') for i in range(5)}
CHOICES = [(layer, choice) for layer, choices in LAYERS.items() for choice in choices]


def planted(seed):
    """What each choice adds to the loss."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(len(CHOICES), dtype=torch.float64, generator=generator)


class World:
    """Paths drawn evenly, whose losses are planted scores, noise, and what the images do."""

    def __init__(self, truth, noise=0.05, seed=0, layers=LAYERS):
        self.truth = dict(zip(CHOICES, truth.tolist(), strict=True))
        self.noise, self.layers, self.rng = noise, layers, random.Random(seed)

    def judge(self, scores, times, count=4):
        for _ in range(times):
            images = self.rng.gauss(2.0, 1.0)
            paths = [
                {layer: self.rng.choice(choices) for layer, choices in self.layers.items()}
                for _ in range(count)
            ]
            losses = [
                images
                + sum(self.truth[pair] for pair in path.items())
                + self.rng.gauss(0, self.noise)
                for path in paths
            ]
            scores.observe(paths, torch.tensor(losses, dtype=torch.float64))
        return scores


def within_layers(values):
    """Differences to the first choice of the same layer, (..., layers, choices - 1)."""
    values = values.unflatten(-1, (len(LAYERS), -1))
    return values[..., 1:] - values[..., :1]


def test_planted_scores_are_recovered_from_noisy_losses_of_paths():
    truth = planted(0)
    scores = World(truth).judge(PathScores(CHOICES, memory=10_000), 1000)
    error = within_layers(scores.mean()) - within_layers(truth)
    assert error.abs().max() < 0.01
    assert scores.noise_sd() == pytest.approx(0.05, rel=0.05)


def test_what_the_images_do_to_all_paths_goes_away():
    """Batches differ by far more than paths do."""
    paths = [dict(zip(LAYERS, path, strict=True)) for path in ('aaaaa', 'abcab', 'cabba')]
    losses = torch.tensor([2.0, 2.5, 1.75], dtype=torch.float64)
    easy, hard = PathScores(CHOICES), PathScores(CHOICES)
    easy.observe(paths, losses)
    hard.observe(paths, losses + 64)
    torch.testing.assert_close(easy.draws(), hard.draws(), rtol=1e-9, atol=1e-9)


def test_doubt_is_as_large_as_the_error_is():
    """Over many worlds, errors are as large as the standard deviation of the draws says."""
    ratios = []
    for seed in range(40):
        truth = planted(seed)
        scores = World(truth, seed=seed).judge(PathScores(CHOICES, memory=100_000), 40)
        sd = within_layers(scores.draws()).std(0)
        ratios.append((within_layers(scores.mean()) - within_layers(truth)) / sd)
    ratios = torch.stack(ratios)
    assert ratios.mean().abs() < 0.15
    assert 0.85 < ratios.square().mean().sqrt() < 1.15
    assert 0.91 < (ratios.abs() < 2).double().mean() < 0.98  # 95 % of a normal distribution


def test_draws_are_spread_around_the_mean():
    scores = World(planted(0)).judge(PathScores(CHOICES, draws=4096), 40)
    error = scores.draws().mean(0) - scores.mean()
    assert (error.abs() < 5 * scores.draws().std(0) / 4096**0.5).all()


def test_without_knowledge_all_draws_are_wide():
    """And every choice is the best one in about as many of them."""
    scores = PathScores(CHOICES, draws=3000)
    draws = scores.draws()
    assert scores.mean().count_nonzero() == 0
    assert draws.std(0).min() > 0.9
    best = draws.unflatten(1, (len(LAYERS), -1)).argmin(2)
    for choice in range(3):
        share = (best == choice).double().mean(0)
        torch.testing.assert_close(share, torch.full_like(share, 1 / 3), atol=0.05, rtol=0)


def test_equal_paths_leave_all_the_doubt():
    """They have no difference, which is no evidence that there is no noise."""
    path = dict.fromkeys(LAYERS, 'a')
    scores = PathScores(CHOICES)
    scores.observe([path, dict(path)], torch.tensor([2.0, 2.0]))
    assert scores.noise_sd() == 1
    assert scores.draws().std(0).min() > 0.8
    other = {**path, 'layer0': 'b'}
    seldom, often = PathScores(CHOICES), PathScores(CHOICES)
    seldom.observe([path, other], torch.tensor([2.0, 2.5]))
    often.observe([path, other] + [path] * 8, torch.tensor([2.0, 2.5] + [2.0] * 8))
    assert often.noise_sd() >= seldom.noise_sd()


def test_doubt_stays_about_what_was_not_judged():
    known = {layer: choices[:2] for layer, choices in LAYERS.items()}
    scores = World(planted(0), layers=known).judge(PathScores(CHOICES), 200)
    judged, never = within_layers(scores.draws()).std(0).unbind(-1)
    assert judged.max() < never.min() / 4


def test_old_paths_fade():
    before, after = planted(1), planted(2)
    scores = World(before).judge(PathScores(CHOICES, memory=50), 500)
    scores = World(after).judge(scores, 500)
    error = (within_layers(scores.mean()) - within_layers(after)).abs().max()
    assert error < 0.05 < within_layers(before - after).abs().max()


def test_after_memory_judgements_one_counts_a_part_in_e():
    path = dict.fromkeys(LAYERS, 'a')
    scores = PathScores(CHOICES, memory=100)
    scores.observe([path, {**path, 'layer0': 'b'}], torch.tensor([2.0, 3.0]))
    start = scores.moment.clone()
    for _ in range(100):
        scores.observe([path, path], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(scores.moment, start / 2.718, rtol=0.01, atol=0)


def test_a_long_search_keeps_its_doubt_finite():
    """What no path tells, a layer's constant and what was removed, rests on the prior alone."""
    left = {layer: choices[:2] for layer, choices in LAYERS.items()}
    scores = World(planted(0)).judge(PathScores(CHOICES, memory=5), 20)
    World(planted(0), layers=left).judge(scores, 400)
    draws = scores.draws()
    assert draws.isfinite().all()
    assert draws.std(0).max() < 1.5 * scores.noise_sd()


def test_a_state_dict_brings_back_the_very_same_draws():
    world = World(planted(0))
    scores = world.judge(PathScores(CHOICES), 30)
    file = io.BytesIO()
    torch.save(scores.state_dict(), file)
    file.seek(0)
    resumed = PathScores(CHOICES)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(resumed.draws(), scores.draws())
    state = world.rng.getstate()
    world.judge(scores, 5)
    world.rng.setstate(state)
    world.judge(resumed, 5)
    assert torch.equal(resumed.draws(), scores.draws())


def test_state_does_not_grow_with_what_was_observed():
    scores = PathScores(CHOICES)
    before = {name: value.shape for name, value in scores.state_dict().items()}
    World(planted(0)).judge(scores, 20)
    assert {name: value.shape for name, value in scores.state_dict().items()} == before


def test_each_choice_has_a_column_of_its_own():
    scores = PathScores(CHOICES)
    assert [scores.column(*choice) for choice in CHOICES] == list(range(len(CHOICES)))
    with pytest.raises(KeyError):
        scores.column('layer0', 'd')
