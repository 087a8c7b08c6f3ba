// Package crash names the points at which the service is made to die, to see
// that nothing is lost: every step of what must survive a crash.
//
// In an ordinary build At is empty and leaves nothing in the program. Built with
// "-tags crash", which only make torture and its test do, a process dies at the
// point that CRASH_AT names ("settle.written", or "settle.written:3" for its third
// passage) as if it had been killed: nothing is flushed, closed or rolled back.
// CRASH_LOG names a file to which each point is added that the process passes,
// once, and the one at which it died. CRASH_MIGRATIONS adds migrations to die in.
package crash

// A Point is a place in the code.
type Point int

// The points, by what they are in the midst of. What is "written" is so within a
// transaction that has not been committed; "committed" is before anybody has been
// told of it.
const (
	// Any transaction.
	TxBegun Point = iota
	TxStatement
	TxCommitting
	TxCommitted

	// Acceptance.
	AcceptBegun
	AcceptKeyed
	AcceptTaken
	AcceptWritten
	AcceptCommitted
	AcceptAnswering
	AcceptReplayed

	// The carrier, and settling.
	ClaimWritten
	ClaimCommitted
	CarrierAsking
	CarrierAnswered
	SettleBegun
	SettleCounted
	SettleFreed
	SettleWritten
	SettleCommitted
	LateBegun
	LateTaken
	LateWritten
	LateCommitted

	// Delivery.
	CallbackPosting
	CallbackPosted
	FinishBegun
	FinishWritten
	FinishCommitted

	// Leases that come back: at the shutdown, and from a process that died.
	GiveBackBegun
	GiveBackWritten
	GiveBackCommitted
	ReclaimBegun
	ReclaimWritten
	ReclaimCommitted

	// What operators do.
	ImportBegun
	ImportOwned
	ImportFlushed
	ImportWritten
	ImportCommitted
	PurchaseGrown
	PurchaseWritten
	PurchaseCommitted
	OnceBegun
	OnceDone
	OnceEnded

	// The audit, the schema and the log of SQLite.
	SealMoved
	SealWritten
	SealCommitted
	MigrateLocked
	MigrateBegun
	MigrateWritten
	MigrateDone
	CheckpointBegun
	CheckpointDone

	points // how many there are
)

// Info is what there is to know of a point.
type Info struct {
	Name string
	Is   string // what has happened there, and what has not
	// Passages is of how many one is chosen at which to die; 0 is of 8.
	Passages int
	// SQLite points are not passed on PostgreSQL.
	SQLite bool
}

// Points is every point, in the order of its number. The tests of tools/torture
// hold it against the code.
func Points() []Info {
	list := make([]Info, points)
	for _, of := range []map[Point]Info{pointsOfWork(), otherPoints()} {
		for p, info := range of {
			list[p] = info
		}
	}
	return list
}

// pointsOfWork are those on the way of a request.
func pointsOfWork() map[Point]Info {
	return map[Point]Info{
		TxBegun:      {Name: "tx.begun", Is: "a transaction is open", Passages: 60},
		TxStatement:  {Name: "tx.statement", Is: "between two statements of a transaction", Passages: 300},
		TxCommitting: {Name: "tx.committing", Is: "all is written, COMMIT is not sent", Passages: 60},
		TxCommitted:  {Name: "tx.committed", Is: "COMMIT has returned, nobody knows", Passages: 60},

		AcceptBegun:     {Name: "accept.begun", Is: "a request's transaction is open"},
		AcceptKeyed:     {Name: "accept.keyed", Is: "the idempotency key is claimed"},
		AcceptTaken:     {Name: "accept.taken", Is: "an unassign has its SIMs, and no tasks"},
		AcceptWritten:   {Name: "accept.written", Is: "SIMs, tasks, posting and pool are written"},
		AcceptCommitted: {Name: "accept.committed", Is: "accepted, and no handler knows"},
		AcceptAnswering: {Name: "accept.answering", Is: "accepted, and the client is not answered"},
		AcceptReplayed:  {Name: "accept.replayed", Is: "a repeated request is found, and not answered", Passages: 1},

		ClaimWritten:    {Name: "claim.written", Is: "due tasks are leased", Passages: 3},
		ClaimCommitted:  {Name: "claim.committed", Is: "leased, and the claimer does not know", Passages: 3},
		CarrierAsking:   {Name: "carrier.asking", Is: "the carrier has not been asked"},
		CarrierAnswered: {Name: "carrier.answered", Is: "the carrier did it, and nothing is written of that"},
		SettleBegun:     {Name: "settle.begun", Is: "a settlement's transaction is open"},
		SettleCounted:   {Name: "settle.counted", Is: "tasks and requests are moved, SIMs and pool are not"},
		SettleFreed:     {Name: "settle.freed", Is: "SIMs are freed, the ledger is not written"},
		SettleWritten:   {Name: "settle.written", Is: "the ledger and the pool are written"},
		SettleCommitted: {Name: "settle.committed", Is: "settled, and the sender has no callbacks"},
		LateBegun:       {Name: "late.begun", Is: "the transaction of late outcomes is open", Passages: 4},
		LateTaken:       {Name: "late.taken", Is: "their tasks are taken over", Passages: 4},
		LateWritten:     {Name: "late.written", Is: "they are settled", Passages: 4},
		LateCommitted:   {Name: "late.committed", Is: "settled, and the carrier is not answered", Passages: 4},

		CallbackPosting: {Name: "callback.posting", Is: "a callback is not sent", Passages: 60},
		CallbackPosted:  {Name: "callback.posted", Is: "the listener has it, and nothing is written of that", Passages: 60},
		FinishBegun:     {Name: "finish.begun", Is: "the transaction of ended callbacks is open"},
		FinishWritten:   {Name: "finish.written", Is: "they are written"},
		FinishCommitted: {Name: "finish.committed", Is: "written, and the sender does not know"},
	}
}

