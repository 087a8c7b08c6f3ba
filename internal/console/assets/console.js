// What the pages gain by script: the reader's own time beside UTC, parts that keep
// up to date, files that can be dropped, and secrets that can be copied. Without it
// everything can be read and every form sent.

const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" })
  .formatToParts(new Date()).find((p) => p.type === "timeZoneName")?.value ?? "local";
const offset = new Date().getTimezoneOffset();
const local = new Intl.DateTimeFormat(undefined, offset === 0
  ? {} : { hour: "2-digit", minute: "2-digit", second: "2-digit", day: "2-digit", month: "short" });

// localTimes adds the reader's time to each that is in UTC.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-done])")) {
    time.dataset.done = "";
    const at = new Date(time.dateTime);
    time.title = at.toLocaleString(undefined, { timeZoneName: "short" });
    if (offset !== 0) {
      const own = document.createElement("small");
      own.className = "local";
      own.textContent = `${local.format(at)} ${zone}`;
      time.append(own);
    }
  }
}

// refresh reads the page anew and puts its parts in the place of those shown. What
// is being used (a field, an open fold, a picked row) stays as it is.
let refreshing = false, again = false;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname.endsWith("/sign-in")) { location.reload(); return; }
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = next.getElementById(part.id);
      if (!fresh) { if (part.dataset.poll) { location.reload(); return; } continue; }
      if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) continue;
      if (part.querySelector("input:checked")) continue;
      localTimes(fresh);
      if (part.isEqualNode(fresh)) continue;
      const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      part.replaceWith(fresh);
      if (focused) fresh.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
    }
    poll();
  } finally {
    refreshing = false;
    if (again) { again = false; soon(); }
  }
}

let timer;
function soon(wait = 400) {
  clearTimeout(timer);
  timer = setTimeout(() => refresh().catch(() => soon(5000)), wait);
}

// poll reads a page again whose work has no events.
function poll() {
  const part = document.querySelector("[data-poll]");
  if (part) soon(Number(part.dataset.poll));
}

function follow(account) {
  const query = account === "*" ? "" : `?account=${encodeURIComponent(account)}`;
  const stream = new EventSource(`/console/events${query}`);
  for (const type of ["accepted", "settled", "ended", "low", "reset", "changed"]) stream.addEventListener(type, () => soon());
  stream.addEventListener("open", () => document.documentElement.dataset.stream = "open");
  stream.addEventListener("error", () => document.documentElement.dataset.stream = "lost");
  addEventListener("pagehide", () => stream.close());
}

// drops has a field take files that are dropped on it.
function drops() {
  for (const field of document.querySelectorAll("[data-drop]")) {
    const input = field.querySelector("input[type=file]");
    const over = (on) => (event) => { event.preventDefault(); field.classList.toggle("over", on); };
    field.addEventListener("dragover", over(true));
    field.addEventListener("dragleave", over(false));
    field.addEventListener("drop", (event) => {
      over(false)(event);
      if (event.dataTransfer.files.length) input.files = event.dataTransfer.files;
    });
  }
}

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    const button = event.submitter ?? form.querySelector("button:not([type=button])");
    if (!button || "stay" in button.dataset) return;
    if (form.dataset.busy) button.textContent = form.dataset.busy;
    setTimeout(() => { button.disabled = true; });
  });
}

for (const secret of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(secret.textContent);
    button.textContent = "Copied";
  });
  secret.after(button);
}

localTimes(document);
drops();
poll();
const live = document.querySelector("main")?.dataset.live;
if (live) follow(live);
