-- The schema, for both engines; package store replaces the {tokens}.
--
-- Keys are natural and begin with the account, so that the rows of one account
-- lie together and an engine that shards by account can take them as they are.
-- Times are microseconds since 1970, UTC; 0 and NULL mean "not yet".

CREATE TABLE account (
	name    TEXT NOT NULL PRIMARY KEY,
	created BIGINT NOT NULL
);

-- Applications (key and secret) and users (name and password). An application's
-- current token is made of its secret and the nonce.
CREATE TABLE credential (
	kind     TEXT NOT NULL CHECK (kind IN ('application', 'user')),
	name     TEXT NOT NULL,
	hash     TEXT NOT NULL,
	disabled BIGINT NOT NULL DEFAULT 0,
	nonce    TEXT NOT NULL DEFAULT '',
	issued   BIGINT NOT NULL DEFAULT 0,
	token    TEXT NOT NULL DEFAULT '',
	created  BIGINT NOT NULL,
	PRIMARY KEY (kind, name)
);
CREATE INDEX credential_token ON credential (token) WHERE token <> '';

-- Which accounts a user may use.
CREATE TABLE access (
	username TEXT NOT NULL,
	account  TEXT NOT NULL,
	PRIMARY KEY (username, account)
);

CREATE TABLE session (
	hash        TEXT NOT NULL PRIMARY KEY,
	application TEXT NOT NULL,
	username    TEXT NOT NULL,
	used        BIGINT NOT NULL
);

-- Failed tries in a row, by name and address.
CREATE TABLE lockout (
	name     TEXT NOT NULL,
	address  TEXT NOT NULL,
	failures BIGINT NOT NULL,
	until    BIGINT NOT NULL,
	last     BIGINT NOT NULL,
	PRIMARY KEY (name, address)
);

-- Facts about the installation as a whole.
CREATE TABLE setting (
	name  TEXT NOT NULL PRIMARY KEY,
	value TEXT NOT NULL
);

-- The SIMs and what they hold: sku is empty or the license held or awaited,
-- request the request that last touched it. A SIM is pending while the task of
-- that request is at the carrier or stuck, and assigned otherwise.
CREATE TABLE sim (
	account    TEXT NOT NULL,
	iccid      TEXT NOT NULL,
	imei       TEXT NOT NULL,
	imsi       TEXT NOT NULL DEFAULT '',
	mdn        TEXT NOT NULL DEFAULT '',
	state      TEXT NOT NULL,
	generation TEXT NOT NULL,
	number     BIGINT NOT NULL,
	added      BIGINT NOT NULL,
	sku        TEXT NOT NULL DEFAULT '',
	request    TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (account, iccid)
) {clustered} {hot};
-- Indexes only on what never changes.
CREATE INDEX sim_imei ON sim (account, imei);
CREATE INDEX sim_mdn ON sim (account, mdn) WHERE mdn <> '';
CREATE INDEX sim_number ON sim (account, number);

-- The one rule that crosses accounts: an ICCID belongs to one account.
CREATE TABLE sim_owner (
	iccid   TEXT NOT NULL PRIMARY KEY,
	account TEXT NOT NULL
) {clustered};

