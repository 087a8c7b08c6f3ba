import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * The whole life of two licenses, with nothing but Java (17 or newer): a token, a session, a listener, an assignment, its
 * callbacks, the pool, and the way back. The classes have the shape of the vendor's Java SDK, whose place they take here;
 * docs/sdks.md says how to point the SDK itself at Simlatch.
 *
 * <pre>SIMLATCH_URL=http://127.0.0.1:8080 java examples/Assign.java</pre>
 *
 * The server must be allowed to call this machine: simlatch sandbox is, simlatch serve with --callback-allow 127.0.0.1/32.
 */
public class Assign {
    record Sim(String imei, String iccid) {
        String json() {
            return "{\"deviceIds\": [{\"id\": \"%s\", \"kind\": \"imei\"}, {\"id\": \"%s\", \"kind\": \"iccid\"}]}".formatted(imei, iccid);
        }
    }

    static final String URL = setting("URL", "http://127.0.0.1:8080");
    static final String ACCOUNT = setting("ACCOUNT", "0000123456-00001");
    static final String SKU = setting("SKU", "SIMSec-IoT");
    static final List<Sim> SIMS = List.of(
            new Sim(setting("IMEI_1", "490154203237518"), setting("ICCID_1", "89148000000000000012")),
            new Sim(setting("IMEI_2", "490154203237526"), setting("ICCID_2", "89148000000000000020")));

    static String setting(String name, String otherwise) {
        String value = System.getenv("SIMLATCH_" + name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** The JDK reads no JSON; a program of yours has a library for it. This finds a string or a number by its name. */
    static String member(String json, String name) {
        var found = Pattern.compile("\"" + name + "\"\\s*:\\s*\"?([^\",}\\s]*)").matcher(json);
        if (!found.find()) {
            throw new IllegalStateException("no " + name + " in " + json);
        }
        return found.group(1);
    }

    /** What an API answers that is not a success: the status, and a code and a message in JSON. */
    static class ApiException extends IOException {
        ApiException(int statusCode, String result) {
            super(statusCode + " " + result);
        }
    }

    /** Holds the two tokens and makes the calls. */
    static class Client {
        final HttpClient http = HttpClient.newHttpClient();
        final String basic;
        String bearer;
        String sessionToken;

        Client(String key, String secret) {
            basic = Base64.getEncoder().encodeToString((key + ":" + secret).getBytes(StandardCharsets.UTF_8));
        }

        void fetchToken() throws IOException, InterruptedException {
            bearer = member(send("POST", "/api/ts/v1/oauth2/token", "grant_type=client_credentials", Map.of(
                    "Authorization", "Basic " + basic,
                    "Content-Type", "application/x-www-form-urlencoded")), "access_token");
        }

        String call(String method, String path, String body) throws IOException, InterruptedException {
            var headers = new HashMap<String, String>();
            headers.put("Authorization", "Bearer " + bearer);
            if (sessionToken != null) {
                headers.put("VZ-M2M-Token", sessionToken);
            }
            if (body != null) {
                headers.put("Content-Type", "application/json");
            }
            return send(method, "/api/m2m/v1" + path, body, headers);
        }

        private String send(String method, String path, String body, Map<String, String> headers)
                throws IOException, InterruptedException {
            var request = HttpRequest.newBuilder(URI.create(URL + path)).timeout(Duration.ofSeconds(30))
                    .method(method, body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body));
            headers.forEach(request::header);
            var response = http.send(request.build(), BodyHandlers.ofString());
            if (response.statusCode() / 100 != 2) {
                throw new ApiException(response.statusCode(), response.body());
            }
            return response.body();
        }
    }

    record SessionManagementController(Client client) {
        void startConnectivityManagementSession(String username, String password) throws IOException, InterruptedException {
            client.sessionToken = member(client.call("POST", "/session/login",
                    "{\"username\": \"%s\", \"password\": \"%s\"}".formatted(username, password)), "sessionToken");
        }

        void endConnectivityManagementSession() throws IOException, InterruptedException {
            client.call("POST", "/session/logout", null);
        }
    }

    record ConnectivityCallbacksController(Client client) {
        void registerCallback(String aname, String name, String url) throws IOException, InterruptedException {
            client.call("POST", "/callbacks/" + aname, "{\"name\": \"%s\", \"url\": \"%s\"}".formatted(name, url));
        }

        void deregisterCallback(String aname, String sname) throws IOException, InterruptedException {
            client.call("DELETE", "/callbacks/" + aname + "/name/" + sname, null);
        }
    }

    record SIMSecureForIoTLicensesController(Client client) {
        String assignLicenseToDevices(String body) throws IOException, InterruptedException {
            return client.call("POST", "/devices/license/actions/assign", body);
        }

        /** With the body that the documentation asks for and the SDK leaves out. */
        String unassignLicenseToDevices(String body) throws IOException, InterruptedException {
            return client.call("DELETE", "/devices/license/actions/assign", body);
        }
    }

    record AccountSubscriptionsController(Client client) {
        String listAccountSubscriptions(String accountName, String skuNumber) throws IOException, InterruptedException {
            return client.call("POST", "/accounts/subscriptions/actions/list",
                    "{\"accountName\": \"%s\", \"skuNumber\": \"%s\"}".formatted(accountName, skuNumber));
        }
    }

    /** Receives callbacks, each once: a message may come again, and before the answer to its request. */
    static class Listener {
        private static final Pattern ICCID = Pattern.compile("(?i)\"id\"\\s*:\\s*\"(\\d+)\"\\s*,\\s*\"kind\"\\s*:\\s*\"iccid\"");

        private final Map<String, String> seen = new HashMap<>(); // by request and ICCID
        private final HttpServer server;

        Listener() throws IOException {
            server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(setting("CALLBACK_PORT", "0"))), 0);
            server.createContext("/", this::receive);
            server.start();
        }

