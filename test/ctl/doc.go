// Package ctl tests scachectl from outside: the command as it is shipped, against
// "scache serve", against Postfix with ours and with its own scache, in a real
// terminal (tmux), and with a real Prometheus. `make test` installs what it needs.
package ctl
