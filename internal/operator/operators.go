package operator

import (
	"context"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
)

func operatorOf(o auth.OperatorRecord) client.Operator {
	return client.Operator{
		Name: o.Name, Role: string(o.Role), Disabled: o.Disabled, Created: o.Created, Used: o.Used,
		Token: o.TokenHash != "", Password: o.PasswordHash != "",
	}
}

// listOperators is one page: there are few operators.
func (a *API) listOperators(ctx context.Context, c *call) (page client.Page[client.Operator], err error) {
	if q := c.query(); q.err != nil {
		return page, q.err
	}
	list, err := c.store().Operators(ctx)
	page.List = make([]client.Operator, len(list))
	for i, o := range list {
		page.List[i] = operatorOf(o)
	}
	return page, err
}

func (a *API) getOperator(ctx context.Context, c *call) (client.Operator, error) {
	o, err := c.store().Operator(ctx, c.r.PathValue("name"))
	c.etag = operatorTag(o)
	return operatorOf(o), err
}

// operatorTag stands for what can be changed of an operator here.
func operatorTag(o auth.OperatorRecord) string { return tag(o.Name, o.Role, o.Disabled) }

func (a *API) addOperator(ctx context.Context, c *call, in client.NewOperator) (out client.OperatorToken, err error) {
	if err := checkName("name", in.Name); err != nil {
		return out, err
	}
	role, err := auth.ParseRole(in.Role)
	if err != nil {
		return out, err
	}
	token := auth.NewOperatorToken()
	o := auth.OperatorRecord{Operator: auth.Operator{Name: in.Name, Role: role}, TokenHash: auth.HashSecret(token)}
	c.created("/operators/", in.Name)
	return client.OperatorToken{Name: in.Name, Token: string(token)}, c.store().AddOperator(ctx, o, a.cfg.Clock.Now())
}

func (a *API) changeOperator(ctx context.Context, c *call, in client.OperatorChange) (out client.Operator, err error) {
	name := c.r.PathValue("name")
	if name == c.operator.Name {
		return out, problemf(errSelf, "nobody takes away, or gives, rights of their own: another admin must do it")
	}
	var role auth.Role
	if in.Role != nil {
		if role, err = auth.ParseRole(*in.Role); err != nil {
			return out, err
		}
	}
	if _, err := a.getOperator(ctx, c); err != nil {
		return out, err
	}
	if err := c.match(c.etag); err != nil {
		return out, err
	}
	if in.Role != nil {
		err = c.store().SetOperatorRole(ctx, name, role)
	}
	if err == nil && in.Disabled != nil {
		err = c.store().DisableOperator(ctx, name, *in.Disabled)
	}
	if err != nil {
		return out, err
	}
	return a.getOperator(ctx, c)
}

func (a *API) rotateOperator(ctx context.Context, c *call) (client.OperatorToken, error) {
	token, name := auth.NewOperatorToken(), c.r.PathValue("name")
	return client.OperatorToken{Name: name, Token: string(token)}, c.store().RotateOperator(ctx, name, auth.HashSecret(token))
}

// setOperatorPassword gives an operator a password for the console.
func (a *API) setOperatorPassword(ctx context.Context, c *call, in client.NewSecret) (out client.OperatorPassword, err error) {
	out.Name = c.r.PathValue("name")
	password, err := a.password(in.Secret, &out.Password)
	if err != nil {
		return out, err
	}
	return out, c.store().SetOperatorPassword(ctx, out.Name, auth.HashPassword(password))
}

// removeOperatorPassword keeps an operator out of the console.
func (a *API) removeOperatorPassword(ctx context.Context, c *call) (out none, err error) {
	return out, c.store().SetOperatorPassword(ctx, c.r.PathValue("name"), "")
}
