"""The whole life of two licenses, with nothing but Python (3.9 or newer).

A token, a session, a listener, an assignment, its callbacks, the pool, and the
way back. The classes have the shape of the vendor's Python SDK, whose place they
take here; docs/sdks.md says how to point the SDK itself at Simlatch.

    SIMLATCH_URL=http://127.0.0.1:8080 python3 examples/assign.py

The server must be allowed to call this machine: simlatch sandbox is, simlatch
serve with --callback-allow 127.0.0.1/32.
"""

import base64
import json
import os
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def setting(name, otherwise):
    return os.environ.get("SIMLATCH_" + name) or otherwise


URL = setting("URL", "http://127.0.0.1:8080")
ACCOUNT = setting("ACCOUNT", "0000123456-00001")
SKU = setting("SKU", "SIMSec-IoT")
SIMS = [
    (setting("IMEI_1", "490154203237518"), setting("ICCID_1", "89148000000000000012")),
    (setting("IMEI_2", "490154203237526"), setting("ICCID_2", "89148000000000000020")),
]


class ApiError(Exception):
    """What an API answers that is not a success: the status, a code and a message."""

    def __init__(self, status_code, result):
        super().__init__(f"{status_code} {result['errorCode']}: {result['errorMessage']}")
        self.status_code, self.result = status_code, result


class Client:
    """Holds the two tokens and makes the calls."""

    def __init__(self, base_url, key, secret):
        self.base_url = base_url
        self.basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        self.bearer = self.session_token = None

    def fetch_token(self):
        token = self.send("POST", "/api/ts/v1/oauth2/token", b"grant_type=client_credentials", {
            "Authorization": "Basic " + self.basic,
            "Content-Type": "application/x-www-form-urlencoded",
        })
        self.bearer = token["access_token"]

    def call(self, method, path, body=None):
        headers = {"Authorization": "Bearer " + self.bearer}
        if self.session_token:
            headers["VZ-M2M-Token"] = self.session_token
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        return self.send(method, "/api/m2m/v1" + path, body, headers)

    def send(self, method, path, body, headers):
        request = urllib.request.Request(self.base_url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as response:
            raise ApiError(response.code, json.load(response)) from None


class SessionManagementController:
    def __init__(self, client):
        self.client = client

    def start_connectivity_management_session(self, body):
        result = self.client.call("POST", "/session/login", body)
        self.client.session_token = result["sessionToken"]
        return result

    def end_connectivity_management_session(self):
        return self.client.call("POST", "/session/logout")


class ConnectivityCallbacksController:
    def __init__(self, client):
        self.client = client

    def register_callback(self, aname, body):
        return self.client.call("POST", f"/callbacks/{aname}", body)

    def deregister_callback(self, aname, sname):
        return self.client.call("DELETE", f"/callbacks/{aname}/name/{sname}")


class SIMSecureForIoTLicensesController:
    def __init__(self, client):
        self.client = client

    def assign_license_to_devices(self, body):
        return self.client.call("POST", "/devices/license/actions/assign", body)

    def unassign_license_to_devices(self, body):
        # With the body that the documentation asks for and the SDK leaves out.
        return self.client.call("DELETE", "/devices/license/actions/assign", body)


class AccountSubscriptionsController:
    def __init__(self, client):
        self.client = client

    def list_account_subscriptions(self, body):
        return self.client.call("POST", "/accounts/subscriptions/actions/list", body)


class Listener(ThreadingHTTPServer):
    """Receives callbacks, each once.

    A message may come again, and before the answer to its request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", int(setting("CALLBACK_PORT", "0"))), CallbackHandler)
        self.seen = {}  # by request and ICCID
        self.came = threading.Condition()
        self.url = setting("CALLBACK_URL", f"http://127.0.0.1:{self.server_port}/")
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait(self, request_id, iccids):
        """Waits until the callbacks about all SIMs of a request have come."""
        keys = [(request_id, iccid) for iccid in iccids]
        with self.came:
            if not self.came.wait_for(lambda: all(k in self.seen for k in keys), timeout=30):
                raise TimeoutError(f"not all callbacks of request {request_id} came")
            return [self.seen[k] for k in keys]


class CallbackHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        iccid = next(d["id"] for d in message["deviceIds"] if d["kind"].lower() == "iccid")
        with self.server.came:
            self.server.seen[message["requestId"], iccid] = message
            self.server.came.notify_all()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Keeps standard error for what goes wrong."""


def main():
    client = Client(URL, setting("KEY", "demo-key"), setting("SECRET", "demo-secret"))
    sessions = SessionManagementController(client)
    callbacks = ConnectivityCallbacksController(client)
    licenses = SIMSecureForIoTLicensesController(client)
    subscriptions = AccountSubscriptionsController(client)
    body = {
        "accountName": ACCOUNT,
        "skuNumber": SKU,
        "devices": [
            {"deviceIds": [{"id": imei, "kind": "imei"}, {"id": iccid, "kind": "iccid"}]}
            for imei, iccid in SIMS
        ],
    }

    def pool(when):
        listed = subscriptions.list_account_subscriptions({"accountName": ACCOUNT, "skuNumber": SKU})
        p = listed["subscriptionList"][0]
        print(f"{when}: {p['licenseAssigned']} licenses assigned, {p['licenseAvailable']} available")
        return p["licenseAssigned"]

    def ended(what, accepted):
        for message in listener.wait(accepted["requestId"], [iccid for _, iccid in SIMS]):
            iccid = message["deviceIds"][0]["id"]
            if message["status"] != "Success":
                raise RuntimeError(f"{what} of {iccid}: {message['faultResponse']['faultstring']}")
            print(f"{what}: {iccid} {message['status']}")

    client.fetch_token()
    sessions.start_connectivity_management_session(
        {"username": setting("USER", "demo"), "password": setting("PASSWORD", "demo-password")}
    )
    with Listener() as listener:
        callbacks.register_callback(ACCOUNT, {"name": "CarrierService", "url": listener.url})
        before = pool("before")
        ended("assign", licenses.assign_license_to_devices(body))
        between = pool("assigned")
        ended("unassign", licenses.unassign_license_to_devices(body))
        after = pool("after")
        callbacks.deregister_callback(ACCOUNT, "CarrierService")
        listener.shutdown()
    sessions.end_connectivity_management_session()
    if between != before + len(SIMS) or after != before:
        raise RuntimeError("the pool does not say what the callbacks do")


if __name__ == "__main__":
    main()
