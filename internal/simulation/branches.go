package simulation

// The rare branches, by name. A run of many seeds must have come to each of them.
const (
	refusedInsufficient = "a request refused: too few licenses"
	refusedHeld         = "a request refused: a SIM has or awaits a license"
	refusedNotHeld      = "a request refused: no license to unassign"
	refusedInactive     = "a request refused: a SIM is not active"
	refusedUnknown      = "a request refused: an unknown SIM"
	refusedDaily        = "a request refused: the policy's daily limit"
	refusedLifetime     = "a request refused: the policy on lifetime licenses"
	withdrawalRefused   = "a withdrawal of licenses refused"
	importRefused       = "an import refused: another account's SIM"

	keyReplayed       = "an idempotency key repeated"
	keyInFlight       = "an idempotency key repeated while its call was in flight"
	keyAfterUnknown   = "an acceptance whose commit's outcome was unknown, resolved by its key"
	keyAcceptedAnew   = "a call that failed before its commit, accepted when repeated"
	keyReused         = "an idempotency key refused with another body"
	callLost          = "a call whose node died"
	storeDown         = "the database out of reach for a while"
	settleUnknown     = "a settlement whose commit's outcome was unknown"
	finishUnknown     = "attempts written down with their commit's outcome unknown"
	claimUnknown      = "a claim whose commit's outcome was unknown"
	nodeDied          = "a node died with work in hand"
	nodeEnded         = "a node told to end gave back what it had not begun"
	taskTaken         = "a task taken over when its lease ended"
	callbackTaken     = "a callback taken over when its lease ended"
	outcomeFenced     = "an outcome whose lease had gone to another"
	clockJumped       = "a node's clock jumped"
	carrierTimedOut   = "the carrier did not answer in time"
	carrierAway       = "the carrier could not be reached"
	carrierPanicked   = "the carrier's code panicked"
	carrierPartial    = "the carrier answered for a part of the tasks"
	carrierTwice      = "the carrier answered for a task twice"
	carrierContrary   = "the carrier contradicted itself in one answer"
	carrierStrange    = "the carrier answered for a task it was never given"
	carrierLater      = "the carrier answered later, when asked again"
	carrierDidIt      = "the carrier did it, did not say so, and was asked again"
	assignRefused     = "an assignment voided"
	unassignRefused   = "an unassignment refused by the carrier"
	lateSettled       = "a late outcome settled"
	lateRepeated      = "a late outcome repeated"
	lateContrary      = "a late outcome that contradicts what stands"
	lateUnknown       = "a late outcome of no task"
	lateEnded         = "a late outcome of a request that was purged"
	lateStuck         = "a late outcome of a stuck task, after the deadline"
	taskStuck         = "a task stuck"
	stuckDone         = "a stuck task decided: done"
	stuckRefused      = "a stuck task decided: refused"
	stuckRetry        = "a stuck task decided: ask again"
	stuckMeanwhile    = "a stuck task decided that was settled meanwhile"
	listenerHung      = "a listener hung until the timeout"
	listenerReset     = "a listener cut the connection"
	listenerLate      = "a listener took a callback whose acknowledgement was lost"
	listenerGone      = "a listener answered 410"
	listenerChanged   = "a listener replaced while callbacks waited"
	listenerRemoved   = "a listener removed while callbacks waited"
	callbackUnsent    = "a callback ended unsent, for lack of a listener"
	callbackTwice     = "a callback delivered twice"
	callbackLast      = "a callback acknowledged at the last attempt"
	callbackExhausted = "a callback given up after its last attempt"
	callbackAgain     = "a callback sent again in a new round"
	againDelivered    = "a callback delivered in a later round"
	againExhausted    = "a callback given up in a later round"
	requestPurged     = "an ended request purged"
	auditSealed       = "the audit sealed"
	daysTwo           = "a daily limit begun anew at midnight"
)

// Branches are the names of all rare branches.
func Branches() []string {
	return []string{
		refusedInsufficient, refusedHeld, refusedNotHeld, refusedInactive, refusedUnknown, refusedDaily, refusedLifetime,
		withdrawalRefused, importRefused,
		keyReplayed, keyInFlight, keyAfterUnknown, keyAcceptedAnew, keyReused, callLost, storeDown,
		settleUnknown, finishUnknown, claimUnknown, nodeDied, nodeEnded, taskTaken, callbackTaken, outcomeFenced, clockJumped,
		carrierTimedOut, carrierAway, carrierPanicked, carrierPartial, carrierTwice, carrierContrary, carrierStrange, carrierLater,
		carrierDidIt, assignRefused, unassignRefused, lateSettled, lateRepeated, lateContrary, lateUnknown, lateEnded, lateStuck,
		taskStuck, stuckDone, stuckRefused, stuckRetry, stuckMeanwhile,
		listenerHung, listenerReset, listenerLate, listenerGone, listenerChanged, listenerRemoved,
		callbackUnsent, callbackTwice, callbackLast, callbackExhausted, callbackAgain, againDelivered, againExhausted,
		requestPurged, auditSealed, daysTwo,
	}
}
