"""The models that are served: found, verified, loaded, warmed; looked up by name and version.

A bundle that is refused is remembered with its reason, and the others are served.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import structlog
import torch

from service import bundle as bundles
from service.bundle import Bundle, BundleError
from service.encoder import Encoder
from service.engine import LocalEngine, choose_device
from service.errors import ModelNotFound, ShuttingDown, Starting
from service.metrics import Metrics
from service.pipeline import ServedModel
from service.sample import Sample
from service.settings import Settings
from service.variants import Candidate, Memo, Pins, choose, in_float32

DEVICE_DRAIN_S = 5.0  # for a device that hangs on a batch: the process ends without it
_log = structlog.get_logger()


class Catalogue:
    """The served models.

    Args:
        settings: The service's configuration.
        encoder: The pool that encodes.
        metrics: The service's metrics.
        on_change: Called when a name may mean another model than before.
    """

    def __init__(
        self, settings: Settings, encoder: Encoder, metrics: Metrics, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._settings, self._encoder, self._metrics = settings, encoder, metrics
        self._on_change = on_change
        self._models: dict[str, dict[int, ServedModel]] = {}
        self.refused: dict[str, str] = {}
        self.loaded = False
        self.draining = False
        self.device: str | None = None  # where models run; known with the first one
        self._default = settings.default_model
        self._memo = Memo(settings.models_dir)

    def __iter__(self) -> Iterator[ServedModel]:
        """Return the models, by name, newest version first."""
        for name in sorted(self._models):
            for version in sorted(self._models[name], reverse=True):
                yield self._models[name][version]

    async def load(self) -> None:
        """Load every bundle of the models folder; whatever goes wrong with one is noted in `refused`."""
        try:
            found = await asyncio.to_thread(bundles.discover, self._settings.models_dir)
        except BundleError as error:
            found = {}
            self.refused["*"] = str(error)
        if self._default is None:
            self._default = next(iter(found), None)
        for name, versions in found.items():
            for version, folder in versions.items():
                model_id = f"{name}@{version}"
                try:
                    bundle = await asyncio.to_thread(bundles.verify, folder)
                    await self._serve(bundle)
                except BundleError as error:
                    self.refused[model_id] = str(error)
                    _log.error("bundle refused", model=model_id, reason=str(error))
                except Exception as error:  # a bundle must never take the process down
                    self.refused[model_id] = f"{type(error).__name__} while loading"
                    _log.exception("bundle failed", model=model_id)
        self.loaded = True
        self._metrics.ready.set(not self.reasons())

    async def _serve(self, bundle: Bundle) -> None:
        started = time.monotonic()
        manifest, settings = bundle.manifest, self._settings
        try:
            device = choose_device(settings.device)
        except ValueError as error:
            raise BundleError(str(error)) from error
        self.device = str(device)
        engine = await self._warm_engine(bundle, device)
        model = ServedModel(
            bundle,
            engine,
            encoder=self._encoder,
            metrics=self._metrics,
            max_queue_images=settings.max_queue_images,
        )
        self.add(model)
        seconds = time.monotonic() - started
        self._metrics.model_info.labels(
            manifest.name, str(manifest.version), bundle.digest, engine.dtype, str(device)
        ).set(1)
        self._metrics.model_load.labels(manifest.name).set(seconds)
        self._metrics.queue_limit_images.set(settings.max_queue_images)
        _log.info(
            "model ready",
            model=manifest.id,
            digest=bundle.digest,
            device=str(device),
            dtype=engine.dtype,
            engine_threads=engine.workers,
            batch_sizes=engine.status().batch_sizes,
            seconds=round(seconds, 3),
        )

    async def _warm_engine(self, bundle: Bundle, device: torch.device) -> LocalEngine:
        """Return a warm engine of the variant that is fastest here, or of a plainer one if golden pictures want that.

        Raises:
            BundleError: If the golden pictures are not reproduced.
        """
        pins = _pins(self._settings)
        known = await asyncio.to_thread(self._memo.find, bundle.digest, device, pins)
        chosen = await asyncio.to_thread(choose, bundle, device, pins, known)
        try:
            engine = await self._warm(bundle, device, chosen)
        except BundleError as error:
            plain = await asyncio.to_thread(in_float32, bundle, device, chosen.variant, pins)
            if plain is None:
                raise
            _log.warning("model falls back to a plainer variant", model=bundle.manifest.id, reason=str(error))
            chosen = plain
            engine = await self._warm(bundle, device, chosen)
        variant, is_exact = chosen.variant, self._settings.determinism == "exact"
        if is_exact and variant.batch_sizes and engine.fingerprint != variant.fingerprint:
            _log.warning("what is known of the batch sizes is outdated", model=bundle.manifest.id)
            await engine.drain()
            engine = await self._warm(bundle, device, replace(chosen, variant=replace(variant, batch_sizes=())))
        if is_exact:
            variant = replace(variant, batch_sizes=engine.status().batch_sizes, fingerprint=engine.fingerprint)
        if variant != known:
            await asyncio.to_thread(self._memo.keep, bundle.digest, device, pins, variant)
        facts = asdict(variant) | {"known_before": known is not None, "us_per_image": chosen.measured}
        _log.info("variant chosen", model=bundle.manifest.id, **facts)
        return engine

    async def _warm(self, bundle: Bundle, device: torch.device, candidate: Candidate) -> LocalEngine:
        manifest, variant = bundle.manifest, candidate.variant
        engine = LocalEngine(
            candidate.generator,
            manifest,
            device=device,
            max_batch_size=variant.max_batch_images,
            dtype=variant.dtype,
            threads=variant.engine_threads,
            torch_threads=variant.torch_threads,
            exact=self._settings.determinism == "exact",
            known_sizes=variant.batch_sizes,
            on_padding=self._metrics.padding_images.labels(manifest.name).inc,
        )
        try:
            await engine.warm_up(
                [Sample(golden.seed, golden.label, golden.truncation_psi) for golden in manifest.golden]
            )
        except BaseException:
            await engine.drain()
            raise
        return engine

    def add(self, model: ServedModel) -> None:
        """Serve a model whose engine is warm."""
        model.batcher.start()
        self._models.setdefault(model.manifest.name, {})[model.manifest.version] = model
        self._on_change()

    def reasons(self) -> list[str]:
        """Return why the service is not ready; an empty list means that it is."""
        reasons = []
        if not self.loaded:
            reasons.append("models are being loaded")
        elif self.find(None) is None:
            reasons.append(f"the default model {self._default or ''} is not served".replace("  ", " "))
            reasons += [f"{model_id}: {reason}" for model_id, reason in self.refused.items()]
            if not self.refused:
                reasons.append(f"the models folder {self._settings.models_dir} holds no bundle")
        if self.draining:
            reasons.append("draining")
        return reasons

    def stalled(self) -> list[str]:
        """Return what only a new process mends: a batch that hangs on the device, a device that is lost."""
        limit = self._settings.stall_s
        reasons = []
        for model in self:
            failure = model.engine.status().failure
            if failure is not None:
                reasons.append(f"{model.manifest.id}: the device is lost: {failure}")
            elif model.batcher.oldest_in_flight_s > limit:
                reasons.append(f"{model.manifest.id}: a batch has been running for more than {limit:g} s")
        return reasons

    def get(self, name: str | None) -> ServedModel:
        """Return a model.

        Args:
            name: `name` (its newest version), `name@version`, or `None` for the default.

        Returns:
            The model.

        Raises:
            ModelNotFound: If there is no such model.
            Starting: If models are still being loaded, or the bundle was refused.
            ShuttingDown: If the server is stopping.
        """
        if self.draining and not self._models:
            raise ShuttingDown("the server is shutting down", headers={"Retry-After": "1"})
        wanted = (name if name is not None else self._default) or ""
        model = self.find(name)
        if model is not None:
            return model
        refused = {
            key: why for key, why in self.refused.items() if key == "*" or wanted in (key, key.partition("@")[0])
        }
        served = wanted.partition("@")[0] in self._models
        if not self.loaded or (refused and not served) or name is None:
            why = "; ".join([f"{key}: {reason}" for key, reason in refused.items()] or self.reasons())
            raise Starting(why if self.loaded else "models are being loaded", headers={"Retry-After": "2"})
        known = ", ".join(model.manifest.id for model in self) or "none"
        if wanted in refused:
            raise ModelNotFound(f"{wanted} was refused: {refused[wanted]}; there are: {known}")
        raise ModelNotFound(f"unknown model {name!r}; there are: {known}")

    def find(self, wanted: str | None) -> ServedModel | None:
        """Return a model by `name`, `name@version`, or `None` for the default; `None` if there is no such model."""
        name, at, version = ((wanted if wanted is not None else self._default) or "").partition("@")
        versions = self._models.get(name, {})
        if not at:
            return versions[max(versions)] if versions else None
        return next((model for number, model in versions.items() if str(number) == version), None)

    async def drain(self, timeout_s: float) -> None:
        """Finish what is queued, for at most `timeout_s` seconds, then give back the devices that answer."""
        models = list(self)
        await asyncio.gather(*(model.batcher.drain(timeout_s) for model in models))
        for model in models:
            try:
                await asyncio.wait_for(model.engine.drain(), DEVICE_DRAIN_S)
            except TimeoutError:
                _log.error("engine does not end", model=model.manifest.id)


def _pins(settings: Settings) -> Pins:
    return Pins(
        dtype=None if settings.dtype == "auto" else settings.dtype,
        memory_format=None if settings.memory_format == "auto" else settings.memory_format,
        engine_threads=settings.engine_threads,
        torch_threads=settings.torch_threads,
        max_batch_images=settings.max_batch_images,
    )
