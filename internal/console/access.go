package console

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// simStates are the states of SIMs.
var simStates = []string{
	string(license.StateActive), string(license.StateSuspended), string(license.StateInactive), string(license.StatePreActive),
}

// accounts lists the accounts.
func (c *Console) accounts(v *visit) error {
	l := listing[client.Account]{caption: "Accounts", path: "/accounts", empty: noAccounts(), columns: []column[client.Account]{
		{"Account", func(a client.Account) cell { return link(a.Name, accountHref(a.Name)) }},
		{"Since", func(a client.Account) cell { return when(a.Created) }},
		{"Requests", func(a client.Account) cell { return link("requests", Prefix+"/requests?account="+a.Name) }},
		{"SIMs", func(a client.Account) cell { return link("SIMs", Prefix+"/sims?account="+a.Name) }},
	}}
	if v.wantsCSV("") {
		return sendCSV(v, l)
	}
	g, _, err := list(v, l)
	if err != nil {
		return err
	}
	return v.show(frame{title: "Accounts", here: "accounts"}, accountsPage(v, g))
}

// addAccount adds an account.
func (c *Console) addAccount(v *visit) error {
	var made client.Account
	q := question{method: http.MethodPost, path: "/accounts", body: client.NewAccount{Name: v.value("name")}, key: v.value("key")}
	if _, err := v.ask(v.r.Context(), q, &made); err != nil {
		return v.again(err, c.accounts)
	}
	return v.done(accountHref(made.Name), "The account is added.")
}

// account shows one account: its pools, its policy, its listeners.
func (c *Console) account(v *visit) error {
	name := v.r.PathValue("account")
	account, err := get[client.Account](v.r.Context(), v.asker, join("/accounts/", name), nil)
	if err != nil {
		return err
	}
	only := map[string][]string{"account": {account.Name}}
	pools := listing[client.Pool]{caption: "Pools", path: "/pools", fixed: only, columns: poolColumns(false), empty: noPoolsHere()}
	listeners := listing[client.Listener]{caption: "Listeners", path: "/listeners", fixed: only, empty: noListeners(), columns: []column[client.Listener]{
		{"Service", func(l client.Listener) cell { return link(l.Service, listenerHref(l.Account, l.Service)) }},
		{"URL", func(l client.Listener) cell { return cell{text: l.URL, code: true} }},
	}}
	switch {
	case v.wantsCSV("Pools"):
		return sendCSV(v, pools)
	case v.wantsCSV("Listeners"):
		return sendCSV(v, listeners)
	}
	p, _, err := list(v, pools)
	if err != nil {
		return err
	}
	l, _, err := list(v, listeners)
	if err != nil {
		return err
	}
	p.csv, l.csv = v.here(map[string]string{"format": "csv", "table": "Pools"}), v.here(map[string]string{"format": "csv", "table": "Listeners"})
	var policy client.Policy
	etag, err := v.ask(v.r.Context(), question{method: http.MethodGet, path: join("/accounts/", account.Name, "/policy")}, &policy)
	if err != nil {
		return err
	}
	return v.show(frame{title: "Account " + account.Name, here: "accounts", live: account.Name}, accountPage(v, account, p, l, policy, etag))
}

// setPolicy says what an account may do of the work that cannot be undone.
func (c *Console) setPolicy(v *visit) error {
	account := v.r.PathValue("account")
	in := client.NewPolicy{RefuseLifetime: v.value("refuseLifetime") != ""}
	if text := v.value("dailyDevices"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			v.invalid("“%s” is no number of devices.", text)
			return c.account(v)
		}
		in.DailyDevices = n
	}
	q := question{method: http.MethodPut, path: join("/accounts/", account, "/policy"), body: in, match: v.value("match")}
	if _, err := v.ask(v.r.Context(), q, nil); err != nil {
		return v.again(err, c.account)
	}
	return v.done(accountHref(account), "The policy is changed.")
}

// secret is what is shown once, after it was made.
type secret struct{ what, text string }

// access shows who may do what: applications and users of the compatible API, and
// operators.
func (c *Console) access(v *visit) error { return c.showAccess(v, nil) }

