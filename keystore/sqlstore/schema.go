package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/pressly/goose/v3"
)

// This file is the schema, as the migrations that make it. A migration that
// was released is never changed; a change of the schema is a new one at the
// end. Comments inside a CREATE stay in the database, where an operator who
// opens it with a standard tool finds them.
//
// Types in braces are translated by the engine. All engines agree on these
// conventions:
//
//   - An instant is an integer, Unix milliseconds in UTC. 0 means "not set", so
//     that comparisons need no NULL logic.
//   - A list or a map is JSON text; an empty one is the empty text, so that the
//     common case is read without a JSON decoder.
//   - Accounts, credentials and keys are never deleted: a deletion leaves a
//     tombstone with deleted_at set. So max(number) + 1 and a growing seq never
//     give a value twice.

// migrations lists the schema's versions in order, the first being version 1.
var migrations = []string{
	firstSchema,
	mailSchema,
	replySchema,
	grantSchema,
	clusterSchema,
}

// schemaVersion is the version that this program reads and writes.
var schemaVersion = int64(len(migrations))

const firstSchema = `
CREATE TABLE accounts (
	-- Who owns keys.
	number     {integer} NOT NULL PRIMARY KEY, -- counted up from 1: also the order of creation, for lists and pages
	id         TEXT      NOT NULL UNIQUE,      -- unique for ever, tombstones included
	email      TEXT      NOT NULL,             -- as it was given; '' if there is none
	email_key  TEXT      UNIQUE,               -- lower-cased email; NULL without one and in tombstones, so that the address is free again
	active     BOOLEAN   NOT NULL,             -- false while deactivated
	roles      TEXT      NOT NULL,             -- JSON list of texts; profile only, no verdict reads it
	first_name TEXT      NOT NULL,
	last_name  TEXT      NOT NULL,
	company    TEXT      NOT NULL,
	phone      TEXT      NOT NULL,
	address    TEXT      NOT NULL,
	siren      TEXT      NOT NULL,
	attributes TEXT      NOT NULL,             -- JSON map of texts, the operator's own
	created_at {integer} NOT NULL,
	updated_at {integer} NOT NULL,
	deleted_at {integer} NOT NULL              -- not 0 in a tombstone
);

CREATE TABLE credentials (
	-- A named use of the API by an account.
	seq         {identity},                    -- order of creation, for lists and pages
	id          TEXT      NOT NULL UNIQUE,
	account_id  TEXT      NOT NULL REFERENCES accounts (id),
	package     TEXT      NOT NULL,            -- '' where no packages are declared
	roles       TEXT      NOT NULL,            -- JSON list of texts: what a route can require
	active      BOOLEAN   NOT NULL,            -- false while deactivated
	description TEXT      NOT NULL,
	allowed_ips TEXT      NOT NULL,            -- JSON list of CIDRs; '' allows all
	metadata    TEXT      NOT NULL,            -- JSON map of texts, the operator's own
	expires_at  {integer} NOT NULL,            -- ends every key of the credential
	created_at  {integer} NOT NULL,
	updated_at  {integer} NOT NULL,
	deleted_at  {integer} NOT NULL             -- not 0 in a tombstone
);

-- The credentials of an account in order, and a page of them; the digests of
-- an account; the foreign key.
CREATE INDEX credentials_of_account ON credentials (account_id, seq);

CREATE TABLE keys (
	-- One secret of a credential. Its text is nowhere in clear.
	seq               {identity},              -- order of creation, for lists and pages
	id                TEXT      NOT NULL UNIQUE,
	credential_id     TEXT      NOT NULL REFERENCES credentials (id),
	digest            {bytes}   NOT NULL UNIQUE CHECK (length(digest) = 32), -- of the text; how a presented key is found
	digest_kind       TEXT      NOT NULL,      -- sha256, or hmac-sha256 under the operator's pepper
	hint              TEXT      NOT NULL,      -- what can be shown of the text
	format            TEXT      NOT NULL,      -- token, uuid, alphanumeric
	sealed            {bytes},                 -- the text under the operator's master key; NULL unless recoverable
	created_at        {integer} NOT NULL,
	activates_at      {integer} NOT NULL,
	expires_at        {integer} NOT NULL,
	unused_expires_at {integer} NOT NULL,      -- ends the key unless it was used before
	revoked_at        {integer} NOT NULL,
	revoked_reason    TEXT      NOT NULL,
	superseded_by     TEXT      NOT NULL,      -- id of the key that bounds this one
	superseded_at     {integer} NOT NULL,
	stops_on_use_of   TEXT      NOT NULL,      -- id of the key whose first use stops this one
	first_used_at     {integer} NOT NULL,
	last_used_at      {integer} NOT NULL       -- to the minute: uses are written in batches
);

-- The keys of a credential in order, and a page of them; the digests of a
-- credential; the foreign key.
CREATE INDEX keys_of_credential ON keys (credential_id, seq);

CREATE TABLE settings (
	-- Small named values of the program itself.
	name  TEXT    NOT NULL PRIMARY KEY,
	value {bytes} NOT NULL
);
`

