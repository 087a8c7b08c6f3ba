package exchange

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Check reports what in an exchange cannot work, whatever the server: a
// variable that neither vars nor an earlier answer defines, expected JSON that
// is none, a placeholder that does not exist.
func (x Exchange) Check(vars map[string]string) error {
	c := checker{vars: maps.Clone(vars)}
	for _, name := range []string{"bearer", "session"} {
		c.vars[name] = name
	}
	if slices.Contains(x.Needs, NeedCallbacks) {
		c.vars["listener"] = "http://127.0.0.1"
	}
	if vars[x.Application+".token"] == "" && vars[x.Application+".key"] == "" {
		return fmt.Errorf("%s: the application %q of the seed is %w", x.Name, x.Application, ErrUndefined)
	}
	if vars[x.User+".session"] == "" && vars[x.User+".name"] == "" {
		return fmt.Errorf("%s: the user %q of the seed is %w", x.Name, x.User, ErrUndefined)
	}
	if x.Listen != nil && vars[x.Listen.Account] == "" {
		return fmt.Errorf("%s: the account %q of the seed is %w", x.Name, x.Listen.Account, ErrUndefined)
	}
	c.taken = map[string]bool{}
	for name := range c.vars {
		c.taken[name] = true
	}
	for _, s := range x.Steps {
		if err := c.step(s); err != nil {
			return fmt.Errorf("%s: %s: %w", x.Name, s.Name, err)
		}
	}
	return nil
}

// checker follows an exchange as a runner would, with no server.
type checker struct {
	vars  map[string]string // captured values are "1"
	taken map[string]bool   // the names that the seed and the runner give
}

func (c *checker) step(s Step) error {
	vars := maps.Clone(c.vars)
	maps.Copy(vars, s.Vars)
	for name := range s.Vars {
		if c.taken[name] {
			return fmt.Errorf("the column %q takes a name that the seed uses", name)
		}
	}
	texts := []string{s.Name, s.Request.Method, s.Request.Path, s.Request.Body}
	for _, h := range s.Request.Headers {
		texts = append(texts, h.Name, h.Value)
	}
	for _, t := range texts {
		if _, err := expand(t, vars); err != nil {
			return err
		}
	}
	if err := c.message(s.Response, vars); err != nil {
		return err
	}
	for _, k := range s.Callbacks {
		maps.Copy(vars, c.vars)
		maps.Copy(vars, s.Vars)
		if k.Device != "" && vars[k.Device+".iccid"] == "" {
			return fmt.Errorf("the device %q of the seed is %w", k.Device, ErrUndefined)
		}
		for _, part := range []string{"iccid", "imei", "mdn"} {
			vars["device."+part] = vars[k.Device+"."+part]
		}
		if err := c.message(k.Message, vars); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) message(m Message, vars map[string]string) error {
	m, err := m.expand(vars)
	if err != nil {
		return err
	}
	for _, h := range m.Headers {
		if err := c.placeholder(h.Value); err != nil {
			return err
		}
	}
	if m.Body == "" {
		return nil
	}
	v, err := decode(withExtras(m.Body))
	if err != nil {
		return err
	}
	return c.value(v)
}

func (c *checker) value(v any) error {
	switch v := v.(type) {
	case string:
		return c.placeholder(v)
	case []any:
		for _, e := range v {
			if err := c.value(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, e := range v {
			if err := c.value(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) placeholder(s string) error {
	p := placeholder.FindStringSubmatch(s)
	switch {
	case p == nil && strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">"):
		return fmt.Errorf("%s is no placeholder", s)
	case p == nil:
		return nil
	case !slices.Contains(kinds(), p[1]):
		return fmt.Errorf("%s: there is no such placeholder", s)
	case p[3] != "" && c.taken[p[3]]:
		return fmt.Errorf("%s takes a name that the seed uses", s)
	case p[3] != "":
		c.vars[p[3]] = "1"
	}
	return nil
}

// kinds are the placeholders that fits knows.
func kinds() []string {
	return []string{
		"any", "string", "text", "bool", "array", "object", "int",
		"uuid", "uuid4", "time", "contains", "matches", "atmost", "set",
	}
}
