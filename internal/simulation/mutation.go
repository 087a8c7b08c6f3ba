package simulation

// Mutation is a bug put into the service, which the simulation must find.
type Mutation string

// The mutations.
const (
	LoseAccepted   Mutation = "lose accepted requests" // acknowledged, and not written
	ForgetKeys     Mutation = "forget idempotency keys"
	InventOutcomes Mutation = "invent outcomes" // silence of the carrier is taken for its word
	BuyTwice       Mutation = "buy twice"       // a purchase is booked twice
	LoseCallbacks  Mutation = "lose callbacks"  // taken for acknowledged, and not sent
	GiveUpEarly    Mutation = "give up early"   // after the second attempt
	HurryCallbacks Mutation = "hurry callbacks" // the next attempt comes after half the interval
	DelayCallbacks Mutation = "delay callbacks" // the next attempt comes half an hour late
	NeverClaim     Mutation = "never claim"     // what a node lost stays where it is
	PurgeTooSoon   Mutation = "purge too soon"  // what ended is gone at once
)

// Mutations are all of them.
func Mutations() []Mutation {
	return []Mutation{LoseAccepted, ForgetKeys, InventOutcomes, BuyTwice, LoseCallbacks, GiveUpEarly, HurryCallbacks, DelayCallbacks, NeverClaim, PurgeTooSoon}
}