func (c *Console) showAccess(v *visit, made *secret) error {
	state := func(disabled bool) cell { return yesNo(disabled, badge("disabled", "bad"), badge("ok", "good")) }
	applications := listing[client.Application]{caption: "Applications", path: "/applications", empty: noApplications(), columns: []column[client.Application]{
		{"Key", func(a client.Application) cell { return id(a.Key, Prefix+"/audit?target="+queryEscape(a.Key)) }},
		{"Token issued", func(a client.Application) cell { return when(a.TokenIssued) }},
		{"Old secret until", func(a client.Application) cell { return when(a.OldSecretUntil) }},
		{"State", func(a client.Application) cell { return state(a.Disabled) }},
	}}
	users := listing[client.User]{caption: "Users", path: "/users", empty: noUsers(), columns: []column[client.User]{
		{"Name", func(u client.User) cell { return link(u.Name, Prefix+"/audit?target="+queryEscape(u.Name)) }},
		{"Accounts", func(u client.User) cell { return words(strings.Join(u.Accounts, ", ")) }},
		{"State", func(u client.User) cell { return state(u.Disabled) }},
	}}
	operators := listing[client.Operator]{caption: "Operators", path: "/operators", columns: []column[client.Operator]{
		{"Name", func(o client.Operator) cell { return link(o.Name, Prefix+"/audit?who="+queryEscape(o.Name)) }},
		{"Role", func(o client.Operator) cell { return words(o.Role) }},
		{"Token", func(o client.Operator) cell { return yesNo(o.Token, words("yes"), words("no")) }},
		{"Password", func(o client.Operator) cell { return yesNo(o.Password, words("yes"), words("no")) }},
		{"Last used", func(o client.Operator) cell { return when(o.Used) }},
		{"State", func(o client.Operator) cell { return state(o.Disabled) }},
	}}
	switch {
	case v.wantsCSV("Applications"):
		return sendCSV(v, applications)
	case v.wantsCSV("Users"):
		return sendCSV(v, users)
	case v.wantsCSV("Operators"):
		return sendCSV(v, operators)
	}
	var p accessParts
	var err error
	if p.applications, p.keys, err = accessList(v, applications); err != nil {
		return err
	}
	if p.users, p.names, err = accessList(v, users); err != nil {
		return err
	}
	if v.may("admin") {
		if p.operators, p.people, err = accessList(v, operators); err != nil {
			return err
		}
	}
	p.made = made
	return v.show(frame{title: "Access", here: "access"}, accessPage(v, p))
}

// accessParts are the parts of the page about access.
type accessParts struct {
	applications, users, operators grid
	keys                           []client.Application
	names                          []client.User
	people                         []client.Operator
	made                           *secret
}

// accessList is a whole list: there are few of each, and a page of one must not
// turn that of another.
func accessList[T any](v *visit, l listing[T]) (grid, []T, error) {
	entries, err := collect[T](v.r.Context(), v.asker, l.path, nil, mostChoices)
	g := newGrid(l.caption, l.columns, entries, l.empty)
	g.csv = v.base() + "?format=csv&table=" + l.caption
	return g, entries, err
}

// make makes something that has a secret, and shows it once.
func (c *Console) makeSecret(v *visit, q question, what string, out any, secretOf func() string) error {
	q.method, q.key = http.MethodPost, v.value("key")
	if _, err := v.ask(v.r.Context(), q, out); err != nil {
		return v.again(err, c.access)
	}
	text := secretOf()
	if text == "" {
		return v.done(Prefix+"/access", "%s is set.", what)
	}
	v.kept = map[string]string{"name": "", "accounts": "", "password": "", "secret": ""}
	return c.showAccess(v, &secret{what, text})
}

// addApplication adds an application.
func (c *Console) addApplication(v *visit) error {
	var made client.ApplicationSecret
	q := question{path: "/applications", body: client.NewApplication{Key: v.value("name")}}
	return c.makeSecret(v, q, "The secret of the new application", &made, func() string { return made.Key + " : " + made.Secret })
}

// addUser adds a user.
func (c *Console) addUser(v *visit) error {
	var made client.UserPassword
	q := question{path: "/users", body: client.NewUser{Name: v.value("name"), Accounts: strings.FieldsFunc(v.value("accounts"), isSeparator)}}
	return c.makeSecret(v, q, "The password of "+v.value("name"), &made, func() string { return made.Password })
}

func isSeparator(r rune) bool { return strings.ContainsRune(" ,;\t\r\n", r) }

