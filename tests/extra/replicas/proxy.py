"""A TCP proxy with faults: delay, cut, black hole, loss of one direction, and half-open connections."""

import asyncio
import socket
import struct
import threading

PASS, CUT, BLACKHOLE, ONE_WAY = "pass", "cut", "blackhole", "one-way"


class Loop:
    """One event loop in a thread of its own, for all proxies."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def stop(self):
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _cancel_all(self):
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Proxy:
    """Listens on a free port of loopback and passes on to `target_port`."""

    def __init__(self, loop, target_port):
        self.loop, self.target_port = loop, target_port
        self.mode, self.delay = PASS, 0.0
        self.links, self.changed = set(), None
        self.port = loop.run(self._listen())

    def pass_on(self, forget=False):
        """Ends the fault. With `forget`, connections that met the fault stay silent, as after an unannounced failover. Without
        it, held data is delivered, as TCP does when a link returns."""
        self._set(PASS, 0.0, forget)

    def slow(self, seconds):
        """Delays all data by this time."""
        self._set(PASS, seconds)

    def cut(self):
        """Resets open and new connections."""
        self._set(CUT)

    def blackhole(self):
        """No byte, no reset, no end, in either direction; new connections hang."""
        self._set(BLACKHOLE)

    def lose_answers(self):
        """Requests arrive; answers do not."""
        self._set(ONE_WAY)

    def half_open(self):
        """Closes the server's side of every connection without notice to the client; new connections pass."""
        self.loop.run(self._half_open())

    def _set(self, mode, delay=0.0, forget=False):
        self.loop.run(self._change(mode, delay, forget))

    async def _listen(self):
        self.changed = asyncio.Condition()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def _change(self, mode, delay, forget):
        if forget:
            for link in self.links:
                link.is_dead = True
        self.mode, self.delay = mode, delay
        if mode == CUT:
            for link in list(self.links):
                link.reset()
        async with self.changed:
            self.changed.notify_all()

    async def _half_open(self):
        for link in self.links:
            link.is_dead = True
            if link.server:
                link.server.close()

    async def _accept(self, reader, writer):
        link = Link(writer)
        self.links.add(link)
        try:
            if self.mode == CUT:
                link.reset()
                return
            await self._wait_while({BLACKHOLE})
            if link.is_dead:
                await _swallow(reader)
                return
            server_reader, link.server = await asyncio.open_connection("127.0.0.1", self.target_port)
            await asyncio.gather(
                self._pump(link, reader, link.server, {BLACKHOLE}),
                self._pump(link, server_reader, writer, {BLACKHOLE, ONE_WAY}),
            )
        except (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            self.links.discard(link)
            link.close()

    async def _wait_while(self, modes):
        if self.mode in modes:
            async with self.changed:
                await self.changed.wait_for(lambda: self.mode not in modes)

    async def _pump(self, link, reader, writer, held_in):
        while True:
            try:
                data = await reader.read(65536)
            except OSError:
                data = b""
            await self._wait_while(held_in)
            if link.is_dead:
                await _swallow(reader)
                return
            if self.delay:
                await asyncio.sleep(self.delay)
            try:
                if not data:
                    # Either side ends: both do. The protocols in question do not use half-closed connections.
                    link.close()
                    return
                writer.write(data)
                await writer.drain()
            except OSError:
                link.close()
                return


class Link:
    """One connection through the proxy."""

    def __init__(self, client):
        self.client, self.server, self.is_dead = client, None, False

    def reset(self):
        for writer in (self.client, self.server):
            if writer:
                raw = writer.get_extra_info("socket")
                try:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass
                writer.transport.abort()

    def close(self):
        for writer in (self.client, self.server):
            if writer:
                writer.close()


async def _swallow(reader):
    try:
        while await reader.read(65536):
            pass
    except OSError:
        pass