// mailSchema is for keys that are sent by e-mail.
const mailSchema = `
ALTER TABLE keys ADD COLUMN mailed BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE outbox (
	-- Keys that were asked for by e-mail and are not sent yet. The keys themselves are made when they are sent.
	id           TEXT      NOT NULL PRIMARY KEY,
	account_id   TEXT      NOT NULL,           -- who is to get it; may be nobody's, so that nobody learns which addresses are known
	package      TEXT      NOT NULL,
	requested_at {integer} NOT NULL,
	due_at       {integer} NOT NULL,           -- when to send it, or to try again; while it is sent, when that is given up
	attempts     {integer} NOT NULL,           -- how often sending was begun
	UNIQUE (account_id, package)
);

-- What is due first.
CREATE INDEX outbox_by_due_at ON outbox (due_at);

CREATE TABLE throttles (
	-- E-mail addresses to which nothing is sent for a while.
	digest   {bytes}   NOT NULL PRIMARY KEY CHECK (length(digest) = 32), -- SHA-256 of the lower-cased address
	until_at {integer} NOT NULL
);

-- What can be pruned.
CREATE INDEX throttles_by_until_at ON throttles (until_at);
`

// replySchema is for requests that are sent twice.
const replySchema = `
CREATE TABLE replies (
	-- What was answered to requests with an Idempotency-Key. Nothing in here opens what is sealed.
	digest     {bytes}   NOT NULL PRIMARY KEY CHECK (length(digest) = 32), -- of the presented key and the Idempotency-Key
	request    {bytes}   NOT NULL CHECK (length(request) = 32),            -- digest of method, path and body
	sealed     {bytes}   NOT NULL,             -- the answer, under a key derived from what the client presents
	expires_at {integer} NOT NULL
);

-- What can be pruned.
CREATE INDEX replies_by_expires_at ON replies (expires_at);
`

