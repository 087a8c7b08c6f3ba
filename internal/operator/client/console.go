package client

import "time"

type Overview struct {
	At                         time.Time
	Version, Engine, Node      string
	Pools                      []Pool
	PoolCount, LowPools, Stuck int
	Hours                      []Hour
	Bounded                    bool
	Queues                     []Queue
	Trouble                    []Trouble
	Audit                      []AuditEntry
}
type Hour struct {
	At                                                           time.Time
	Requests, Devices, Succeeded, Failed, Delivered, Undelivered int64
}
type Queue struct {
	Phase  string
	Due    int64
	Oldest time.Time
}
type Trouble struct {
	Account, Service, URL string
	Undelivered           int64
	Last                  time.Time
	Status                int
	Answer                string
}
type NewRequest struct {
	Action string   `json:"action"`
	SKU    string   `json:"sku"`
	ICCIDs []string `json:"iccids"`
}
type Planned struct {
	Pool       Pool
	Fit, Unfit int
	Refusal    string
	Devices    []PlannedDevice
}
type PlannedDevice struct {
	ICCID, IMEI, MDN string
	OK               bool
	Code, Reason     string
}
type Exchange struct{ Request, Answer, Note string }
type OperatorPassword struct{ Name, Password string }