        String url() {
            return setting("CALLBACK_URL", "http://127.0.0.1:" + server.getAddress().getPort() + "/");
        }

        private void receive(HttpExchange exchange) throws IOException {
            String message = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
            var iccid = ICCID.matcher(message);
            if (iccid.find()) {
                synchronized (this) {
                    seen.put(member(message, "requestId") + " " + iccid.group(1), message);
                    notifyAll();
                }
            }
            exchange.sendResponseHeaders(200, -1);
            exchange.close();
        }

        /** Waits for the callback about one SIM of a request. */
        synchronized String await(String requestId, String iccid) throws InterruptedException, TimeoutException {
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
            String message;
            while ((message = seen.get(requestId + " " + iccid)) == null) {
                long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                if (left <= 0) {
                    throw new TimeoutException("no callback about " + iccid + " of request " + requestId);
                }
                wait(left);
            }
            return message;
        }

        void stop() {
            server.stop(0);
        }
    }

    final Client client = new Client(setting("KEY", "demo-key"), setting("SECRET", "demo-secret"));
    final AccountSubscriptionsController subscriptions = new AccountSubscriptionsController(client);
    final Listener listener = new Listener();

    Assign() throws IOException {}

    int pool(String when) throws IOException, InterruptedException {
        String listed = subscriptions.listAccountSubscriptions(ACCOUNT, SKU);
        System.out.printf("%s: %s licenses assigned, %s available%n",
                when, member(listed, "licenseAssigned"), member(listed, "licenseAvailable"));
        return Integer.parseInt(member(listed, "licenseAssigned"));
    }

    void ended(String what, String accepted) throws InterruptedException, TimeoutException {
        for (Sim sim : SIMS) {
            String message = listener.await(member(accepted, "requestId"), sim.iccid());
            String status = member(message, "status");
            if (!status.equals("Success")) {
                throw new IllegalStateException(what + ": " + message);
            }
            System.out.printf("%s: %s %s%n", what, sim.iccid(), status);
        }
    }

    void run() throws IOException, InterruptedException, TimeoutException {
        var sessions = new SessionManagementController(client);
        var callbacks = new ConnectivityCallbacksController(client);
        var licenses = new SIMSecureForIoTLicensesController(client);
        String devices = SIMS.stream().map(Sim::json).collect(Collectors.joining(", "));
        String body = "{\"accountName\": \"%s\", \"skuNumber\": \"%s\", \"devices\": [%s]}".formatted(ACCOUNT, SKU, devices);

        client.fetchToken();
        sessions.startConnectivityManagementSession(setting("USER", "demo"), setting("PASSWORD", "demo-password"));
        callbacks.registerCallback(ACCOUNT, "CarrierService", listener.url());
        int before = pool("before");
        ended("assign", licenses.assignLicenseToDevices(body));
        int between = pool("assigned");
        ended("unassign", licenses.unassignLicenseToDevices(body));
        int after = pool("after");
        callbacks.deregisterCallback(ACCOUNT, "CarrierService");
        sessions.endConnectivityManagementSession();
        if (between != before + SIMS.size() || after != before) {
            throw new IllegalStateException("the pool does not say what the callbacks do");
        }
    }

    public static void main(String[] args) throws Exception {
        var example = new Assign();
        try {
            example.run();
        } finally {
            example.listener.stop();
        }
    }
}
