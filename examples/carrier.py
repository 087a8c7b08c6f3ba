"""A carrier for Simlatch, in the standard library of Python 3.9 or newer: it makes
no license real, and refuses every SIM whose ICCID ends in 9.

    SIMLATCH_CARRIER_TOKEN=t0ken python3 examples/carrier.py
    SIMLATCH_CARRIER_TOKEN=t0ken simlatch carrier check http://127.0.0.1:8700/
    SIMLATCH_CARRIER_TOKEN=t0ken simlatch serve --carrier http:http://127.0.0.1:8700/

docs/carriers.md says what is asked of one."""
import base64, hashlib, hmac, json, os, sqlite3, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = os.environ.get("SIMLATCH_CARRIER_TOKEN", "")
SECRET = os.environ.get("SIMLATCH_CARRIER_SECRET", "")
PORT = int(os.environ.get("CARRIER_PORT", "8700"))
# What became of each task, on the disk: asked again, also after a crash, the answer
# is the same and nothing is done twice.
DATABASE = sqlite3.connect(os.environ.get("CARRIER_DATABASE", "carrier.db"), check_same_thread=False)
DATABASE.execute("CREATE TABLE IF NOT EXISTS task (key TEXT PRIMARY KEY, outcome TEXT, text TEXT)")
LOCK = threading.Lock()


def license_sim(task):
    """Here the network is told, by the key, so that it too does nothing twice."""
    if task["device"]["iccid"].endswith("9"):
        return "refused", "This SIM is not ours."
    return "done", ""


def outcome(task):
    key = task["key"]
    known = DATABASE.execute("SELECT outcome, text FROM task WHERE key = ?", (key,)).fetchone()
    if known is None:
        known = license_sim(task)
        DATABASE.execute("INSERT INTO task VALUES (?, ?, ?)", (key, *known))
    return {"key": key, "outcome": known[0], "text": known[1]}


def believed(headers, body):
    """The bearer token, and the signature by Standard Webhooks, where they are set."""
    if TOKEN and not hmac.compare_digest(headers.get("Authorization", "").encode(), f"Bearer {TOKEN}".encode()):
        return False
    if SECRET:
        at = headers.get("webhook-timestamp", "")
        if not at.isdigit() or abs(time.time() - int(at)) > 300:
            return False
        signed = f"{headers.get('webhook-id')}.{at}.".encode() + body
        mac = hmac.digest(base64.b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256)
        want = b"v1," + base64.b64encode(mac)
        return any(hmac.compare_digest(s.encode(), want) for s in headers.get("webhook-signature", "").split())
    return True


class Carrier(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not believed(self.headers, body):
            return self.answer(401, {"detail": "who are you?"})
        try:
            tasks = json.loads(body)["tasks"]
            with LOCK, DATABASE:  # committed before it is answered
                outcomes = [outcome(task) for task in tasks]
        except (ValueError, KeyError, TypeError) as wrong:
            return self.answer(400, {"detail": f"not a call that I know: {wrong!r}"})
        self.answer(200, {"outcomes": outcomes})

    def answer(self, status, message):
        body = json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Carrier)
    print(f"a carrier at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
