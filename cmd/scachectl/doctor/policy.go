package doctor

import (
	"errors"
	"fmt"
	"io/fs"
)

// policyMistake: a cache whose rules cannot be read keeps nothing.
func policyMistake(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if c.PolicyTrouble == nil {
			return
		}
		f := Finding{"policy-mistake", Error, []string{c.Name}, c.PolicyTrouble.Error(),
			"connection_cache_policy_file names this file. " + keepsNothing, nil}
		if errors.Is(c.PolicyTrouble, fs.ErrPermission) {
			f.Severity, f.Why = Note, "Its rules were not looked at."
		}
		yield(f)
	})
}

// policyOddity is about rules that are sound and do nothing.
func policyOddity(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if c.Policy == nil {
			return
		}
		for _, text := range c.Policy.Warnings(c.Settings.Duration("connection_cache_ttl_limit")) {
			yield(Finding{"policy-oddity", Warning, []string{c.Name}, text, "The rule does less than it says.", nil})
		}
	})
}

// rules are those of connection_cache_policy_file, each with what it does.
func (c *Cache) rules() (rules []RuleReport) {
	if c.Policy == nil {
		return nil
	}
	for i := range c.Policy.Rules {
		r := &c.Policy.Rules[i]
		rules = append(rules, RuleReport{fmt.Sprintf("%s:%d", c.Policy.File, r.Line), r.String(), r.Explain()})
	}
	return rules
}
