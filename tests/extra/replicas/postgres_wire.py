"""A minimal client of PostgreSQL's protocol, for servers with trust authentication."""

import socket
import struct


class SqlError(Exception):
    pass


class Connection:
    """One connection; statements run one at a time, outside of transactions unless they say BEGIN."""

    def __init__(self, port, database="postgres", user="postgres", timeout=5.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.settimeout(timeout)
        self.buffer = b""
        parameters = b"user\0" + user.encode() + b"\0database\0" + database.encode() + b"\0\0"
        self.socket.sendall(struct.pack("!ii", 8 + len(parameters), 196608) + parameters)
        self._until_ready()

    def query(self, sql):
        """The rows of the last statement in `sql`, as tuples of texts."""
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", 4 + len(body)) + body)
        return self._until_ready()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _exactly(self, length):
        while len(self.buffer) < length:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise OSError("the server closed the connection")
            self.buffer += chunk
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        return taken

    def _until_ready(self):
        rows, error = [], None
        while True:
            kind = self._exactly(1)
            body = self._exactly(struct.unpack("!i", self._exactly(4))[0] - 4)
            if kind == b"E":
                fields = dict((field[:1], field[1:].decode()) for field in body.split(b"\0") if field)
                error = fields.get(b"M", "unknown error")
            elif kind == b"R" and struct.unpack("!i", body[:4])[0] != 0:
                raise SqlError("the server asks for a password")
            elif kind == b"T":
                rows = []
            elif kind == b"D":
                rows.append(tuple(_columns(body)))
            elif kind == b"Z":
                if error:
                    raise SqlError(error)
                return rows
            if error and kind == b"E" and b"SFATAL" in body:
                raise SqlError(error)


def _columns(body):
    at = 2
    for _ in range(struct.unpack("!h", body[:2])[0]):
        length = struct.unpack("!i", body[at : at + 4])[0]
        at += 4
        if length < 0:
            yield None
        else:
            yield body[at : at + length].decode()
            at += length
