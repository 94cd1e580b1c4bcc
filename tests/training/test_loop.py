import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from training import checkpoint, memory
from training import trainer as trainers
from training.data import Label, PictureSet, pack, to_float, to_uint8
from training.errors import DivergedError, TrainingError
from training.loop import Budget, Run
from training.presets import TrainConfig
from training.readers import RawData
from training.trainer import StepStats, Trainer

MakeRun = Callable[..., Run]


@pytest.fixture
def make_trainer(tiny_config: TrainConfig, tiny_set: PictureSet) -> Iterator[Callable[..., Trainer]]:
    """Return a function that makes a trainer of the tiny set, in float32 unless told otherwise."""
    made: list[Trainer] = []

    def make(
        cls: type[Trainer] = Trainer,
        *,
        threads: int = 1,
        amp: bool = False,
        micro_batch: int | None = None,
        **changes: Any,
    ) -> Trainer:
        config = replace(tiny_config, **changes)
        made.append(cls(config, tiny_set, threads=threads, amp=amp, micro_batch=micro_batch))
        return made[-1]

    yield make
    for trainer in made:
        trainer.pool.close()


@pytest.fixture
def make_run(make_trainer: Callable[..., Trainer], tmp_path: Path) -> MakeRun:
    """Return a function that makes a run of so many steps, which may be stopped after some of them."""

    def make(
        steps: int, *, folder: str = "run", trainer: Trainer | None = None, stop_after: int | None = None, **given: Any
    ) -> Run:
        trainer = trainer or make_trainer(**given)
        budget = Budget(kimg=steps * trainer.config.batch_size / 1000)

        def status(_: str) -> None:
            run.stop_requested = trainer.steps == stop_after

        run = Run(trainer, tmp_path / folder, budget, snapshot_s=1e9, checkpoint_s=1e9, status=status)
        return run

    return make


def leaves(state: Any, path: str = "") -> dict[str, Any]:
    """Return the tensors and numbers of a nested state by their paths, but not the time."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {name: leaf for key, value in items for name, leaf in leaves(value, f"{path}/{key}").items()}
    return {} if path == "/elapsed_s" else {path: state}


def assert_same_state(found: dict[str, Any], expected: dict[str, Any]) -> None:
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        equal = torch.equal(found[name], leaf) if isinstance(leaf, Tensor) else found[name] == leaf
        assert equal, name


def test_trainers_of_one_seed_are_equal_and_of_two_seeds_differ(make_trainer: Callable[..., Trainer]) -> None:
    """The seed decides the initial weights, whatever torch's global generator has done."""
    first = make_trainer()
    torch.randn(5)
    assert_same_state(make_trainer().state(), first.state())
    other = make_trainer(seed=1)
    assert not torch.equal(other.generator.base.weight, first.generator.base.weight)


@pytest.mark.parametrize(("threads", "amp"), [(1, False), (2, False), (2, True)])
def test_resumed_run_equals_the_whole_run_bit_by_bit(make_run: MakeRun, threads: int, amp: bool) -> None:
    """Stopped after 5 of 14 steps and gone on with in a fresh trainer, a run ends where it would have ended."""
    whole = make_run(14, folder="whole", threads=threads, amp=amp)
    whole.train()
    first = make_run(14, threads=threads, amp=amp, stop_after=5)
    first.train()
    second = make_run(14, threads=threads, amp=amp)
    assert second.resume()
    assert_same_state(second.trainer.state(), first.trainer.state())
    assert second.trainer.steps == 5
    second.train()
    assert_same_state(second.trainer.state(), whole.trainer.state())
    assert whole.trainer.nimg == 14 * 8 > 2 * len(whole.trainer.data.train)  # the stretch runs over epochs
    assert not torch.equal(whole.trainer.generator_ema.head.weight, make_run(1).trainer.generator_ema.head.weight)


def test_resume_without_a_checkpoint_begins_anew(make_run: MakeRun) -> None:
    """An empty folder is not an error."""
    run = make_run(2)
    assert not run.resume()
    assert run.trainer.steps == 0