// addOperator adds an operator.
func (c *Console) addOperator(v *visit) error {
	var made client.OperatorToken
	q := question{path: "/operators", body: client.NewOperator{Name: v.value("name"), Role: v.value("role")}}
	return c.makeSecret(v, q, "The token of "+v.value("name"), &made, func() string { return made.Token })
}

// changeApplication rotates an application, ends its old secret, unlocks, disables
// or enables it.
func (c *Console) changeApplication(v *visit) error {
	path := join("/applications/", v.r.PathValue("name"))
	return c.changeAccess(v, path, "application", map[string]func() error{
		"rotate":  func() error { return c.rotateApplication(v, path, "") },
		"replace": func() error { return c.rotateApplication(v, path, overlap) },
		"end-old-secret": func() error {
			return c.changed(v, question{method: http.MethodPost, path: path + "/end-old-secret"}, "The application's old secret has ended.")
		},
	}, func(disabled bool) any { return client.ApplicationChange{Disabled: &disabled} })
}

// overlap is for how long an application's old secret is taken beside its new one,
// unless it ends at once.
const overlap = "24h"

func (c *Console) rotateApplication(v *visit, path, overlap string) error {
	var made client.ApplicationSecret
	q := question{path: path + "/rotate", body: client.Rotation{Overlap: overlap}}
	return c.makeSecret(v, q, "The new secret of "+v.r.PathValue("name"), &made, func() string { return made.Secret })
}

// changeUser rotates, unlocks, disables or enables a user, or says which accounts
// they may use.
func (c *Console) changeUser(v *visit) error {
	path := join("/users/", v.r.PathValue("name"))
	var made client.UserPassword
	return c.changeAccess(v, path, "user", map[string]func() error{
		"rotate": func() error {
			return c.makeSecret(v, question{path: path + "/rotate", body: client.NewSecret{}}, "The new password of "+v.r.PathValue("name"), &made, func() string { return made.Password })
		},
		"accounts": func() error {
			accounts := strings.FieldsFunc(v.value("accounts"), isSeparator)
			return c.changed(v, question{method: http.MethodPatch, path: path, body: client.UserChange{Accounts: &accounts}}, "The user's accounts are changed.")
		},
	}, func(disabled bool) any { return client.UserChange{Disabled: &disabled} })
}

// changeOperator rotates an operator's token, sets a password, changes the role,
// disables or enables.
func (c *Console) changeOperator(v *visit) error {
	path := join("/operators/", v.r.PathValue("name"))
	var made client.OperatorToken
	var password client.OperatorPassword
	return c.changeAccess(v, path, "operator", map[string]func() error{
		"rotate": func() error {
			return c.makeSecret(v, question{path: path + "/rotate", body: struct{}{}}, "The new token of "+v.r.PathValue("name"), &made, func() string { return made.Token })
		},
		"password": func() error {
			return c.makeSecret(v, question{path: path + "/password", body: client.NewSecret{}}, "The new password of "+v.r.PathValue("name"), &password, func() string { return password.Password })
		},
		"role": func() error {
			role := v.value("role")
			return c.changed(v, question{method: http.MethodPatch, path: path, body: client.OperatorChange{Role: &role}}, "The operator's role is changed.")
		},
	}, func(disabled bool) any { return client.OperatorChange{Disabled: &disabled} })
}

// changeAccess does one of the actions that the path names.
func (c *Console) changeAccess(v *visit, path, what string, own map[string]func() error, change func(disabled bool) any) error {
	action := v.r.PathValue("action")
	if do, ok := own[action]; ok {
		return do()
	}
	switch action {
	case "disable", "enable":
		q := question{method: http.MethodPatch, path: path, body: change(action == "disable")}
		return c.changed(v, q, "The "+what+" is "+action+"d.")
	case "unlock":
		return c.changed(v, question{method: http.MethodPost, path: path + "/unlock", body: struct{}{}}, "The "+what+"'s failed tries are forgotten.")
	}
	v.fail(http.StatusNotFound, "There is no such form", "")
	return nil
}

// changed makes a change and says so on the page about access.
func (c *Console) changed(v *visit, q question, said string) error {
	if _, err := v.ask(v.r.Context(), q, nil); err != nil {
		return v.again(err, c.access)
	}
	return v.done(Prefix+"/access", "%s", said)
}
