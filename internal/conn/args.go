package conn

import (
	"database/sql/driver"
	"fmt"
)

// CheckNamedValue asks the base driver. database/sql gives no context with it, so a connection that has yet to be checked
// out lets everything through and checks when the call is there.
func (c *Conn) CheckNamedValue(v *driver.NamedValue) error {
	if q, ok := v.Value.(*whoseBase); ok {
		q.answered = true
		q.base, q.err = c.Base(q.ctx)
		return nil
	}
	if c.phys == nil && c.life.unmade() {
		c.raw = true
		return nil
	}
	c.raw = false
	if c.phys == nil || c.phys.features.Checker == nil {
		return driver.ErrSkip
	}
	return c.phys.features.Checker.CheckNamedValue(v)
}

// check does what database/sql does with arguments (driverArgsConnLocked in its convert.go) for those that
// CheckNamedValue had to let through. A base that can't run the text without preparing it is not asked: its statement is,
// then.
func (c *Conn) check(ph *physical, args []driver.NamedValue, can bool) ([]driver.NamedValue, error) {
	c.raw = false
	if !can {
		return nil, driver.ErrSkip
	}
	checked := args[:0]
	for i := range args {
		v := args[i]
		v.Ordinal = len(checked) + 1
		err := driver.ErrSkip
		if ph.features.Checker != nil {
			err = ph.features.Checker.CheckNamedValue(&v)
		}
		if err == driver.ErrSkip {
			v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
		}
		switch err {
		case nil:
			checked = append(checked, v)
		case driver.ErrRemoveArgument:
		default:
			name := fmt.Sprintf("$%d", v.Ordinal)
			if v.Name != "" {
				name = fmt.Sprintf("with name %q", v.Name)
			}
			return nil, fmt.Errorf("sql: converting argument %s type: %w", name, err)
		}
	}
	return checked, nil
}
