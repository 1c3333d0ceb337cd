// Package chaos holds one long test: a real daemon, started as master(8) starts
// it, whose bounds are so small that they are met all the time, and real client
// processes around it that behave, misbehave, are stopped, continued and killed,
// while the far ends of the cached connections close at random and the daemon's
// descriptor limit goes down and up.
//
//	chaos_test.go        the test: what is started, and what has to hold at the end
//	fleet_test.go        the client processes, and what is done to them
//	behaved_test.go      a client that behaves, and checks each answer
//	misbehaved_test.go   one that does not
//	sink_test.go         the servers at the far ends: they know who may use what
//	monitor_test.go      what is measured meanwhile, as CSV
//	plot_test.go         the same as pictures
//
// Nothing here steps the system's clock: the daemon tells times to live on the
// monotonic one, which nobody can step.
package chaos