// grantSchema has what a verdict needs of a key in one row. The rows take over
// that digests are unique, so that a new key still writes to as many indexes; for
// that, keys is made anew. Its seq are given anew too, in the same order.
const grantSchema = `
CREATE TABLE grants (
	-- What a verdict reads of a key: copies from keys, credentials and accounts, which the program keeps like them.
	-- Who changes one of those by hand must do the same here, or the change is in no verdict.
	digest                {bytes}   NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
	key_id                TEXT      NOT NULL,
	digest_kind           TEXT      NOT NULL,
	activates_at          {integer} NOT NULL,
	expires_at            {integer} NOT NULL,
	unused_expires_at     {integer} NOT NULL,
	first_used_at         {integer} NOT NULL,
	revoked_at            {integer} NOT NULL,
	superseded            BOOLEAN   NOT NULL,  -- keys.superseded_by is set
	credential_id         TEXT      NOT NULL,
	package               TEXT      NOT NULL,
	roles                 TEXT      NOT NULL,
	allowed_ips           TEXT      NOT NULL,
	credential_active     BOOLEAN   NOT NULL,  -- false in a tombstone too
	credential_expires_at {integer} NOT NULL,
	account_id            TEXT      NOT NULL,
	account_number        {integer} NOT NULL,
	account_email         TEXT      NOT NULL,
	account_active        BOOLEAN   NOT NULL   -- false in a tombstone too
) {clustered};

INSERT INTO grants (digest, key_id, digest_kind, activates_at, expires_at, unused_expires_at, first_used_at,
		revoked_at, superseded, credential_id, package, roles, allowed_ips, credential_active,
		credential_expires_at, account_id, account_number, account_email, account_active)
	SELECT k.digest, k.id, k.digest_kind, k.activates_at, k.expires_at, k.unused_expires_at, k.first_used_at,
		k.revoked_at, k.superseded_by <> '', c.id, c.package, c.roles, c.allowed_ips, c.active AND c.deleted_at = 0,
		c.expires_at, a.id, a.number, a.email, a.active AND a.deleted_at = 0
	FROM keys k JOIN credentials c ON c.id = k.credential_id JOIN accounts a ON a.id = c.account_id
	ORDER BY k.digest;

CREATE TABLE new_keys (
	-- One secret of a credential. Its text is nowhere in clear.
	seq               {identity},              -- order of creation, for lists and pages
	id                TEXT      NOT NULL UNIQUE,
	credential_id     TEXT      NOT NULL REFERENCES credentials (id),
	digest            {bytes}   NOT NULL CHECK (length(digest) = 32), -- of the text; unique by grants, where a presented key is found
	digest_kind       TEXT      NOT NULL,      -- sha256, or hmac-sha256 under the operator's pepper
	hint              TEXT      NOT NULL,      -- what can be shown of the text
	format            TEXT      NOT NULL,      -- token, uuid, alphanumeric
	sealed            {bytes},                 -- the text under the operator's master key; NULL unless recoverable
	created_at        {integer} NOT NULL,
	activates_at      {integer} NOT NULL,
	expires_at        {integer} NOT NULL,
	unused_expires_at {integer} NOT NULL,      -- ends the key unless it was used before
	revoked_at        {integer} NOT NULL,
	revoked_reason    TEXT      NOT NULL,
	superseded_by     TEXT      NOT NULL,      -- id of the key that bounds this one
	superseded_at     {integer} NOT NULL,
	stops_on_use_of   TEXT      NOT NULL,      -- id of the key whose first use stops this one
	first_used_at     {integer} NOT NULL,
	last_used_at      {integer} NOT NULL,      -- to the minute: uses are written in batches
	mailed            BOOLEAN   NOT NULL       -- made to be sent by e-mail
);

INSERT INTO new_keys (id, credential_id, digest, digest_kind, hint, format, sealed, created_at, activates_at,
		expires_at, unused_expires_at, revoked_at, revoked_reason, superseded_by, superseded_at,
		stops_on_use_of, first_used_at, last_used_at, mailed)
	SELECT id, credential_id, digest, digest_kind, hint, format, sealed, created_at, activates_at,
		expires_at, unused_expires_at, revoked_at, revoked_reason, superseded_by, superseded_at,
		stops_on_use_of, first_used_at, last_used_at, mailed
	FROM keys ORDER BY seq;

DROP TABLE keys;

ALTER TABLE new_keys RENAME TO keys;

-- The keys of a credential in order, and a page of them; the digests of a
-- credential; the foreign key.
CREATE INDEX keys_of_credential ON keys (credential_id, seq);
`

// clusterSchema is for processes that share a store. In a store that is not shared
// its tables stay empty.
const clusterSchema = `
CREATE TABLE epochs (
	-- One row: how many changes the feed has told. Whoever writes anything locks it first.
	id       {integer} NOT NULL PRIMARY KEY CHECK (id = 1),
	epoch    {integer} NOT NULL,
	timeline TEXT      NOT NULL                -- of the server's log, when a change was last told
);

INSERT INTO epochs (id, epoch, timeline) VALUES (1, 1, '');

CREATE TABLE changes (
	-- The feed: whose grants changed. Pruned once every node has confirmed an epoch.
	epoch  {integer} NOT NULL,
	digest {bytes}   NOT NULL,
	PRIMARY KEY (epoch, digest)
);

CREATE TABLE nodes (
	-- The processes that share the store.
	id        TEXT      NOT NULL PRIMARY KEY,
	beat      {integer} NOT NULL,              -- counts up with each sign of life
	confirmed {integer} NOT NULL,              -- the epoch up to which the node acts by the feed
	bound     {integer} NOT NULL               -- milliseconds for which it trusts its memory at most
);
`

// migrate brings the database to the last of the versions, which are migrations
// from the first on.
func migrate(ctx context.Context, e engine, db *sql.DB, versions []string) error {
	steps := make([]*goose.Migration, len(versions))
	for i, text := range versions {
		up := &goose.GoFunc{RunTx: runAll(e.words().Replace(text))}
		steps[i] = goose.NewGoMigration(int64(i+1), up, nil)
	}
	dialect, options, err := e.migrations()
	if err != nil {
		return fmt.Errorf("migrate schema: %w", err)
	}
	provider, err := goose.NewProvider(dialect, db, nil, append(options,
		goose.WithGoMigrations(steps...),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))...)
	if err != nil {
		return fmt.Errorf("migrate schema: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema: %w", err)
	}
	return nil
}

// runAll runs the statements of a migration, one by one, since not every
// driver takes several at once.
func runAll(text string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		for statement := range strings.SplitSeq(text, ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	}
}
