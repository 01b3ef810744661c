"""As much of an MQTT 3.1.1 broker as a publisher needs: it accepts, acknowledges and remembers."""

import contextlib
import socket
import threading


class Broker:
    """Listens on loopback until it is closed; ``messages`` are (topic, payload, retain) in the order they came."""

    def __init__(self, port=0, *, refuse=False):
        self.refuse, self.messages, self.will, self.user = refuse, [], None, None
        self.hold = threading.Event()
        self.hold.set()
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def topics(self, end):
        """Payloads of the topics with this end."""
        return [payload for topic, payload, _ in self.messages if topic.endswith(end)]

    def close(self):
        """Go away at once, as if killed."""
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError, IndexError), client.makefile("rb") as stream:
            while head := stream.read(1):
                length = shift = 0
                while True:
                    byte = stream.read(1)[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = stream.read(length)
                self.hold.wait()
                kind, flags = head[0] >> 4, head[0] & 15
                if kind == 1:
                    self._connect(body)
                    client.sendall(bytes([0x20, 2, 0, 5 if self.refuse else 0]))
                elif kind == 3:
                    self._publish(client, flags, body)
                elif kind == 12:
                    client.sendall(b"\xd0\0")

    def _connect(self, body):
        flags, at, fields = body[7], 10, []
        while at < len(body):
            size = int.from_bytes(body[at : at + 2], "big")
            fields.append(body[at + 2 : at + 2 + size])
            at += 2 + size
        if flags & 4:
            self.will = fields[1].decode(), fields[2]
        if flags & 128:
            self.user = tuple(field.decode() for field in fields[-2:])

    def _publish(self, client, flags, body):
        size = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        if flags & 6:
            client.sendall(b"\x40\2" + rest[:2])
            rest = rest[2:]
        self.messages.append((topic, rest, bool(flags & 1)))