def test_resume_with_other_settings_is_refused(make_run: MakeRun) -> None:
    """A checkpoint of another learning rate is not gone on with."""
    make_run(1).train()
    with pytest.raises(TrainingError, match=r"learning_rate was \(0.001, 0.0001\), is \(0.002, 0.0002\)"):
        make_run(1, learning_rate=(2e-3, 2e-4)).resume()


def test_resume_with_other_data_is_refused(make_run: MakeRun, tiny_raw: RawData, tmp_path: Path) -> None:
    """A checkpoint of other pictures is not gone on with."""
    run = make_run(1)
    run.train()
    tiny_raw.train.images[0, 0, 0, 0] ^= 1
    labels = [Label(name) for name in tiny_raw.label_names]
    other = pack(tiny_raw, tmp_path / "other.safetensors", name="tiny", labels=labels, licence="none")
    with pytest.raises(TrainingError, match="trained on other data"):
        make_run(1, trainer=Trainer(run.trainer.config, other, amp=False)).resume()


def test_two_threads_compute_what_one_computes(make_trainer: Callable[..., Trainer]) -> None:
    """Shards change the order of sums, and nothing else."""
    one, two = make_trainer(threads=1), make_trainer(threads=2)
    for progress in (0.1, 0.2, 0.3):
        expected, found = one.step(progress), two.step(progress)
        for name in StepStats.__slots__:
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3, abs=1e-5)
    for name in ("g_parameters", "d_parameters"):
        for parameter, twin in zip(getattr(two, name), getattr(one, name), strict=True):
            torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-3, atol=1e-5)


def plain_step(trainer: Trainer, progress: float) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights of G and D after the next step of `trainer`, by the textbook: plain layout, plain Adam."""
    config, generator, discriminator = trainer.config, trainer.generator, trainer.discriminator
    for network in (generator, discriminator):
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    cosine = (1 + math.cos(math.pi * progress)) / 2
    mix = lambda pair: pair[1] + (pair[0] - pair[1]) * cosine  # noqa: E731
    options = {"lr": mix(config.learning_rate) / 200, "betas": (0.0, mix(config.beta2)), "foreach": False}
    shard = trainer._shards()[0]
    label_weight = min(progress / 0.15, 1)

    fake = generator(shard.z, shard.label, label_weight)
    old_real = discriminator(shard.real, shard.label, label_weight).detach()
    real, detached = shard.real.clone().requires_grad_(), fake.detach().requires_grad_()
    real_logits = discriminator(real, shard.label, label_weight)
    fake_logits = discriminator(detached, shard.label, label_weight)
    loss = F.softplus(fake_logits - real_logits)
    for images, logits in ((real, real_logits), (detached, fake_logits)):
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        loss = loss + mix(config.gamma) / 2 * slope.square().sum(dim=(1, 2, 3))
    discriminator.zero_grad()
    loss.mean().backward()
    torch.optim.Adam(discriminator.parameters(), **options).step()

    generator.zero_grad()
    F.softplus(old_real - discriminator(fake, shard.label, label_weight)).mean().backward()
    torch.optim.Adam(generator.parameters(), **options).step()
    return list(generator.parameters()), list(discriminator.parameters())


@pytest.mark.parametrize("progress", [0.06, 0.7])
def test_step_is_the_textbooks_step(make_trainer: Callable[..., Trainer], progress: float) -> None:
    """The loop's shards, shared fakes, layouts and fused optimisers give the update of the plain formulas."""
    rate = (0.2, 0.02)  # divided by 200 in the first step
    trainer, twin, start = (make_trainer(learning_rate=rate, threads=threads) for threads in (2, 1, 1))
    trainer.step(progress)
    for found, expected, before in zip(
        (trainer.generator, trainer.discriminator),
        plain_step(twin, progress),
        (start.generator, start.discriminator),
        strict=True,
    ):
        for (name, weight), plain, old in zip(found.named_parameters(), expected, before.parameters(), strict=True):
            moved = (plain - old).abs().mean()
            assert (weight - plain).abs().mean() <= 0.01 * moved, name
        assert moved > 1e-5


