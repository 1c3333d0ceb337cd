// Package protocol holds the black-box tests of the wire protocol: a real
// daemon process, started as master(8) starts it, spoken to byte by byte.
//
// By default they build and test our daemon. SCACHE_BINARY names another one:
//
//	SCACHE_BINARY=/usr/lib/postfix/sbin/scache go test ./test/protocol
//
// runs them against Postfix's own, which shows that the tests are right about
// it. Where ours has to be better than Postfix's (see better in main_test.go)
// a test is skipped then.
package protocol