-- The number that the next imported SIM gets.
CREATE TABLE counter (
	name  TEXT NOT NULL PRIMARY KEY,
	value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('sim', 0);

CREATE TABLE pool (
	account   TEXT NOT NULL,
	sku       TEXT NOT NULL,
	purchased BIGINT NOT NULL,
	reserved  BIGINT NOT NULL DEFAULT 0,
	assigned  BIGINT NOT NULL DEFAULT 0,
	PRIMARY KEY (account, sku),
	CHECK (reserved >= 0 AND assigned >= 0 AND reserved + assigned <= purchased)
) {hot};

-- Licenses bought (positive) and withdrawn (negative); their sum is purchased.
CREATE TABLE purchase (
	account   TEXT NOT NULL,
	sku       TEXT NOT NULL,
	number    BIGINT NOT NULL,
	units     BIGINT NOT NULL,
	reference TEXT NOT NULL DEFAULT '',
	reason    TEXT NOT NULL,
	time      BIGINT NOT NULL,
	PRIMARY KEY (account, sku, number)
);

-- Accepted requests; postings counts the lines of the ledger they wrote, ended
-- the tasks that ended. lease_end is no later than the end of any lease on its
-- tasks, and NULL where none is leased: what is looked at to find leases that
-- were left behind, so that leasing and ending a task moves no index.
CREATE TABLE request (
	account     TEXT NOT NULL,
	id          TEXT NOT NULL,
	sku         TEXT NOT NULL,
	action      TEXT NOT NULL CHECK (action IN ('assign', 'unassign')),
	time        BIGINT NOT NULL,
	application TEXT NOT NULL DEFAULT '',
	username    TEXT NOT NULL DEFAULT '',
	trace       TEXT NOT NULL DEFAULT '',
	total       BIGINT NOT NULL,
	succeeded   BIGINT NOT NULL DEFAULT 0,
	failed      BIGINT NOT NULL DEFAULT 0,
	postings    BIGINT NOT NULL DEFAULT 0,
	ended       BIGINT NOT NULL DEFAULT 0,
	lease_end   BIGINT,
	purged      BIGINT NOT NULL DEFAULT 0,
	PRIMARY KEY (account, id),
	CHECK (succeeded >= 0 AND failed >= 0 AND succeeded + failed <= total AND ended >= 0 AND ended <= total)
) {hot};
CREATE INDEX request_time ON request (account, time);
CREATE INDEX request_lease ON request (lease_end, account) WHERE lease_end IS NOT NULL;

CREATE TABLE idempotency (
	account     TEXT NOT NULL,
	application TEXT NOT NULL,
	operation   TEXT NOT NULL,
	key         TEXT NOT NULL,
	hash        TEXT NOT NULL,
	request     TEXT NOT NULL,
	time        BIGINT NOT NULL,
	PRIMARY KEY (account, application, operation, key)
);

-- The work for one device of a request, and the outbox: settling moves a task
-- from carrier to listener, a delivered callback to ended. carrier_due is when
-- anybody may take it to the carrier, listener_due when anybody may send its
-- callback; both are NULL while it is leased, until lease_end, and where it is in
-- another phase. So the ordinary course, in which all work is born leased, changes
-- no column of an index, and PostgreSQL writes it in place. lease is the fencing
-- number. attempt counts the asks of the carrier, then the attempts to call back.
-- prior is, for an unassign, the request to point the SIM back at should the
-- carrier refuse. place counts the tasks of a request in the order of their
-- ICCIDs, from 1.
CREATE TABLE task (
	account      TEXT NOT NULL,
	request      TEXT NOT NULL,
	iccid        TEXT NOT NULL,
	place        BIGINT NOT NULL DEFAULT 0,
	phase        TEXT NOT NULL CHECK (phase IN ('carrier', 'listener', 'ended', 'stuck')),
	lease        BIGINT NOT NULL DEFAULT 1,
	carrier_due  BIGINT,
	listener_due BIGINT,
	lease_end    BIGINT NOT NULL DEFAULT 0,
	attempt      BIGINT NOT NULL DEFAULT 0,
	round        BIGINT NOT NULL DEFAULT 0,
	outcome      TEXT NOT NULL DEFAULT '' CHECK (outcome IN ('', 'done', 'refused')),
	code         TEXT NOT NULL DEFAULT '',
	comment      TEXT NOT NULL DEFAULT '',
	prior        TEXT NOT NULL DEFAULT '',
	settled      BIGINT NOT NULL DEFAULT 0,
	status       BIGINT NOT NULL DEFAULT 0,
	latency      BIGINT NOT NULL DEFAULT 0,
	ended        BIGINT NOT NULL DEFAULT 0,
	PRIMARY KEY (account, request, iccid)
) {clustered} {hot};
-- Who has work due, and what of one account is due.
CREATE INDEX task_carrier_due ON task (carrier_due, account) WHERE carrier_due IS NOT NULL;
CREATE INDEX task_listener_due ON task (listener_due, account) WHERE listener_due IS NOT NULL;
CREATE INDEX task_carrier_share ON task (account, carrier_due) WHERE carrier_due IS NOT NULL;
CREATE INDEX task_listener_share ON task (account, listener_due) WHERE listener_due IS NOT NULL;

-- Attempts to call back that failed.
CREATE TABLE attempt (
	account TEXT NOT NULL,
	request TEXT NOT NULL,
	iccid   TEXT NOT NULL,
	round   BIGINT NOT NULL,
	number  BIGINT NOT NULL,
	time    BIGINT NOT NULL,
	status  BIGINT NOT NULL,
	latency BIGINT NOT NULL,
	answer  TEXT NOT NULL,
	PRIMARY KEY (account, request, iccid, round, number)
) {clustered};

-- The ledger. Only ever inserted.
CREATE TABLE posting (
	account TEXT NOT NULL,
	request TEXT NOT NULL,
	number  BIGINT NOT NULL,
	sku     TEXT NOT NULL,
	kind    TEXT NOT NULL CHECK (kind IN ('reserve', 'post', 'void', 'release')),
	units   BIGINT NOT NULL CHECK (units > 0),
	time    BIGINT NOT NULL,
	PRIMARY KEY (account, request, number)
) {clustered};

-- Where callbacks go. password and secret are sealed.
CREATE TABLE listener (
	account  TEXT NOT NULL,
	service  TEXT NOT NULL,
	url      TEXT NOT NULL,
	username TEXT NOT NULL DEFAULT '',
	password TEXT NOT NULL DEFAULT '',
	secret   TEXT NOT NULL DEFAULT '',
	attempts BIGINT NOT NULL DEFAULT 0,
	wait     BIGINT NOT NULL DEFAULT 0,
	timeout  BIGINT NOT NULL DEFAULT 0,
	changed  BIGINT NOT NULL,
	PRIMARY KEY (account, service)
);

CREATE TABLE node (
	id        TEXT NOT NULL PRIMARY KEY,
	heartbeat BIGINT NOT NULL
);
