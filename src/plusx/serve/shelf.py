"""The models of a server by name; a changed one takes its predecessor's place when it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plusx.errors import PlusxError
from plusx.serve.bodies import Unusable
from plusx.serve.counters import Counters
from plusx.serve.lines import Lines
from plusx.serve.served import Served
from plusx.serve.settings import Settings
from plusx.serve.stamp import Stamp, stamp

POLL_S = 1.0


class Shelf:
    """Loads every model of ``settings``.

    Attributes:
        models: name -> the one that answers now.
        trouble: name -> why its newest files are not served; the one before goes on. It names no
            path of the server: the log does.

    Raises:
        PlusxError: one cannot be loaded.
    """

    def __init__(self, settings: Settings, counters: Counters, lines: Lines) -> None:
        self._settings, self._counters, self._lines = settings, counters, lines
        self._stamps = {name: stamp(path) for name, path in settings.models.items()}
        self.trouble: dict[str, str] = {}
        self.models = {name: self._load(name) for name in settings.models}

    @asynccontextmanager
    async def using(self, name: str | None) -> AsyncIterator[Served]:
        """A model for the time of one request; it stays whole though it be replaced meanwhile.

        Raises:
            Unusable: there is none of that name.
        """
        chosen = next(iter(self.models)) if name is None else name
        served = self.models.get(chosen)
        if served is None:
            known = ", ".join(self.models)
            raise Unusable(404, "no_model", f"no model {chosen[:80]!r}; there is {known}")
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1

    async def watch(self) -> None:
        """Look for changed files for ever."""
        pending: dict[str, Stamp] = {}
        while True:
            await asyncio.sleep(POLL_S)
            for name, path in self._settings.models.items():
                now = stamp(path)
                if now == self._stamps[name]:
                    pending.pop(name, None)
                elif pending.get(name) != now:
                    pending[name] = now  # still being written, perhaps: look once more
                else:
                    self._stamps[name] = now
                    await self._replace(name)

    def close(self) -> None:
        """Finish what is queued."""
        for served in self.models.values():
            served.close()

    async def _replace(self, name: str) -> None:
        try:
            fresh = await asyncio.to_thread(self._load, name)
        except PlusxError as error:
            self._keep_old(name, type(error).__name__, str(error))
            return
        except Exception as error:  # hostile or half-written files may raise anything
            self._keep_old(name, type(error).__name__, type(error).__name__)
            return
        old, self.models[name] = self.models[name], fresh
        self.trouble.pop(name, None)
        self._counters.reloads.labels("done").inc()
        self._lines.write("reloaded", model=name)
        while old.users:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(old.close)

    def _keep_old(self, name: str, kind: str, why: str) -> None:
        self.trouble[name] = (
            f"its changed files cannot be served ({kind}); the model before them goes on; the "
            "server's log says more"
        )
        self._counters.reloads.labels("failed").inc()
        self._lines.write("reload_failed", model=name, reason=why, serving="the one before")

    def _load(self, name: str) -> Served:
        served = Served(name, self._settings.models[name], self._settings, self._counters)
        engine = served.engine
        notes = list(served.predictor.notes) or None
        self._lines.write("loaded", model=name, engine=engine.name, precision=engine.precision,
                          notes=notes)  # fmt: skip
        return served
