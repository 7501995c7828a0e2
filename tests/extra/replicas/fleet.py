"""Three replicas on one database, each behind a proxy of its own unless said otherwise, and nginx before them."""

import hashlib
import secrets
import time

import parts
from proxy import Proxy
from workload import Installation


class Fleet:
    def __init__(self, binary, folder, postgres, database_port, database, loop, users=6, size=3, through_proxies=True,
                 **settings):
        postgres.query(f"CREATE DATABASE {database} TEMPLATE template0")
        self.loop, self.balancer, self.replicas = loop, None, []
        self.proxies = [Proxy(loop, database_port) for _ in range(size)] if through_proxies else []
        ports = [proxy.port for proxy in self.proxies] or [database_port] * size
        key = parts.master_key()
        try:
            for number, port in enumerate(ports):
                shared = parts.replica_settings(port, database, MASTER_KEY=key, **settings)
                self.replicas.append(parts.Replica(f"{database}_{number}", binary, folder, shared))
                self.replicas[-1].start()
            for replica in self.replicas:
                replica.wait_ready()
            self.balancer = parts.Nginx(folder, self.replicas, database)
            self.installation = Installation(self.replicas, self.balancer, admin_key(postgres, database))
            self.installation.prepare(users)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if self.balancer:
            self.balancer.stop()
        for replica in self.replicas:
            replica.stop()
        self.loop.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def admin_key(postgres, database):
    """An administrator's key, stored as `countersign admin-key create` stores it: as its digest."""
    key = "cs_admin_" + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    postgres.query(
        "INSERT INTO admin_keys (id, name, digest, created_at) VALUES"
        f" ('\\x{secrets.token_hex(16)}', 'suite', '\\x{digest}', {int(time.time() * 1000)})", database)
    return key