// otherPoints are of leases that come back, of operators, and of the database.
func otherPoints() map[Point]Info {
	return map[Point]Info{
		GiveBackBegun:     {Name: "giveback.begun", Is: "at shutdown, leases are to be given back", Passages: 1},
		GiveBackWritten:   {Name: "giveback.written", Is: "they are given back", Passages: 1},
		GiveBackCommitted: {Name: "giveback.committed", Is: "given back, and not told", Passages: 1},
		ReclaimBegun:      {Name: "reclaim.begun", Is: "a dead process's leases are found", Passages: 1},
		ReclaimWritten:    {Name: "reclaim.written", Is: "its tasks are due again", Passages: 1},
		ReclaimCommitted:  {Name: "reclaim.committed", Is: "due, and its request not freed", Passages: 1},

		ImportBegun:       {Name: "import.begun", Is: "an import's transaction is open", Passages: 3},
		ImportOwned:       {Name: "import.owned", Is: "a batch has owners, and no SIMs", Passages: 4},
		ImportFlushed:     {Name: "import.flushed", Is: "a batch is written, perhaps not the last", Passages: 4},
		ImportWritten:     {Name: "import.written", Is: "all batches are written", Passages: 3},
		ImportCommitted:   {Name: "import.committed", Is: "imported, and the caller is not answered", Passages: 3},
		PurchaseGrown:     {Name: "purchase.grown", Is: "the pool has grown, the purchase is not written"},
		PurchaseWritten:   {Name: "purchase.written", Is: "the purchase and its audit entry are written"},
		PurchaseCommitted: {Name: "purchase.committed", Is: "bought, and the caller is not answered"},
		OnceBegun:         {Name: "once.begun", Is: "an operator's key is claimed, and nothing done"},
		OnceDone:          {Name: "once.done", Is: "it is done, and its answer not kept"},
		OnceEnded:         {Name: "once.ended", Is: "its answer is kept, and not given"},

		SealMoved:     {Name: "seal.moved", Is: "the chain's head is moved, its entries are not sealed", Passages: 2},
		SealWritten:   {Name: "seal.written", Is: "entries are sealed", Passages: 2},
		SealCommitted: {Name: "seal.committed", Is: "sealed, and nobody knows", Passages: 2},

		MigrateLocked:  {Name: "migrate.locked", Is: "the schema is to be migrated", Passages: 1},
		MigrateBegun:   {Name: "migrate.begun", Is: "a migration's transaction is open"},
		MigrateWritten: {Name: "migrate.written", Is: "it has run, and its number is not written"},
		MigrateDone:    {Name: "migrate.done", Is: "all have run, the lock is held", Passages: 1},

		CheckpointBegun: {Name: "checkpoint.begun", Is: "SQLite's log is to be copied", Passages: 1, SQLite: true},
		CheckpointDone:  {Name: "checkpoint.done", Is: "it is copied, and not begun anew", Passages: 1, SQLite: true},
	}
}
