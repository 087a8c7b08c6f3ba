package console

import (
	"net/http"
	"strconv"

	"github.com/simlatch/simlatch/internal/operator/client"
)

func accountHref(account string) string { return join(Prefix+"/accounts/", account) }

func poolHref(account, sku string) string {
	return join(Prefix+"/accounts/", account, "/pools/", sku)
}

// poolColumns are the columns of pools; those of one account need not name it.
func poolColumns(named bool) (columns []column[client.Pool]) {
	if named {
		columns = append(columns, column[client.Pool]{"Account", func(p client.Pool) cell { return link(p.Account, accountHref(p.Account)) }})
	}
	return append(columns,
		column[client.Pool]{"SKU", func(p client.Pool) cell { return link(p.SKU, poolHref(p.Account, p.SKU)) }},
		column[client.Pool]{"Type", func(p client.Pool) cell { return words(p.Type) }},
		column[client.Pool]{"Use", func(p client.Pool) cell {
			return cell{text: strconv.FormatInt(p.Assigned+p.Reserved, 10) + " of " + strconv.FormatInt(p.Purchased, 10), bar: &p}
		}},
		column[client.Pool]{"Purchased", func(p client.Pool) cell { return number(p.Purchased) }},
		column[client.Pool]{"Assigned", func(p client.Pool) cell { return number(p.Assigned) }},
		column[client.Pool]{"Reserved", func(p client.Pool) cell { return number(p.Reserved) }},
		column[client.Pool]{"Available", func(p client.Pool) cell { return number(p.Available) }},
		column[client.Pool]{"State", func(p client.Pool) cell { return yesNo(p.Low, badge("low", "bad"), badge("ok", "good")) }},
	)
}

// pools lists the pools.
func (c *Console) pools(v *visit) error {
	l := listing[client.Pool]{
		caption: "Pools", path: "/pools", filters: []string{"account"}, columns: poolColumns(true), empty: noPools(),
	}
	return showList(v, frame{title: "Pools", here: "pools", live: "*"}, "", l)
}

// accountField is the field by which lists are filtered by account.
func accountField(v *visit, names []string) field {
	return field{name: "account", label: "Account", kind: "text", value: v.value("account"), choices: choose(names...), placeholder: "all"}
}

func (v *visit) poolPath() string {
	return join("/accounts/", v.r.PathValue("account"), "/pools/", v.r.PathValue("sku"))
}

// pool shows one pool with its purchases.
func (c *Console) pool(v *visit) error {
	l := listing[client.Purchase]{
		caption: "Purchases", path: v.poolPath() + "/purchases", columns: []column[client.Purchase]{
			{"Number", func(p client.Purchase) cell { return number(p.Number) }},
			{"At", func(p client.Purchase) cell { return when(p.At) }},
			{"Licenses", func(p client.Purchase) cell { return number(p.Units) }},
			{"Reference", func(p client.Purchase) cell { return words(p.Reference) }},
			{"Reason", func(p client.Purchase) cell { return words(p.Reason) }},
		},
	}
	if v.wantsCSV("") {
		return sendCSV(v, l)
	}
	p, err := get[client.Pool](v.r.Context(), v.asker, v.poolPath(), nil)
	if err != nil {
		return err
	}
	g, _, err := list(v, l)
	if err != nil {
		return err
	}
	return v.show(frame{title: p.SKU + " of " + p.Account, here: "pools", live: p.Account}, poolPage(v, p, g))
}

// purchase adds licenses to a pool, or withdraws them.
func (c *Console) purchase(v *visit) error {
	units, err := strconv.ParseInt(v.value("units"), 10, 64)
	switch {
	case err != nil || units < 1:
		v.invalid("“%s” is no number of licenses: it is 1 or more.", v.value("units"))
		return c.pool(v)
	case v.value("withdraw") != "":
		units = -units
	}
	in := client.NewPurchase{Units: units, Reference: v.value("reference"), Reason: v.value("reason")}
	_, err = v.ask(v.r.Context(), question{method: http.MethodPost, path: v.poolPath() + "/purchases", body: in, key: v.value("key")}, nil)
	if err != nil {
		return v.again(err, c.pool)
	}
	to := poolHref(v.r.PathValue("account"), v.r.PathValue("sku"))
	if units < 0 {
		return v.done(to, "%d licenses were withdrawn.", -units)
	}
	return v.done(to, "%d licenses were added.", units)
}

// setThreshold says when a pool counts as low.
func (c *Console) setThreshold(v *visit) error {
	threshold, err := strconv.ParseInt(v.value("threshold"), 10, 64)
	if err != nil {
		v.invalid("“%s” is no number of licenses.", v.value("threshold"))
		return c.pool(v)
	}
	_, err = v.ask(v.r.Context(), question{method: http.MethodPatch, path: v.poolPath(), body: client.PoolChange{Threshold: threshold}}, nil)
	if err != nil {
		return v.again(err, c.pool)
	}
	return v.done(poolHref(v.r.PathValue("account"), v.r.PathValue("sku")), "The threshold is %d.", threshold)
}