def test_steps_take_new_pictures_and_new_latents(make_trainer: Callable[..., Trainer]) -> None:
    """Six steps of eight show all 48 pictures, each with its own label, and no latent comes twice."""
    trainer = make_trainer(threads=2)
    shards = []
    for step in range(6):
        trainer.nimg, trainer.steps = 8 * step, step
        shards += trainer._shards()
    real, label = (torch.cat([getattr(shard, name) for shard in shards]) for name in ("real", "label"))
    assert len(torch.cat([shard.z for shard in shards]).unique(dim=0)) == 48
    found = sorted(image.tobytes() for image in to_uint8(real).numpy())
    assert found == sorted(image.tobytes() for image in trainer.data.train.images.numpy())
    bright_rows = real.amax(dim=(1, 3)).argmax(dim=1)
    assert torch.equal(bright_rows, label * 16 // 3)


def test_step_moves_the_average_with_the_generator(make_trainer: Callable[..., Trainer]) -> None:
    """After the first step the average is the generator itself, after more it lies behind."""
    trainer = make_trainer()
    trainer.step(0.1)
    torch.testing.assert_close(trainer.generator_ema.map_in.weight, trainer.generator.map_in.weight, rtol=0, atol=1e-8)
    for _ in range(4):
        trainer.step(0.1)
    assert not torch.equal(trainer.generator_ema.map_in.weight, trainer.generator.map_in.weight)


def test_step_counts_images_and_sets_the_rates(make_trainer: Callable[..., Trainer]) -> None:
    """Learning rate and beta2 follow progress, warm-up and the scale of a restart."""
    trainer = make_trainer()
    trainer.learning_rate_scale, trainer.steps = 0.5, 99
    trainer.step(1.0)
    for optimiser in (trainer.g_optimiser, trainer.d_optimiser):
        group = optimiser.param_groups[0]
        assert group["lr"] == pytest.approx(1e-4 * 0.5 * 0.5)
        assert group["betas"] == (0.0, pytest.approx(0.99))
    assert (trainer.nimg, trainer.steps) == (8, 100)


def test_step_without_classes_trains_too(tiny_config: TrainConfig, tiny_raw: RawData, tmp_path: Path) -> None:
    """An unconditional set leaves the embeddings alone and trains the rest."""
    raw = RawData(tiny_raw.train, tiny_raw.holdout, [])
    data = pack(raw, tmp_path / "plain.safetensors", name="plain", labels=[], licence="none")
    trainer, start = (Trainer(tiny_config, data, amp=False) for _ in range(2))
    trainer.step(0.5)
    assert torch.equal(trainer.generator.embed.weight, start.generator.embed.weight)
    assert not torch.equal(trainer.generator.base.weight, start.generator.base.weight)


def test_sample_shows_the_average_in_uint8(make_trainer: Callable[..., Trainer]) -> None:
    """However it is cut into batches and threads, a sample is the averaged generator's picture."""
    trainer = make_trainer(threads=2)
    z, label = torch.randn(5, 16), torch.arange(5) % 3
    pixels = trainer.sample(z, label, batch_size=2)
    assert (pixels.shape, pixels.dtype) == ((5, 16, 16, 1), torch.uint8)
    expected = to_uint8(trainer.generator_ema(z, label))
    assert (pixels.int() - expected.int()).abs().max() <= 1


def test_trainer_learns_the_bands(make_trainer: Callable[..., Trainer]) -> None:
    """Eighty steps bring the mean picture of a class nearer to the data's."""
    trainer = make_trainer(learning_rate=(1e-2, 3e-3), ema_halflife_kimg=0.1)
    z, label = torch.randn(60, 16, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3

    def distance() -> float:
        fake, data = to_float(trainer.sample(z, label)), trainer.data.train
        means = [
            (fake[label == index].mean(dim=0) - to_float(data.images[data.labels == index]).mean(dim=0)).square().mean()
            for index in range(3)
        ]
        return float(torch.stack(means).mean())

    before = distance()
    for step in range(80):
        trainer.step(step / 200)
    assert distance() < before / 4


@pytest.mark.parametrize("threads", [0, -2, 3, 16])
def test_trainer_refuses_threads_that_do_not_share_a_batch(make_trainer: Callable[..., Trainer], threads: int) -> None:
    """Shards of unequal size would weigh their pictures unequally."""
    with pytest.raises(TrainingError, match=f"batch size 8 cannot be shared evenly by {threads} threads"):
        make_trainer(threads=threads)


def test_trainer_refuses_pictures_of_another_size(make_trainer: Callable[..., Trainer]) -> None:
    """The message says how to prepare the data instead."""
    with pytest.raises(TrainingError, match=r"makes 32x32 pictures, the data has 16x16; prepare it with --size 32"):
        make_trainer(base_size=8)


def test_step_of_a_non_finite_loss_raises(make_trainer: Callable[..., Trainer]) -> None:
    """A NaN ends the run before it can be saved as progress."""
    trainer = make_trainer()
    with torch.no_grad():
        trainer.discriminator.logit.weight.fill_(math.nan)
    with pytest.raises(DivergedError, match="non-finite loss at image 8"):
        trainer.step(0.1)


def test_gap_that_stays_wide_raises(make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only steps in a row count: one good step clears the alarm."""
    monkeypatch.setattr(trainers, "GAP_STEPS", 3)
    trainer = make_trainer()
    for limit in (-1.0, -1.0, 1e9, -1.0, -1.0):
        monkeypatch.setattr(trainers, "GAP_LIMIT", limit)
        trainer.step(0.1)
    with pytest.raises(DivergedError, match=r"stayed above -1\.0 for 3 steps"):
        trainer.step(0.1)


class FlakyTrainer(Trainer):
    """Diverges at its third step, as long as the learning rate is above a limit and progress beyond another."""

    unstable_above = 0.5
    unstable_from = 0.0

    def step(self, progress: float) -> StepStats:
        if self.learning_rate_scale > self.unstable_above and self.steps >= 2 and progress >= self.unstable_from:
            raise DivergedError("flaky")
        return super().step(progress)


def test_run_that_diverges_restarts_at_half_the_rate(make_run: MakeRun, make_trainer: Callable[..., Trainer]) -> None:
    """The second attempt begins from the start, keeps the time used, and finishes."""
    trainer = make_trainer(FlakyTrainer)
    run = make_run(12, trainer=trainer)
    trainer.elapsed_s = 1000.0
    run.train()
    assert (trainer.learning_rate_scale, trainer.steps, trainer.nimg) == (0.5, 12, 96)
    assert trainer.elapsed_s > 1000
    reference = make_trainer()
    reference.learning_rate_scale = 0.5
    for step in range(12):
        reference.step(step / 12)
    assert torch.equal(trainer.generator.base.weight, reference.generator.base.weight)


def test_run_that_diverges_at_every_rate_gives_up(make_run: MakeRun, make_trainer: Callable[..., Trainer]) -> None:
    """After a half and a quarter of the learning rate the error reaches the user; nothing broken is saved."""
    trainer = make_trainer(FlakyTrainer)
    trainer.unstable_above = 0.0
    run = make_run(12, trainer=trainer)
    with pytest.raises(DivergedError, match="flaky"):
        run.train()
    assert trainer.learning_rate_scale == 0.25
    assert not (run.folder / checkpoint.FILE_NAME).exists()


def test_run_that_diverges_late_is_not_restarted(make_run: MakeRun, make_trainer: Callable[..., Trainer]) -> None:
    """Beyond a quarter of the budget a restart would throw too much away."""
    trainer = make_trainer(FlakyTrainer)
    trainer.unstable_from = 0.3
    with pytest.raises(DivergedError, match="flaky"):
        make_run(12, trainer=trainer).train()
    assert trainer.learning_rate_scale == 1.0


def test_restarted_run_resumes_at_its_lower_rate(make_run: MakeRun, make_trainer: Callable[..., Trainer]) -> None:
    """The halved rate is part of the state."""
    make_run(12, trainer=make_trainer(FlakyTrainer)).train()
    run = make_run(12)
    run.resume()
    assert run.trainer.learning_rate_scale == 0.5


def test_run_leaves_snapshot_grid_and_checkpoint(make_run: MakeRun) -> None:
    """A finished run can be looked at, evaluated and gone on with."""
    run = make_run(3)
    run.train()
    weights = load_file(run.folder / "snapshots" / "000000.safetensors")
    kept = run.trainer.generator_ema.state_dict()
    kept |= {f"discriminator.{name}": tensor for name, tensor in run.trainer.discriminator.state_dict().items()}
    assert set(weights) == set(kept)
    for name, tensor in kept.items():
        assert torch.equal(weights[name], tensor)
    with Image.open(run.folder / "grids" / "000000.png") as image:
        assert image.size == (10 * 16 * 2, 10 * 16 * 2)
    assert (run.folder / "checkpoint.pt").is_file()


def test_run_writes_snapshots_and_checkpoints_on_the_way(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interval of nothing, each step is kept."""
    run, kept = make_run(3), []
    run.snapshot_s = run.checkpoint_s = 0
    monkeypatch.setattr(run, "snapshot", lambda: kept.append(("snapshot", run.trainer.steps)))
    monkeypatch.setattr(run, "checkpoint", lambda: kept.append(("checkpoint", run.trainer.steps)))
    run.train()
    assert kept == [(kind, step) for step in (1, 2, 3, 3) for kind in ("snapshot", "checkpoint")]


def test_stats_rows_parse(make_run: MakeRun) -> None:
    """Every fiftieth step adds a row of finite numbers, named as in the guide."""
    run = make_run(2)
    for steps in (49, 99):  # the counter is moved, to save the time of a hundred steps
        run.trainer.steps = steps
        run.stop_requested = False
        run.status = lambda _: setattr(run, "stop_requested", True)
        run.train()
    rows = [json.loads(line) for line in (run.folder / "stats.jsonl").read_text().splitlines()]
    assert [(row["steps"], row["kimg"]) for row in rows] == [(50, 0.008), (100, 0.016)]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert row["D_loss"] > 0 < row["G_loss"]
        assert row["r1_penalty"] >= 0 <= row["r2_penalty"]
    assert [row["progress"] for row in rows] == [0.0, 0.5]
    assert rows[0]["learning_rate"] == pytest.approx(1e-3 * 50 / 200)


def test_status_says_how_far_the_run_is(make_run: MakeRun) -> None:
    """The line shows progress, images, speed, losses, gap and the time left."""
    run, lines = make_run(2), []
    run.status = lines.append
    run.train()
    assert len(lines) == 2
    assert lines[0].startswith("  0.0%  0.0 kimg")
    assert lines[0].endswith("left ?")
    assert lines[1].startswith(" 50.0%")
    assert all(word in lines[1] for word in (" images/s  D ", "  G ", "  gap ", "  left 0:"))


def test_finished_run_does_not_train_on(make_run: MakeRun) -> None:
    """The same command after the end changes nothing."""
    run = make_run(3)
    run.train()
    before = copy.deepcopy(run.trainer.state())
    run.train()
    assert_same_state(run.trainer.state(), before)
    assert run.trainer.steps == 3


@pytest.mark.parametrize(
    "given",
    [{}, {"minutes": 1, "kimg": 1}, {"minutes": 0}, {"kimg": -1}, {"minutes": math.nan}, {"kimg": math.inf}],
)
def test_budget_that_is_none_or_two_is_refused(given: dict[str, float]) -> None:
    """Exactly one finite number above zero is a budget."""
    with pytest.raises(TrainingError, match="either --minutes or --kimg"):
        Budget(**given)


def test_budget_measures_progress_in_its_own_unit() -> None:
    """Minutes look at the clock, images at the counter."""
    assert Budget(minutes=2).progress(elapsed_s=30, nimg=10**9) == 0.25
    assert Budget(kimg=2).progress(elapsed_s=1e9, nimg=500) == 0.25


def test_run_with_a_budget_of_minutes_ends_when_they_are_used(make_run: MakeRun) -> None:
    """Time from before a resume counts."""
    run = make_run(1)
    run.budget = Budget(minutes=1)
    run.trainer.elapsed_s = 60.0
    run.train()
    assert run.trainer.steps == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_micro_batches_take_the_step_of_the_whole_batch(make_trainer: Callable[..., Trainer], threads: int) -> None:
    """Gradients that are added up over parts of a batch move the weights as the whole batch does."""
    whole = make_trainer(threads=threads)
    parts = make_trainer(threads=threads, micro_batch=2)
    assert parts.micro_batch == 2 < whole.micro_batch
    for _ in range(3):
        expected, found = whole.step(0.5), parts.step(0.5)
        assert found.d_loss == pytest.approx(expected.d_loss, abs=1e-5)
        assert found.r2 == pytest.approx(expected.r2, rel=1e-3)
    for network in ("generator", "discriminator", "generator_ema"):
        pairs = zip(getattr(parts, network).parameters(), getattr(whole, network).parameters(), strict=True)
        for part, expected_weight in pairs:
            torch.testing.assert_close(part, expected_weight, rtol=0, atol=2e-5)


def test_little_memory_makes_micro_batches(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the batch does not fit, the largest part of it that does goes through at once."""
    per_picture = make_trainer()._picture_bytes()
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(per_picture * memory.OVERHEAD * 5))
    trainer = make_trainer()
    assert trainer.micro_batch == 4
    monkeypatch.undo()
    state = copy.deepcopy(trainer.state())
    resumed, chosen = make_trainer(), make_trainer(micro_batch=2)
    for other in (resumed, chosen):
        other.load_state(copy.deepcopy(state))
    assert (resumed.micro_batch, chosen.micro_batch) == (4, 2)  # what the user says now goes before
    del state["micro_batch"]  # as older checkpoints
    resumed.load_state(state)


def test_batch_norm_takes_the_whole_batch(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a batch would be normalised by themselves, which is another step; only the user can ask for that."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert make_trainer(system="mlp-bn").micro_batch == 8
    assert make_trainer(system="mlp-lsgan").micro_batch == 2
    assert make_trainer(system="mlp-bn", micro_batch=4).micro_batch == 4


def test_micro_batches_resume_bit_by_bit(make_run: MakeRun, make_trainer: Callable[..., Trainer]) -> None:
    """A run in small parts that was interrupted ends with the weights of one that was not."""
    whole = make_run(4, folder="whole", trainer=make_trainer(micro_batch=2))
    whole.train()
    make_run(4, folder="parts", trainer=make_trainer(micro_batch=2), stop_after=2).train()
    resumed = make_run(4, folder="parts", trainer=make_trainer())
    assert resumed.resume()
    resumed.train()
    assert_same_state(resumed.trainer.state(), whole.trainer.state())


def test_lazy_penalties_are_shown_on_every_row(make_run: MakeRun, make_trainer: Callable[..., Trainer]) -> None:
    """A row tells the penalties of the last step that had them, whichever step the row is written after."""
    run = make_run(50, trainer=make_trainer(penalty_every=4))
    run.train()
    (row,) = [json.loads(line) for line in (run.folder / "stats.jsonl").read_text().splitlines()]
    assert row["r1_penalty"] > 0
    assert row["r2_penalty"] > 0


def test_saved_bytes_grow_with_the_picture(make_trainer: Callable[..., Trainer]) -> None:
    """What is measured per picture is at least one activation of each of its layers, in float32."""
    trainer = make_trainer()
    widest = trainer.config.widths[-1] * (trainer.network.resolution // 2) ** 2 * 4
    assert trainer._picture_bytes() > 4 * widest


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_micro_batch_that_does_not_divide_is_refused(make_trainer: Callable[..., Trainer], micro_batch: int) -> None:
    """The message names what was given and what it would have to divide."""
    with pytest.raises(TrainingError, match=f"--micro-batch {micro_batch} does not divide the 8 pictures"):
        make_trainer(micro_batch=micro_batch)
