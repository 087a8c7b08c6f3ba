// The whole life of two licenses, with nothing but Node.js (18 or newer): a
// token, a session, a listener, an assignment, its callbacks, the pool, and the
// way back. The classes have the shape of the vendor's JavaScript SDK, whose
// place they take here; docs/sdks.md says how to point the SDK itself at
// Simlatch.
//
//   SIMLATCH_URL=http://127.0.0.1:8080 node examples/assign.mjs
//
// The server must be allowed to call this machine: simlatch sandbox is, simlatch
// serve with --callback-allow 127.0.0.1/32.

import { createServer } from 'node:http';
import { once } from 'node:events';

const setting = (name, otherwise) => process.env[`SIMLATCH_${name}`] || otherwise;

const url = setting('URL', 'http://127.0.0.1:8080');
const credentials = {
  oauthClientId: setting('KEY', 'demo-key'),
  oauthClientSecret: setting('SECRET', 'demo-secret'),
};
const user = { username: setting('USER', 'demo'), password: setting('PASSWORD', 'demo-password') };
const accountName = setting('ACCOUNT', '0000123456-00001');
const skuNumber = setting('SKU', 'SIMSec-IoT');
const sims = [
  { imei: setting('IMEI_1', '490154203237518'), iccid: setting('ICCID_1', '89148000000000000012') },
  { imei: setting('IMEI_2', '490154203237526'), iccid: setting('ICCID_2', '89148000000000000020') },
];

/** What an API answers that is not a success: the status, a code and a message. */
class ApiError extends Error {
  constructor(statusCode, result) {
    super(`${statusCode} ${result.errorCode}: ${result.errorMessage}`);
    Object.assign(this, { statusCode, result });
  }
}

/** Holds the two tokens and makes the calls. */
class Client {
  constructor(baseUrl, { oauthClientId, oauthClientSecret }) {
    Object.assign(this, { baseUrl, basic: btoa(`${oauthClientId}:${oauthClientSecret}`) });
  }

  async fetchToken() {
    const token = await this.send('POST', '/api/ts/v1/oauth2/token', 'grant_type=client_credentials', {
      Authorization: `Basic ${this.basic}`,
      'Content-Type': 'application/x-www-form-urlencoded',
    });
    this.bearer = token.access_token;
  }

  call(method, path, body) {
    const headers = { Authorization: `Bearer ${this.bearer}` };
    if (this.vZM2mToken) headers['VZ-M2M-Token'] = this.vZM2mToken;
    if (body) headers['Content-Type'] = 'application/json';
    return this.send(method, `/api/m2m/v1${path}`, body && JSON.stringify(body), headers);
  }

  async send(method, path, body, headers) {
    const response = await fetch(this.baseUrl + path, { method, body, headers });
    const result = await response.json();
    if (!response.ok) throw new ApiError(response.status, result);
    return result;
  }
}

class SessionManagementController {
  constructor(client) { this.client = client; }
  async startConnectivityManagementSession(body) {
    const result = await this.client.call('POST', '/session/login', body);
    this.client.vZM2mToken = result.sessionToken;
    return result;
  }
  endConnectivityManagementSession() { return this.client.call('POST', '/session/logout'); }
}

class ConnectivityCallbacksController {
  constructor(client) { this.client = client; }
  registerCallback(aname, body) { return this.client.call('POST', `/callbacks/${aname}`, body); }
  deregisterCallback(aname, sname) { return this.client.call('DELETE', `/callbacks/${aname}/name/${sname}`); }
}

class SIMSecureForIoTLicensesController {
  constructor(client) { this.client = client; }
  assignLicenseToDevices(body) { return this.client.call('POST', '/devices/license/actions/assign', body); }
  // With the body that the documentation asks for and the SDK leaves out.
  unassignLicenseToDevices(body) { return this.client.call('DELETE', '/devices/license/actions/assign', body); }
}

class AccountSubscriptionsController {
  constructor(client) { this.client = client; }
  listAccountSubscriptions(body) { return this.client.call('POST', '/accounts/subscriptions/actions/list', body); }
}

/** Receives callbacks, each once: a message may come again, and before the answer to its request. */
class Listener {
  constructor() {
    this.seen = new Map(); // by request and ICCID
    this.server = createServer(async (request, response) => {
      let text = '';
      for await (const chunk of request) text += chunk;
      const message = JSON.parse(text);
      const iccid = message.deviceIds.find(({ kind }) => kind.toLowerCase() === 'iccid').id;
      this.seen.set(`${message.requestId} ${iccid}`, message);
      response.writeHead(200).end();
      this.server.emit('callback');
    });
  }

  async listen() {
    this.server.listen(Number(setting('CALLBACK_PORT', '0')), '127.0.0.1');
    await once(this.server, 'listening');
    return setting('CALLBACK_URL', `http://127.0.0.1:${this.server.address().port}/`);
  }

  /** Waits until the callbacks about all SIMs of a request have come. */
  async wait(requestId, iccids) {
    const signal = AbortSignal.timeout(30_000);
    for (;;) {
      const messages = iccids.map((iccid) => this.seen.get(`${requestId} ${iccid}`));
      if (messages.every(Boolean)) return messages;
      await once(this.server, 'callback', { signal });
    }
  }
}

const client = new Client(url, credentials);
const sessions = new SessionManagementController(client);
const callbacks = new ConnectivityCallbacksController(client);
const licenses = new SIMSecureForIoTLicensesController(client);
const subscriptions = new AccountSubscriptionsController(client);

const body = {
  accountName,
  skuNumber,
  devices: sims.map(({ imei, iccid }) => ({ deviceIds: [{ id: imei, kind: 'imei' }, { id: iccid, kind: 'iccid' }] })),
};

async function pool(when) {
  const { subscriptionList } = await subscriptions.listAccountSubscriptions({ accountName, skuNumber });
  const { licenseAssigned, licenseAvailable } = subscriptionList[0];
  console.log(`${when}: ${licenseAssigned} licenses assigned, ${licenseAvailable} available`);
  return licenseAssigned;
}

async function ended(what, { requestId }) {
  for (const message of await listener.wait(requestId, sims.map(({ iccid }) => iccid))) {
    const iccid = message.deviceIds[0].id;
    if (message.status !== 'Success') throw new Error(`${what} of ${iccid}: ${message.faultResponse.faultstring}`);
    console.log(`${what}: ${iccid} ${message.status}`);
  }
}

const listener = new Listener();
try {
  await client.fetchToken();
  await sessions.startConnectivityManagementSession(user);
  await callbacks.registerCallback(accountName, { name: 'CarrierService', url: await listener.listen() });
  const before = await pool('before');
  await ended('assign', await licenses.assignLicenseToDevices(body));
  const between = await pool('assigned');
  await ended('unassign', await licenses.unassignLicenseToDevices(body));
  const after = await pool('after');
  if (between !== before + sims.length || after !== before) throw new Error('the pool does not say what the callbacks do');
  await callbacks.deregisterCallback(accountName, 'CarrierService');
  await sessions.endConnectivityManagementSession();
} finally {
  listener.server.close();
  listener.server.closeAllConnections();
}
